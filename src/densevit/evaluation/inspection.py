"""What a report shows of an evaluation besides its metrics: confusion, predicted against true depth, some images.

Everything is a sum or a list of bounded length, so it does not grow with the data set, and the records of several
processes can be merged.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from densevit.evaluation.panels import compare
from densevit.io import encode_jpeg
from densevit.tasks import Metrics, Task


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of an evaluation.

    Attributes:
        index: in its data set.
        name: of the sample.
        value: of the metric that images are ranked by; NaN if nothing was measured.
        jpeg: the ``PANELS`` side by side; small, as it is sent between processes.
    """

    index: int
    name: str
    value: float
    jpeg: bytes


@dataclass
class HeadRecord:
    """What is recorded of one head.

    Attributes:
        task: of the head.
        fixed: the images that are shown at every evaluation, by index.
        worst: the images with the worst values, the worst first.
        counts: a confusion matrix, or pixels by true and predicted depth; None for other tasks.
    """

    task: Task
    fixed: list[ImageRecord] = field(default_factory=list)
    worst: list[ImageRecord] = field(default_factory=list)
    counts: Tensor | None = None


class EvaluationRecorder:
    """Records what the images of an evaluation look like.

    Args:
        pictures: number of fixed images that are kept per head, and of the worst ones; 0 keeps none.
    """

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.heads: dict[str, HeadRecord] = {}

    def begin(self, tasks: dict[str, Task]) -> None:
        """Start an evaluation of these heads, and drop what was recorded of them before."""
        self.heads |= {head: HeadRecord(task) for head, task in tasks.items()}

    def see(
        self,
        head: str,
        place: tuple[int, int, str],
        photo: NDArray[Any],
        target: Tensor,
        prediction: Tensor,
        metrics: Metrics,
    ) -> None:
        """Record one image.

        Args:
            head: its name.
            place: the image's index, how many images there are, and its name.
            photo: (H, W, C).
            target: as the task reads it.
            prediction: as the task decodes it.
            metrics: of this image.
        """
        record = self.heads[head]
        counts = record.task.joint_counts(metrics, target, prediction)
        if counts is not None:
            record.counts = counts.clone() if record.counts is None else record.counts + counts
        if not self.pictures:
            return
        index, total, name = place
        metric, higher = record.task.image_headline
        value = float(metrics.compute()[metric])
        fixed = index in fixed_indices(total, self.pictures)
        limit = _badness(record.worst[-1], higher) if len(record.worst) == self.pictures else (-math.inf, 0)
        bad = not math.isnan(value) and _rank(value, index, higher) > limit
        if fixed or bad:
            picture = encode_jpeg(compare(record.task, photo, target, prediction), quality=85)
            image = ImageRecord(index, name, value, picture)
            if fixed:
                record.fixed.append(image)
            if bad:
                record.worst = _worst([*record.worst, image], higher, self.pictures)

    def merge(self, other: "EvaluationRecorder") -> None:
        """Add what another process has recorded of the same evaluation."""
        for head, theirs in other.heads.items():
            mine = self.heads.setdefault(head, HeadRecord(theirs.task))
            mine.fixed = sorted([*mine.fixed, *theirs.fixed], key=lambda image: image.index)
            mine.worst = _worst([*mine.worst, *theirs.worst], mine.task.image_headline[1], self.pictures)
            if theirs.counts is not None:
                mine.counts = theirs.counts.clone() if mine.counts is None else mine.counts + theirs.counts

    def facts(self, head: str) -> dict[str, Any]:
        """Everything recorded of a head except images, as plain data for a report."""
        record = self.heads[head]
        metric, higher = record.task.image_headline
        return {
            "task": record.task.kind,
            "headline": record.task.headline[0],
            "ranked_by": metric,
            "higher_is_better": higher,
            **record.task.report_details(record.counts),
        }


def fixed_indices(total: int, wanted: int) -> set[int]:
    """The indices of ``wanted`` images, evenly spaced in a data set; all if there are fewer."""
    return {(2 * k + 1) * total // (2 * wanted) for k in range(wanted)} if total > wanted else set(range(total))


def _worst(images: Iterable[ImageRecord], higher: bool, length: int) -> list[ImageRecord]:
    return sorted(images, key=lambda image: _badness(image, higher), reverse=True)[:length]


def _badness(image: ImageRecord, higher: bool) -> tuple[float, int]:
    return _rank(image.value, image.index, higher)


def _rank(value: float, index: int, higher: bool) -> tuple[float, int]:
    """Larger is worse; of two equal values the earlier image, so that the order of evaluation does not matter."""
    return (-value if higher else value), -index
