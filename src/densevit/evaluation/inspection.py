"""What a report shows of an evaluation besides its figures: confusion, depth against depth, and some pictures.

Everything is a sum or a list of bounded length, so it does not grow with the data set, and the watches of several
processes that each saw a part of it can be merged.
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
        value: of the figure that images are ranked by; NaN if nothing was measured.
        jpeg: the ``PANELS`` side by side; small, as it travels between processes.
    """

    index: int
    name: str
    value: float
    jpeg: bytes


@dataclass
class HeadRecord:
    """What is kept of one head.

    Attributes:
        task: of the head.
        fixed: the images that are shown at every evaluation, by index.
        worst: those that came out worst, the worst first.
        counts: of the task's kind: a confusion matrix, or true against predicted depth; None for other tasks.
    """

    task: Task
    fixed: list[ImageRecord] = field(default_factory=list)
    worst: list[ImageRecord] = field(default_factory=list)
    counts: Tensor | None = None


class EvaluationRecorder:
    """Looks on while images are evaluated.

    Args:
        pictures: so many fixed photos per head are kept as pictures, and so many of the worst; 0 keeps none.
    """

    def __init__(self, pictures: int) -> None:
        self.pictures = pictures
        self.heads: dict[str, HeadRecord] = {}

    def begin(self, tasks: dict[str, Task]) -> None:
        """An evaluation of these heads begins; what was kept of an earlier one of theirs is dropped."""
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
        """Take what is wanted of one image.

        Args:
            head: its name.
            place: the image's index, how many images there are, and its name.
            photo: (H, W, C).
            target: as the task reads it.
            prediction: as the task decodes it.
            metrics: of this image alone.
        """
        kept = self.heads[head]
        counts = kept.task.joint_counts(metrics, target, prediction)
        if counts is not None:
            kept.counts = counts.clone() if kept.counts is None else kept.counts + counts
        if not self.pictures:
            return
        index, total, name = place
        figure, higher = kept.task.image_headline
        value = float(metrics.compute()[figure])
        fixed = index in fixed_indices(total, self.pictures)
        limit = _badness(kept.worst[-1], higher) if len(kept.worst) == self.pictures else (-math.inf, 0)
        bad = not math.isnan(value) and _rank(value, index, higher) > limit
        if fixed or bad:
            picture = encode_jpeg(compare(kept.task, photo, target, prediction), quality=85)
            seen = ImageRecord(index, name, value, picture)
            if fixed:
                kept.fixed.append(seen)
            if bad:
                kept.worst = _worst([*kept.worst, seen], higher, self.pictures)

    def merge(self, other: "EvaluationRecorder") -> None:
        """Add what another process has seen of the same evaluation."""
        for head, theirs in other.heads.items():
            mine = self.heads.setdefault(head, HeadRecord(theirs.task))
            mine.fixed = sorted([*mine.fixed, *theirs.fixed], key=lambda seen: seen.index)
            mine.worst = _worst([*mine.worst, *theirs.worst], mine.task.image_headline[1], self.pictures)
            if theirs.counts is not None:
                mine.counts = theirs.counts.clone() if mine.counts is None else mine.counts + theirs.counts

    def facts(self, head: str) -> dict[str, Any]:
        """What is known of a head besides pictures, as plain data for a report."""
        kept = self.heads[head]
        figure, higher = kept.task.image_headline
        return {
            "task": kept.task.kind,
            "headline": kept.task.headline[0],
            "ranked_by": figure,
            "higher_is_better": higher,
            **kept.task.report_facts(kept.counts),
        }


def fixed_indices(total: int, wanted: int) -> set[int]:
    """``wanted`` images spread over a data set, the same at every evaluation; all if there are fewer."""
    return {(2 * k + 1) * total // (2 * wanted) for k in range(wanted)} if total > wanted else set(range(total))


def _worst(seen: Iterable[ImageRecord], higher: bool, length: int) -> list[ImageRecord]:
    return sorted(seen, key=lambda one: _badness(one, higher), reverse=True)[:length]


def _badness(seen: ImageRecord, higher: bool) -> tuple[float, int]:
    return _rank(seen.value, seen.index, higher)


def _rank(value: float, index: int, higher: bool) -> tuple[float, int]:
    """Larger is worse; of two equal images the earlier one, so that the order in which they come is all the same."""
    return (-value if higher else value), -index
