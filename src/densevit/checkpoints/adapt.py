"""From any model into another: what of a checkpoint's encoder and heads a new model can begin with."""

import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from densevit.checkpoints.encoder import load_encoder_weights
from densevit.checkpoints.native import Bundle
from densevit.checkpoints.rename import LoadReport, Row
from densevit.decoders import build_decoder
from densevit.encoder.positions import LearnedPositions
from densevit.errors import CheckpointError
from densevit.model import DenseModel
from densevit.tasks import Task

_log = logging.getLogger(__name__)


def start_from(model: DenseModel, tasks: Mapping[str, Task], donor: Bundle, source: str) -> LoadReport:
    """Copy into a model what fits of another: the encoder, and heads of the same decoder.

    The encoder must be of the same width and kind; its position grid, patch size and input channels are brought to
    the model's form, blocks that only one side has are left. A head takes the tensors of the head of its name, else of
    the only head with the same decoder. Where the number of classes differs, the rows of classes that both name are
    taken; the others keep their initial value.

    Args:
        model: to fill.
        tasks: of the model's heads.
        donor: to take from.
        source: what to call the donor in the report and in messages.

    Raises:
        CheckpointError: if the encoders are not of one kind.
    """
    own, given = model.config.encoder, donor.model.config.encoder
    if (own.embed_dim, own.num_heads, own.mlp) != (given.embed_dim, given.num_heads, given.mlp):
        raise CheckpointError(
            f"{source} has an encoder of width {given.embed_dim}, {given.num_heads} heads and {given.mlp}, but the "
            f"model has {own.embed_dim}, {own.num_heads} and {own.mlp}; init needs the same; leave model.encoder out "
            "to take that of init, or choose another init"
        )
    for fact in ("norm_eps", "activation", "pre_norm", "final_norm"):
        if getattr(own, fact) != getattr(given, fact):
            _log.warning(
                "the encoder of %s has %s %s but the model has %s; it was trained with the former",
                source, fact, getattr(given, fact), getattr(own, fact),
            )  # fmt: skip
    stored = donor.model.encoder.state_dict()
    report = load_encoder_weights(
        model.encoder,
        stored,
        source=source,
        grid=given.positions.grid if isinstance(given.positions, LearnedPositions) else None,
        ignore=[name for name in stored if _beyond(name, own.taps[-1])],
        allow_missing=["*"],
    )
    rows = [Row(f"encoder.{row.name}", row.status, row.note) for row in report.rows]
    for name in model.config.heads:
        rows += _fill_head(model, name, tasks[name], donor)
    return LoadReport(source, tuple(rows))


def _beyond(name: str, last: int) -> bool:
    """Whether a tensor belongs to a block after the model's last."""
    parts = name.split(".")
    return parts[0] == "blocks" and int(parts[1]) > last


def _fill_head(model: DenseModel, name: str, task: Task, donor: Bundle) -> list[Row]:
    """Copy one head; what became of each of its tensors."""
    targets = model.decoder(name).state_dict()
    other = _counterpart(model, name, task, donor)
    if other is None:
        return [Row(f"heads.{name}.{key}", "missing", "no head like it; keeps its initial value") for key in targets]
    given = donor.model.decoder(other).state_dict()
    own_classes, classes = _classes(task), _classes(donor.tasks[other])
    axes = _class_axes(model, name) if own_classes != classes else {}
    rows = []
    for key, target in targets.items():  # these share their memory with the parameters
        notes = [] if other == name else [f"from head {other}"]
        fits = key in given and _without(given[key].shape, axes.get(key)) == _without(target.shape, axes.get(key))
        if fits and key in axes:
            notes.append(_copy_classes(target, given[key], axes[key], own_classes, classes))
        elif fits:
            target.copy_(given[key])
        if fits:
            rows.append(Row(f"heads.{name}.{key}", "adapted" if notes else "loaded", ", ".join(notes)))
        else:
            rows.append(Row(f"heads.{name}.{key}", "missing", "another shape; keeps its initial value"))
    return rows


def _counterpart(model: DenseModel, name: str, task: Task, donor: Bundle) -> str | None:
    """The donor's head of the same name and decoder, else the only one with the same decoder; of the same task."""
    config, heads = model.config.heads[name], donor.model.config.heads
    alike = [other for other, head in heads.items() if donor.tasks[other].kind == task.kind]
    if name in alike and heads[name].decoder.kind == config.decoder.kind:
        return name
    alike = [other for other in alike if heads[other].decoder == config.decoder]
    return alike[0] if len(alike) == 1 else None


def _classes(task: Task) -> tuple[str, ...]:
    return () if task.class_table is None else task.class_table.names


def _class_axes(model: DenseModel, name: str) -> dict[str, int]:
    """Tensors of a head whose size follows from the number of classes, with the axis that counts them."""
    head = model.config.heads[name]
    with torch.device("meta"):
        wider = build_decoder(
            head.decoder,
            embed_dim=model.config.encoder.embed_dim,
            num_taps=len(model.config.head_taps(name)),
            out_channels=head.out_channels + 1,
        ).state_dict()
    shapes = {key: tensor.shape for key, tensor in model.decoder(name).state_dict().items()}
    return {
        key: next(axis for axis, size in enumerate(shape) if size != wider[key].shape[axis])
        for key, shape in shapes.items()
        if shape != wider[key].shape
    }


def _without(shape: torch.Size, axis: int | None) -> list[int]:
    return [size for index, size in enumerate(shape) if index != axis]


def _copy_classes(target: Tensor, given: Tensor, axis: int, own: tuple[str, ...], classes: tuple[str, ...]) -> str:
    """Take the rows of the classes that both sides name."""
    shared = [name for name in own if name in classes]
    to, source = (torch.tensor([names.index(name) for name in shared], dtype=torch.long) for names in (own, classes))
    target.index_copy_(axis, to, given.index_select(axis, source).to(target))
    return f"{len(shared)} of {len(own)} classes, by name"
