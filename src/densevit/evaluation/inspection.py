"""What a report shows of an evaluation besides its metrics: confusion, predicted against true depth, some images.

Everything is a sum or a list of bounded length, so it does not grow with the data set, and the records of several
processes can be merged.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from densevit.evaluation.panels import compare
from densevit.io import encode_jpeg
from densevit.tasks import Metrics, Task
from densevit_runtime.colour import Picture


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of an evaluation.

    Attributes:
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
        fixed: the images that are shown at every evaluation, by index.
        worst: the images with the worst values, the worst first.
        counts: a confusion matrix, or pixels by true and predicted depth; None for other tasks.
    """

    task: Task
    fixed: list[ImageRecord] = field(default_factory=list)
    worst: list[ImageRecord] = field(default_factory=list)
    counts: Tensor | None = None

    def add_counts(self, counts: Tensor | None) -> None:
        """Add the counts of other pixels; None for a task without counts."""
        if counts is not None:
            self.counts = counts.clone() if self.counts is None else self.counts + counts


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
        image: Picture,
        target: Tensor,
        prediction: Tensor,
        metrics: Metrics,
    ) -> None:
        """Record one image.

        Args:
            head: its name.
            place: the image's index, how many images there are, and its name.
            image: uint8 (H, W, 3), for display.
            target: as the task reads it.
            prediction: as the task decodes it.
            metrics: of this image.
        """
        record = self.heads[head]
        record.add_counts(record.task.joint_counts(metrics, target, prediction))
        if not self.pictures:
            return
        index, total, name = place
        metric, higher = record.task.image_headline
        summary = ImageRecord(index, name, float(metrics.compute()[metric]), jpeg=b"")
        is_fixed = index in fixed_indices(total, self.pictures)
        is_bad = summary in _worst([*record.worst, summary], higher, self.pictures)
        if not (is_fixed or is_bad):
            return  # only images that are kept are encoded
        shown = encode_jpeg(compare(record.task, image, target, prediction), quality=85)
        summary = replace(summary, jpeg=shown)
        if is_fixed:
            record.fixed.append(summary)
        record.worst = _worst([*record.worst, summary], higher, self.pictures)

    def merge(self, other: "EvaluationRecorder") -> None:
        """Add what another process has recorded of the same evaluation."""
        for head, theirs in other.heads.items():
            mine = self.heads.setdefault(head, HeadRecord(theirs.task))
            mine.fixed = sorted([*mine.fixed, *theirs.fixed], key=lambda image: image.index)
            mine.worst = _worst([*mine.worst, *theirs.worst], mine.task.image_headline[1], self.pictures)
            mine.add_counts(theirs.counts)

    def details(self, head: str) -> dict[str, Any]:
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
    """The worst images whose value is known, the worst first.

    Of two equal values the earlier image comes first, so that the order of evaluation does not matter.
    """
    known = (image for image in images if not math.isnan(image.value))
    return sorted(known, key=lambda image: (image.value if higher else -image.value, image.index))[:length]
