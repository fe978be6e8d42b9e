"""``densevit quantize``: an exported file in int8 that proves on the user's photos what it costs.

Every layer is tried by itself; those that cost more than they gain stay in float32. The file is measured against the
model, and written only within the accepted loss.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from densevit.errors import EngineError
from densevit.export.files import check_target, output_files, writer
from densevit.export.graph import build_graph
from densevit.export.job import Exported, exportable, open_trial, whole_config, write_verified
from densevit.export.metadata import describe
from densevit.export.quantise_choice import Job, Trials, try_layers
from densevit.export.quantise_gate import MaxLoss
from densevit.export.quantise_graph import quantise_graph
from densevit.export.quantise_layers import Layer, find_layers, group_size
from densevit.export.quantise_measure import Measured, Progress, Reference
from densevit.export.quantise_photos import Photos, Source, find_photos
from densevit.export.verify import Run, check, compare
from densevit.inference.predictor import Predictor
from densevit.io import claim
from densevit.kernels.int8.processor import has_vnni
from densevit_runtime.metadata import Verified

ROUNDS = 5
"""Files that are measured at most, each with more layers in float32."""

LEAST_EQUAL, TOLERANCE = 0.9, 0.5
"""What a file must keep at every size and batch: a graph that breaks at one keeps less. Photos decide on the rest."""

LEAST_SHARE = 0.3
"""Share of the operations that could be in int8 which are so at least."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantised:
    """A file that was written.

    Attributes:
        exported: the files and their metadata.
        measured: on the user's photos.
        float_seconds: CPU time of the model for a photo.
        float_bytes, bytes: size of the graph in float32 and in int8.
        share: of the operations in int8.
        in_float: names of the layers that stay in float32, with the reason.
    """

    exported: Exported
    measured: Measured
    float_seconds: float
    float_bytes: int
    bytes: int
    share: float
    in_float: Mapping[str, str]

    def record(self, trials: Trials, photos: Sequence[Photos]) -> dict[str, Any]:
        """What the file's card says."""
        return {
            "data": sorted({one.title for one in photos}),
            "heads": {one.head: one.record() for one in self.measured.results},
            "share_of_operations": round(self.share, 4),
            "cpu_seconds_per_photo": {"float32": round(self.float_seconds, 4), "int8": round(self.measured.seconds, 4)},
            "bytes": {"float32": self.float_bytes, "int8": self.bytes},
            "layers_in_float32": dict(self.in_float),
            "agreement_lost_by_layer": {
                layer.name: {head: round(value, 6) for head, value in lost.items()}
                for layer, lost in trials.lost.items()
            },
        }


def quantise_model(
    predictor: Predictor,
    name: str,
    out: Path,
    source: Source,
    *,
    to: str | None = None,
    heads: Sequence[str] | None = None,
    scores: bool = False,
    max_loss: Sequence[str] = (),
    overwrite: bool = False,
    say: Callable[[str], None] = _log.info,
    progress: Progress = lambda what, done, total: None,
) -> Quantised:
    """Write a model as one int8 file.

    Args:
        predictor: the model, whose switches are kept.
        name: what it was loaded from.
        out: ends in .onnx, or in .xml for OpenVINO, which gets a .bin next to it.
        source: the photos.
        to: "onnx" or "openvino"; by default as ``out`` ends.
        heads: to export; by default those of the predictor.
        scores: whether segmentation heads get an output of scores.
        max_loss: see ``MaxLoss.parse``.
        overwrite: replace files that densevit did not write, or that were changed since.
        say: is told what was found and assumed.
        progress: called after every photo and layer.

    Raises:
        ConfigError: if an option is not accepted, or a part of the model cannot be exported.
        DataError: if there is no photo, one cannot be read, or a file cannot be written.
        EngineError: if a package is missing, or the file loses more than is accepted; nothing is written.
    """
    target = check_target(to, out)
    claim(output_files(out), inputs=[Path(name), *([source.data] if source.data else [])], overwrite=overwrite)
    bundle, chosen = exportable(predictor, heads)
    fit = whole_config(bundle.fit, chosen)
    accepted = MaxLoss.parse(max_loss, {head: bundle.tasks[head] for head in chosen})
    if not has_vnni():
        say(
            "this processor has no AVX-512 VNNI, or torch was told to do without it: int8 may be no faster than "
            "float32 here; the file is the same, and is as fast as it should be on processors that have it"
        )
    photos = find_photos(predictor, name, chosen, source, say)
    model = build_graph(bundle, fit, chosen, scores=scores, sixteen_bits=target == "onnx").model()
    metadata = replace(describe(bundle, fit, chosen, source=name, scores=scores), precision="int8")
    job = Job(bundle, fit, chosen, model, metadata, photos, out, target, accepted, progress)
    trials = try_layers(job)
    with Reference(bundle, fit, photos) as reference:
        reference.predict(progress)
        rounded, layers, measured = _within(job, trials, reference)
        return _write(job, trials, rounded, layers, measured, reference.seconds)


def _within(job: Job, trials: Trials, reference: Reference) -> tuple[onnx.ModelProto, list[Layer], Measured]:
    """The graph with the most layers in int8 that stays within the accepted loss, these layers, and what it measures.

    Raises:
        EngineError: if there is none, naming the layers that cost most.
    """
    layers, problems = trials.chosen(), [""]
    for _ in range(ROUNDS):
        if trials.share(layers) < LEAST_SHARE * trials.share([*trials.cost]):
            break
        rounded = quantise_graph(job.model, {layer: trials.survey.ranges[layer] for layer in layers}, job.target)
        with (
            writer(rounded, job.target, _options(layers)) as write,
            open_trial(write, output_files(job.out), job.metadata) as run,
        ):
            measured = reference.measure(run, job.progress)
        problems = [problem for one in measured.results if (problem := job.accepted.excess(one))]
        if not problems:
            return rounded, layers, measured
        _log.info("%d layers in int8: %s", len(layers), "; ".join(problems))
        layers = trials.without_worst(layers)
    reason = "; ".join(filter(None, problems)) or "too few layers can be rounded within the accepted loss"
    raise EngineError(
        f"int8 loses too much, even with {len(trials.cost) - len(layers)} of {len(trials.cost)} layers in float32: "
        f"{reason}; the layers that change most by themselves are {trials.worst()}; nothing was written; give photos "
        "like those that the model is for, accept more with --max-loss, or export float32"
    )


def _options(layers: Sequence[Layer]) -> dict[str, str]:
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group_size(layers))}


def _write(
    job: Job,
    trials: Trials,
    rounded: onnx.ModelProto,
    layers: Sequence[Layer],
    measured: Measured,
    float_seconds: float,
) -> Quantised:
    """Verify the file at several sizes and put it in place, with what was measured in its card."""
    problems = {layer.name: layer.problem for layer in find_layers(job.model) if layer.problem}
    costly = {
        layer.name: f"it changes {max(trials.lost[layer].values()):.2%} by itself"
        for layer in trials.cost
        if layer not in layers
    }
    quantised = Quantised(
        Exported((), job.metadata),
        measured,
        float_seconds,
        len(job.model.SerializeToString()),
        len(rounded.SerializeToString()),
        trials.share(layers),
        problems | costly,
    )
    card = {**job.metadata.card, "int8": quantised.record(trials, job.photos)}
    metadata = replace(job.metadata, card=card)

    def verify(run: Run) -> Verified:
        first = job.photos[0]
        pixels = [first.read(first.measured[i * len(first.measured) // 3])[0] for i in range(3)]
        scored = any(about.scores for about in metadata.heads.values())
        verified = compare(run, job.bundle, job.fit, job.heads, pixels, scored=scored)
        least = min(LEAST_EQUAL, 1 - job.accepted.amounts["labels"] / 100)
        check(verified, tolerance=TOLERANCE, least_equal=least)
        return verified

    with writer(rounded, job.target, _options(layers)) as write:
        return replace(quantised, exported=write_verified(write, job.out, metadata, verify))
