"""What int8 may cost: ``"0.5 mIoU"`` of a metric where there are targets, ``"1 labels"`` of agreement where not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densevit.errors import ConfigError
from densevit.tasks import Task

LABELS, VALUES = "labels", "values"
"""Per cent of labels that differ from the float32 model's; per cent that values differ by, on average."""

DEFAULTS = {"mIoU": 0.5, "delta1": 0.005, LABELS: 1.0, VALUES: 1.0}

PLAIN_FRACTIONS = ("delta1", "delta2", "delta3")
"""Metrics that are fractions and are given so; others that are better when higher are given in points."""


@dataclass(frozen=True)
class MaxLoss:
    """The largest accepted loss by figure: points of mIoU, delta1 as a fraction, per cent of labels and values.

    Attributes:
        amounts: by figure.
    """

    amounts: Mapping[str, float]

    @classmethod
    def parse(cls, texts: Sequence[str], tasks: Mapping[str, Task]) -> "MaxLoss":
        """From "0.5 mIoU" and the like, each for another figure; those that are not named have ``DEFAULTS``.

        Raises:
            ConfigError: if one is not understood, is of a figure that no head has, or is named twice.
        """
        figures = {LABELS, VALUES} | {task.headline[0] for task in tasks.values()}
        by_name = {figure.lower(): figure for figure in figures}
        given: dict[str, float] = {}
        for text in texts:
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]\w*)\s*", text)
            figure = by_name.get(match[2].lower()) if match else None
            if match is None or figure is None:
                raise ConfigError(
                    f"--max-loss {text!r} is not understood; it is a number and one of {', '.join(sorted(figures))}; "
                    'write for example "0.5 mIoU"'
                )
            if figure in given:
                raise ConfigError(f"--max-loss names {figure} twice; once is accepted")
            amount = float(match[1])
            if figure in PLAIN_FRACTIONS and amount > 0.1:
                raise ConfigError(
                    f"--max-loss {text!r} would accept nearly anything: {figure} is a fraction of at most 1; up to 0.1 "
                    f'is accepted; half a point is "0.005 {figure}"'
                )
            given[figure] = amount
        return cls(DEFAULTS | given)

    def shares(self, tasks: Mapping[str, Task], lost: Mapping[str, float]) -> dict[str, float]:
        """Lost agreement of heads, as shares of what is accepted where there are no targets."""
        figures = {head: VALUES if tasks[head].class_table is None else LABELS for head in lost}
        return {head: 100 * value / max(self.amounts[figures[head]], 1e-6) for head, value in lost.items()}

    def of(self, result: "HeadResult") -> float | None:
        """The accepted loss of a head's metric; None if it has no target, or its metric has no bound."""
        return None if result.metric is None else self.amounts.get(result.metric)

    def excess(self, result: "HeadResult") -> str:
        """Why a head is refused; empty if it is not."""
        allowed = self.of(result)
        if allowed is None:
            figure, lost = result.agreement_figure, 100 * (1 - result.agreement)
            accepted = self.amounts[figure]
            problem = (
                f"{lost:.2f} % of its {figure} differ" if figure == LABELS else f"its values differ by {lost:.2f} %"
            )
            return "" if lost <= accepted else f"head {result.head!r}: {problem}, {accepted:g} % are accepted"
        if result.loss <= allowed:  # false for NaN
            return ""
        return f"head {result.head!r} loses {result.loss:.3g} {result.metric}, {allowed:g} is accepted"


@dataclass(frozen=True)
class HeadResult:
    """A head in float32 and in int8 on the same photos.

    Attributes:
        head: its name.
        photos: their number.
        agreement: share of equal labels; for values 1 minus the mean difference over the mean value.
        agreement_figure: LABELS or VALUES.
        metric: name of the task's metric; None without targets.
        higher_is_better: of the metric.
        before, after: the metric in float32 and in int8.
    """

    head: str
    photos: int
    agreement: float
    agreement_figure: str
    metric: str | None = None
    higher_is_better: bool = True
    before: float = 0.0
    after: float = 0.0

    @property
    def loss(self) -> float:
        """What the metric lost, in the unit of ``MaxLoss``; NaN if it was not measured."""
        lost = self.before - self.after if self.higher_is_better else self.after - self.before
        in_points = self.higher_is_better and self.metric not in PLAIN_FRACTIONS
        return lost * 100 if in_points else lost

    def record(self) -> dict[str, object]:
        """For the file's card."""
        metric = {} if self.metric is None else {self.metric: {"float32": self.before, "int8": self.after}}
        return {"photos": self.photos, "agreement": round(self.agreement, 6), **metric}
