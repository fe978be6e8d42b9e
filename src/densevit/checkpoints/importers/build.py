"""Build a model from an importer's parts, and account for every tensor of the file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densevit.checkpoints.importers.base import ImportedParts, Importer, Source
from densevit.checkpoints.native import Bundle, Card
from densevit.checkpoints.rename import LoadReport, Renamed, Row, require_total
from densevit.errors import CheckpointError, ConfigError
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_CONVERTED = (torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters; ``source`` is the sum of the others.

    Attributes:
        source: in the file, without running statistics.
        built: in the model.
        ignored: of tensors ignored for a stated reason.
        absorbed: merged into others, such as a bias folded into a running mean.
    """

    source: int
    built: int
    ignored: int
    absorbed: int


@dataclass(frozen=True)
class Imported:
    """An imported checkpoint.

    Attributes:
        importer: key in ``IMPORTERS``.
        bundle: the model with its task, inference settings, protocol and card.
        report: on every tensor; ``str`` gives a table.
    """

    importer: str
    bundle: Bundle
    report: LoadReport
    counts: Counts


def build(name: str, importer: Importer, source: Source) -> Imported:
    """Run an importer and load the weights into the model that it describes; also works on meta tensors.

    Raises:
        CheckpointError: if a fact is missing, or the weights do not fit the model.
    """
    parts = _read(importer, replace(source, state=_in_float32(source.state)))
    try:
        data = {"encoder": parts.encoder, "heads": parts.heads, "normalisation": parts.normalisation}
        config = ModelConfig.parse(data, source=f"the model of {source.name}")
        with torch.device("meta"):
            model = DenseModel(config)
    except ConfigError as error:
        raise CheckpointError(f"{error}\nits weights and its config file contradict each other") from None
    renamed = _without_late_blocks(parts.renamed, config)
    targets = model.state_dict()
    require_total(
        renamed,
        {key: tensor.shape for key, tensor in targets.items()},
        source=source.name,
        advice=f"it was read as {importer.title}; correct its config file, or name another program by --as of "
        "`densevit convert`",
    )
    # Copies, since tensors of a file may share memory.
    state = {
        key: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True, memory_format=torch.contiguous_format)
        for key, t in renamed.tensors.items()
    }
    model.load_state_dict(state, assign=True)
    model.requires_grad_()
    (head,) = config.heads
    card = Card(name=source.file_name, provenance=(parts.provenance,))
    fit = InferenceConfig(short_side=parts.short_side)
    bundle = Bundle(model.eval(), {head: parts.task}, fit, card, parts.protocol)
    return Imported(name, bundle, _report(source, renamed), _counts(source, model, renamed))


def _in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of 16 bits in float32, in which importers then fold and scale."""
    return {name: t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for name, t in state.items()}


def _read(importer: Importer, source: Source) -> ImportedParts:
    try:
        return importer.read(source)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError) as error:
        # Shapes are checked one by one, so what remains are unexpected values in side files.
        raise CheckpointError(
            f"{source.name} looks like {importer.title}, but its config file has an unexpected value "
            f"({type(error).__name__}: {error}); correct or remove {' or '.join(importer.side_files) or 'it'}"
        ) from error


def _without_late_blocks(renamed: Renamed, config: ModelConfig) -> Renamed:
    """Ignore blocks after the last tap, which the model does not have."""
    last = config.encoder.taps[-1]
    prefixes = tuple(f"encoder.blocks.{index}." for index in range(last + 1, config.encoder.depth))
    late = [name for name in renamed.tensors if name.startswith(prefixes)]
    kept = {name: tensor for name, tensor in renamed.tensors.items() if name not in late}
    reasons = {key: f"after the last tap, {last}" for name in late for key in renamed.sources[name]}
    return replace(renamed, tensors=kept, ignored=renamed.ignored | reasons)


def _report(source: Source, renamed: Renamed) -> LoadReport:
    rows = []
    for name in renamed.tensors:
        stored = {source.state[key].dtype for key in renamed.sources.get(name, ()) if key in source.state}
        types = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in stored if dtype in _CONVERTED))
        said = [renamed.notes.get(name, ""), f"{types} in the file, float32 here" if types else ""]
        note = "; ".join(filter(None, said))
        rows.append(Row(name, "adapted" if note else "loaded", note))
    rows += [Row(name, "ignored", reason) for name, reason in renamed.ignored.items()]
    return LoadReport(source.name, tuple(rows))


def _counts(source: Source, model: DenseModel, renamed: Renamed) -> Counts:
    sizes = {name: math.prod(tensor.shape) for name, tensor in source.state.items() if not name.endswith(_STATISTICS)}
    return Counts(
        source=sum(sizes.values()),
        built=model.num_parameters(),
        ignored=sum(sizes.get(name, 0) for name in renamed.ignored),
        absorbed=renamed.absorbed,
    )
