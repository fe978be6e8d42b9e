"""Initialise a model from another one: the encoder, and heads with the same decoder."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from densevit.checkpoints.encoder import copy_encoder_weights
from densevit.checkpoints.native import Bundle
from densevit.checkpoints.rename import LoadReport, Row
from densevit.decoders import Decoder, build_decoder
from densevit.encoder.positions import LearnedPositions
from densevit.errors import CheckpointError
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Task

_log = logging.getLogger(__name__)


def start_from(model: DenseModel, tasks: Mapping[str, Task], donor: Bundle, source: str) -> LoadReport:
    """Copy the encoder and the heads with the same decoder from a donor.

    The encoder must have the same width and kind; its position grid, patch size and input channels are adapted, and
    blocks that only one side has are ignored. A head takes the tensors of the donor's head of its name, else of the
    only head with the same decoder. If the classes differ, the rows of classes that both name are copied; the others
    keep their initial value. ``source`` is what the report and messages call the donor.

    Raises:
        CheckpointError: if the encoders differ in width, heads or kind.
    """
    encoder, donor_encoder = model.config.encoder, donor.model.config.encoder
    kind, donor_kind = ((config.embed_dim, config.num_heads, config.mlp) for config in (encoder, donor_encoder))
    if kind != donor_kind:
        message = "{} has an encoder of width {}, {} heads and {}, but the model has {}, {} and {}; "
        advice = "leave model.encoder out to take that of init, or choose another init"
        raise CheckpointError(message.format(source, *donor_kind, *kind) + advice)
    for setting in ("norm_eps", "activation", "pre_norm", "final_norm", "final_norm_eps"):
        trained, new = getattr(donor_encoder, setting), getattr(encoder, setting)
        if trained != new:
            _log.warning("the encoder of %s was trained with %s %s but the model has %s", source, setting, trained, new)
    report = copy_encoder_weights(
        model.encoder,
        donor.model.encoder.state_dict(),
        source=source,
        grid=donor_encoder.positions.grid if isinstance(donor_encoder.positions, LearnedPositions) else None,
        ignore=[f"blocks.{index}.*" for index in range(encoder.taps[-1] + 1, donor_encoder.depth)],
        allow_missing=["*"],
    )
    rows = [Row(f"encoder.{row.name}", row.status, row.note) for row in report.rows]
    for name in model.config.heads:
        rows += _fill_head(model, name, tasks[name], donor)
    return LoadReport(source, tuple(rows))


def change_classes(model: DenseModel, name: str, num_classes: int) -> tuple[str, ...]:
    """Give a head another number of classes, in place.

    Returns:
        Names of the tensors whose size depends on it, which begin with random values; all others stay as they are.

    Raises:
        ConfigError: if the number is out of range.
    """
    changed = _class_axes(model, name)
    head = {**model.config.heads[name].plain(), "out_channels": num_classes}
    plain = model.config.plain()
    config = ModelConfig.parse(plain | {"heads": {**plain["heads"], name: head}}, source=f"head {name!r}")
    old, new = model.decoder(name), _decoder_with(model, name, num_classes)
    kept = {key: tensor for key, tensor in old.state_dict().items() if key not in changed}
    new.load_state_dict(kept, strict=False)
    model.heads[name], model.config = new.train(old.training), config
    return tuple(f"heads.{name}.{key}" for key in changed)


def _fill_head(model: DenseModel, name: str, task: Task, donor: Bundle) -> list[Row]:
    """Copy one head and report on each of its tensors."""
    targets = model.decoder(name).state_dict()
    other = _counterpart(model, name, task, donor)
    if other is None:
        note = "no head with this decoder; keeps its initial value"
        return [Row(f"heads.{name}.{key}", "missing", note) for key in targets]
    stored = donor.model.decoder(other).state_dict()
    classes, stored_classes = _classes(task), _classes(donor.tasks[other])
    axes = _class_axes(model, name) if classes != stored_classes else {}
    rows = []
    for key, target in targets.items():  # these share their memory with the parameters
        axis = axes.get(key)
        if key not in stored or _without(stored[key].shape, axis) != _without(target.shape, axis):
            rows.append(Row(f"heads.{name}.{key}", "missing", "another shape; keeps its initial value"))
            continue
        notes = [] if other == name else [f"from head {other}"]
        if axis is None:
            target.copy_(stored[key])
        else:
            notes.append(_copy_classes(target, stored[key], axis, classes, stored_classes))
        rows.append(Row(f"heads.{name}.{key}", "adapted" if notes else "loaded", ", ".join(notes)))
    return rows


def _counterpart(model: DenseModel, name: str, task: Task, donor: Bundle) -> str | None:
    """The donor's head of the same task that has the same name and decoder, else the only one with the same decoder."""
    config, heads = model.config.heads[name], donor.model.config.heads
    alike = [other for other, head in heads.items() if donor.tasks[other].kind == task.kind]
    if name in alike and heads[name].decoder.kind == config.decoder.kind:
        return name
    alike = [other for other in alike if heads[other].decoder == config.decoder]
    return alike[0] if len(alike) == 1 else None


def _classes(task: Task) -> tuple[str, ...]:
    return () if task.class_table is None else task.class_table.names


def _decoder_with(model: DenseModel, name: str, out_channels: int) -> Decoder:
    """A head's decoder with random weights and another number of output channels."""
    return build_decoder(
        model.config.heads[name].decoder,
        embed_dim=model.config.encoder.embed_dim,
        num_taps=len(model.config.head_taps(name)),
        out_channels=out_channels,
        in_channels=model.config.encoder.in_channels,
    )


def _class_axes(model: DenseModel, name: str) -> dict[str, int]:
    """Tensors of a head whose size depends on the number of classes, with the axis of the classes."""
    with torch.device("meta"):
        wider = _decoder_with(model, name, model.config.heads[name].out_channels + 1).state_dict()
    shapes = {key: tensor.shape for key, tensor in model.decoder(name).state_dict().items()}
    return {
        key: next(axis for axis, size in enumerate(shape) if size != wider[key].shape[axis])
        for key, shape in shapes.items()
        if shape != wider[key].shape
    }


def _without(shape: torch.Size, axis: int | None) -> list[int]:
    return [size for index, size in enumerate(shape) if index != axis]


def _copy_classes(
    target: Tensor, stored: Tensor, axis: int, classes: tuple[str, ...], stored_classes: tuple[str, ...]
) -> str:
    """Copy the rows of the classes that both sides name."""
    shared = [name for name in classes if name in stored_classes]
    rows = torch.tensor([classes.index(name) for name in shared], dtype=torch.long)
    stored_rows = torch.tensor([stored_classes.index(name) for name in shared], dtype=torch.long)
    target.index_copy_(axis, rows, stored.index_select(axis, stored_rows).to(target))
    return f"{len(shared)} of {len(classes)} classes, by name"
