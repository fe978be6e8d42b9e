"""Compare an int8 file with the float32 model on photos: metric, agreement and time."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.checkpoints.native import Bundle
from densevit.errors import OutputError
from densevit.evaluation.figure import Figure
from densevit.export.quantise_gate import LABELS, VALUES, HeadResult
from densevit.export.quantise_photos import Photos
from densevit.export.verify import Run
from densevit.inference.decode import decode
from densevit.inference.pipeline import predict_logits
from densevit.inference_config import InferenceConfig
from densevit.tasks import Metrics, Segmentation, Task

Progress = Callable[[str, int, int], None]
"""Called with (what is done, done, total)."""


@dataclass
class Sums:
    """Running sums of one head over photos."""

    task: Task
    equal: float = 0.0
    total: float = 0.0
    photos: int = 0
    targets: int = 0
    before: Metrics = field(init=False)
    after: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.before, self.after = self.task.new_metrics(), self.task.new_metrics()

    def add(self, expected: NDArray[Any], actual: NDArray[Any], target: Tensor | None) -> None:
        """Add a photo: what the model and the file predict for it."""
        equal, total = agreement(self.task, expected, actual)
        self.equal, self.total, self.photos = self.equal + equal, self.total + total, self.photos + 1
        if target is not None:
            self.targets += 1
            for metrics, prediction in ((self.before, expected), (self.after, actual)):
                # Labels of a file may be uint16, for which torch has few operators.
                wide = prediction.astype(np.int64 if isinstance(self.task, Segmentation) else np.float32)
                metrics.update(torch.from_numpy(wide)[None], target[None])

    def result(self, head: str) -> HeadResult:
        """The figures that the sums amount to."""
        metric = Figure(*self.task.headline)
        share = self.equal / self.total if self.total else 0.0
        figure = LABELS if isinstance(self.task, Segmentation) else VALUES
        if not self.targets:
            return HeadResult(head, self.photos, share, figure)
        before, after = (float(metrics.compute()[metric.name]) for metrics in (self.before, self.after))
        return HeadResult(head, self.photos, share, figure, metric, before, after)


def agreement(task: Task, expected: NDArray[Any], actual: NDArray[Any]) -> tuple[float, float]:
    """Sums whose quotient is the agreement: equal labels of all, or values less their differences over values."""
    if isinstance(task, Segmentation):
        return float((expected == actual).sum()), float(expected.size)
    difference = float(np.abs(actual.astype(np.float64) - expected).sum())
    size = float(np.abs(expected.astype(np.float64)).sum())
    return (size - difference, size) if np.isfinite(difference) and size > 0 else (0.0, 1.0)


@dataclass(frozen=True)
class Measured:
    """A file, measured.

    Attributes:
        results: of the heads.
        seconds: CPU time for a photo and all heads, the median.
    """

    results: tuple[HeadResult, ...]
    seconds: float


class Reference:
    """What the float32 model predicts for photos, kept in a temporary folder because photos may be large.

    Attributes:
        seconds: CPU time for a photo and all heads, the median.
    """

    def __init__(self, bundle: Bundle, fit: InferenceConfig, photos: Sequence[Photos]) -> None:
        self._bundle, self._fit, self._photos = bundle, fit, photos
        self._folder = tempfile.TemporaryDirectory(prefix="densevit-")
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def _groups(self) -> list[tuple[int, Photos, int]]:
        """Number of the group, the group, and number of the photo in it, of each photo to measure on."""
        return [(group, photos, number) for group, photos in enumerate(self._photos) for number in photos.measured]

    def _file(self, group: int, number: int, head: str) -> Path:
        return Path(self._folder.name) / f"{group}-{number}-{head}.npy"

    def predict(self, progress: Progress) -> None:
        """Run the model.

        Raises:
            OutputError: if there is no space for what it predicts.
        """
        groups, seconds = self._groups(), []
        for done, (group, photos, number) in enumerate(groups, start=1):
            tasks = {head: self._bundle.tasks[head] for head in photos.heads}
            image, _ = photos.read(number)
            began = time.process_time()
            with torch.inference_mode():
                logits = predict_logits(self._bundle.model, tasks, image, self._fit)
                found = {head: decode(task, logits[head]).cpu().numpy() for head, task in tasks.items()}
            seconds.append(time.process_time() - began)
            for head, prediction in found.items():
                self._keep(self._file(group, number, head), prediction)
            progress("float32", done, len(groups))
        self.seconds = _median(seconds)

    def _keep(self, path: Path, prediction: NDArray[Any]) -> None:
        try:
            np.save(path, prediction)
        except OSError as error:
            raise OutputError(
                f"predictions cannot be kept in {tempfile.gettempdir()} ({error.strerror or error}); free some space "
                "there, set TMPDIR, or measure fewer photos with --limit"
            ) from error

    def measure(self, run: Run, progress: Progress) -> Measured:
        """Compare an exported graph with the model.

        Args:
            run: photos (B, H, W, 3) -> the graph's outputs.
            progress: called after every photo.
        """
        groups, seconds = self._groups(), []
        sums = {head: Sums(self._bundle.tasks[head]) for photos in self._photos for head in photos.heads}
        for done, (group, photos, number) in enumerate(groups, start=1):
            image, targets = photos.read(number)
            began = time.process_time()
            outputs = run(image[None])
            seconds.append(time.process_time() - began)
            for head in photos.heads:
                expected = np.load(self._file(group, number, head))
                sums[head].add(expected, outputs[head][0], targets.get(head))
            progress("int8", done, len(groups))
        return Measured(tuple(one.result(head) for head, one in sums.items()), _median(seconds))


def _median(seconds: Sequence[float]) -> float:
    """The median without the first, which pays for what is done once."""
    return float(np.median(seconds[1:] or seconds))


def damage(
    tasks: Mapping[str, Task], expected: Sequence[Mapping[str, NDArray[Any]]], actual: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """How much of each head's agreement is lost, between 0 and 1.

    Args:
        tasks: of the heads.
        expected: outputs for some photos, (1, ...).
        actual: those of another graph for the same photos.
    """
    lost = {}
    for head, task in tasks.items():
        pairs = [agreement(task, a[head], b[head]) for a, b in zip(expected, actual, strict=True)]
        total = sum(pair[1] for pair in pairs)
        lost[head] = 1 - sum(pair[0] for pair in pairs) / total if total else 1.0
    return lost
