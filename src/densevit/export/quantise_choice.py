"""What each layer costs in int8, and which layers to round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from densevit.checkpoints.native import Bundle
from densevit.errors import EngineError
from densevit.export.files import Target
from densevit.export.quantise_gate import MaxLoss
from densevit.export.quantise_layers import Layer, find_layers, group_size
from densevit.export.quantise_measure import Progress, damage
from densevit.export.quantise_photos import Photos
from densevit.export.quantise_trial import Survey, survey, trial
from densevit.inference_config import InferenceConfig
from densevit_runtime.metadata import Metadata

TRIED = 2
"""Photos on which every layer is tried."""

FAIR = 10.0
"""A layer may take so many times the share of the accepted loss that it has of the operations..."""

HARMLESS = 0.5
"""... and any layer this share of the accepted loss; losses of layers grow like the root of their number."""

STEP = 0.1
"""Share of the rounded operations that return to float32 after a file that lost too much."""


@dataclass(frozen=True)
class Job:
    """What the steps share.

    Attributes:
        bundle: the model.
        fit: how images are run.
        heads: names, in the order of the outputs.
        model: the graph in float32.
        metadata: of the file, without what is measured.
        photos: to calibrate and measure on.
        out: the file to write.
        target: its engine.
        accepted: the accepted loss.
        progress: called after every photo and layer.
    """

    bundle: Bundle
    fit: InferenceConfig
    heads: Sequence[str]
    model: onnx.ModelProto
    metadata: Metadata
    photos: Sequence[Photos]
    out: Path
    target: Target
    accepted: MaxLoss
    progress: Progress


@dataclass(frozen=True)
class Trials:
    """What each layer costs in int8 by itself.

    Attributes:
        survey: operations and ranges.
        lost: of each layer, the agreement that each head loses.
        cost: of each layer, the largest of those as a share of what is accepted.
    """

    survey: Survey
    lost: Mapping[Layer, Mapping[str, float]]
    cost: Mapping[Layer, float]

    def share(self, layers: Sequence[Layer]) -> float:
        """The share of all operations that are in int8 with some layers rounded."""
        return self.survey.share([layer for layer in layers if layer.kind != "stored"])

    def chosen(self) -> list[Layer]:
        """The layers that gain more than they cost."""
        return [layer for layer in self.cost if self.cost[layer] <= max(HARMLESS, FAIR * self.survey.share([layer]))]

    def without_worst(self, layers: Sequence[Layer]) -> list[Layer]:
        """The layers without those that cost most for their operations, up to ``STEP`` of these."""
        share = self.survey.share(layers)
        by_price = sorted(layers, key=lambda layer: self.cost[layer] / max(self.survey.share([layer]), 1e-6))
        kept = by_price[:-1]
        while len(kept) > 1 and self.survey.share(kept[:-1]) >= (1 - STEP) * share:
            kept.pop()
        return [layer for layer in layers if layer in kept]

    def worst(self, count: int = 3) -> str:
        """The layers that cost most, in words."""
        worst = sorted(self.cost, key=lambda layer: -self.cost[layer])[:count]
        return ", ".join(f"{layer.name} ({max(self.lost[layer].values()):.2%})" for layer in worst)


def try_layers(job: Job) -> Trials:
    """Run some photos with each layer in int8 by itself.

    Raises:
        EngineError: if no layer can be rounded, or ONNX Runtime is missing.
    """
    layers = [layer for layer in find_layers(job.model) if not layer.problem]
    if not any(layer.kind != "stored" for layer in layers):
        raise EngineError("the model has no layer that int8 can make faster; export it in float32")
    pixels = [group.read(number)[0] for group in job.photos for number in group.calibrated]
    threads = torch.get_num_threads()
    found = survey(job.model, layers, pixels, threads=threads)
    run = trial(job.model, found.ranges, job.target, group=group_size(layers), threads=threads)
    tasks = {head: job.bundle.tasks[head] for head in job.heads}
    tried = sorted({i * len(pixels) // TRIED for i in range(TRIED)})
    lost = {}
    for done, layer in enumerate(layers, start=1):
        actual = [run(pixels[i], layer) for i in tried]
        lost[layer] = damage(tasks, [found.expected[i] for i in tried], actual)
        job.progress("layers", done, len(layers))
    cost = {layer: max(job.accepted.shares(tasks, one).values()) for layer, one in lost.items()}
    return Trials(found, lost, cost)
