"""Compare an exported file with the model that it was made from, on photos, at several sizes and batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit.errors import DataError, EngineError
from densevit.inference.decode import decode, mean_entropy, scores
from densevit.inference.pipeline import predict_batch
from densevit.inference_config import InferenceConfig
from densevit.io import find_images, read_image
from densevit.pixels import fit_image
from densevit.tasks import Segmentation
from densevit.types import Size
from densevit_runtime.metadata import Verified

SIZES = ((1, 384, 512), (1, 517, 333), (1, 400, 400), (3, 240, 320), (3, 352, 264))
"""(B, H, W) of the images: square and not, singly and in batches."""

TOLERANCE = 1e-3
"""Largest accepted difference of values and scores, over their range."""

LEAST_EQUAL = 0.999
"""Least accepted share of equal labels."""

LEAST_RANGE = 1e-2
"""Range of an output at least, over its largest value: that of one that hardly varies is rounding."""

SHIPPED = Path(__file__).parent / "photos"
"""Photos for users who give none."""

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Mapping[str, NDArray[Any]]]
"""Photos (B, H, W, 3) -> the outputs of an exported graph by name."""


@dataclass
class Differences:
    """The largest differences so far.

    Attributes:
        largest: of each output of values or scores, over its range.
        summed: the same, summed over all values, and their number.
        equal: pixels with equal labels, and all pixels, of each segmentation head.
    """

    largest: dict[str, float] = field(default_factory=dict)
    summed: dict[str, tuple[float, int]] = field(default_factory=dict)
    equal: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add_values(self, name: str, actual: NDArray[Any], expected: NDArray[Any], span: float | None = None) -> None:
        """Compare an output, whose range is ``span`` if given, else that of the values."""
        if actual.shape != expected.shape:
            raise EngineError(
                f"output {name!r} of the exported graph has shape {actual.shape} but {expected.shape} is needed; "
                "report the model's config"
            )
        highest, lowest = float(expected.max()), float(expected.min())
        if span is None:
            span = max(highest - lowest, LEAST_RANGE * max(abs(highest), abs(lowest)), 1e-12)
        differences = np.abs(actual.astype(np.float64) - expected) / span
        found = float(differences.max())
        self.largest[name] = max(self.largest.get(name, 0.0), found if found == found else float("inf"))
        total, count = self.summed.get(name, (0.0, 0))
        self.summed[name] = total + float(np.nan_to_num(differences, posinf=1e300).sum()), count + differences.size

    def add_labels(self, name: str, actual: NDArray[Any], expected: NDArray[Any]) -> None:
        """Compare the labels of a head."""
        same = int((actual == expected).sum()) if actual.shape == expected.shape else 0
        equal, total = self.equal.get(name, (0, 0))
        self.equal[name] = equal + same, total + expected.size


def verification_photos(data: str | Path | None) -> list[Pixels]:
    """Three photos: spread over a folder, or those that ship; fewer photos are repeated.

    Raises:
        DataError: if there is no photo, or one cannot be read.
    """
    found = find_images([SHIPPED if data is None else data])
    if not found:
        raise DataError(f"{data} has no photos; give a folder of photos, or leave --data out")
    return [read_image(found[index * len(found) // 3]) for index in range(3)]


def compare(
    run: Run, bundle: Bundle, fit: InferenceConfig, heads: Sequence[str], photos: Sequence[Pixels], *, scored: bool
) -> Verified:
    """Run photos through a graph and through the model, at every size of ``SIZES``.

    Args:
        run: the graph.
        bundle: the model, in evaluation mode.
        fit: how it runs images.
        heads: to compare.
        photos: three.
        scored: whether the graph has scores.
    """
    found = Differences()
    tasks = {head: bundle.tasks[head] for head in heads}
    for index, (batch, height, width) in enumerate(SIZES):
        chosen = photos if batch > 1 else [photos[index % len(photos)]]
        images = [_resized(photo, (height, width)) for photo in chosen]
        outputs = run(np.stack(images))
        for number, expected in enumerate(predict_batch(bundle.model, tasks, images, fit)):
            for head, task in tasks.items():
                actual = outputs[head][number]
                target = decode(task, expected[head]).cpu().numpy()
                if not isinstance(task, Segmentation):
                    found.add_values(head, actual, target)
                    continue
                found.add_labels(head, actual, target)
                unsure = np.asarray(mean_entropy(expected[head]))
                found.add_values(f"{head}.entropy", outputs[f"{head}.entropy"][number], unsure, span=1.0)
                if scored:
                    name = f"{head}.scores"
                    found.add_values(name, outputs[name][number], scores(expected[head]).cpu().numpy(), span=1.0)
    return Verified(
        sizes=SIZES,
        largest_difference=found.largest,
        mean_difference={name: total / count for name, (total, count) in found.summed.items()},
        labels_equal={name: equal / total for name, (equal, total) in found.equal.items()},
    )


def check(verified: Verified, *, tolerance: float = TOLERANCE, least_equal: float = LEAST_EQUAL) -> None:
    """Refuse a file that differs from its model.

    Raises:
        EngineError: saying by how much.
    """
    wrong = [
        f"{name} differs by {value:.1e} of its range, {tolerance:.0e} is accepted"
        for name, value in verified.largest_difference.items()
        if not value <= tolerance
    ]
    wrong += [
        f"labels of {name} are equal on {share:.3%} of the pixels, {least_equal:.1%} is needed"
        for name, share in verified.labels_equal.items()
        if not share >= least_equal
    ]
    if wrong:
        raise EngineError(
            f"the exported graph does not reproduce the model: {'; '.join(wrong)}; nothing was written; report the "
            "model's config"
        )


def _resized(photo: Pixels, size: Size) -> Pixels:
    """A photo at another size; its aspect does not matter here."""
    resized = fit_image(photo, size).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
