"""What int8 may cost: ``"0.5 mIoU"`` of a metric where there are targets, ``"1 labels"`` of agreement where not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from densevit.errors import ConfigError
from densevit.evaluation.figure import Figure, read_amount
from densevit.tasks import Task

LABELS, VALUES = "labels", "values"
"""Per cent of labels that differ from the float32 model's; per cent that values differ by, on average."""

DEFAULTS = {"mIoU": 0.5, "delta1": 0.005, LABELS: 1.0, VALUES: 1.0}


@dataclass(frozen=True)
class MaxLoss:
    """The largest accepted loss by figure: of metrics in the unit of ``Figure.loss``, of labels and values in per cent.

    Attributes:
        amounts: by figure.
    """

    amounts: Mapping[str, float]

    @classmethod
    def parse(cls, texts: Sequence[str], tasks: Mapping[str, Task]) -> "MaxLoss":
        """Read texts such as "0.5 mIoU", each for another figure; figures that are not named have ``DEFAULTS``.

        Raises:
            ConfigError: if one is not understood, is of a figure that no head has, or is named twice.
        """
        metrics = [Figure(*task.headline) for task in tasks.values()]
        figures = {figure.name.lower(): figure for figure in (*metrics, Figure(LABELS, True), Figure(VALUES, True))}
        given: dict[str, float] = {}
        for text in texts:
            amount, unit = read_amount(text) or (0.0, "")
            figure = figures.get(unit.lower())
            if figure is None:
                accepted = ", ".join(sorted(one.name for one in figures.values()))
                raise ConfigError(
                    f"--max-loss {text!r} is not understood; it is a number and one of {accepted}; write for example "
                    '"0.5 mIoU"'
                )
            if figure.name in given:
                raise ConfigError(f"--max-loss names {figure.name} twice; once is accepted")
            given[figure.name] = figure.check(amount, f"--max-loss {text!r}")
        return cls(DEFAULTS | given)

    def shares(self, tasks: Mapping[str, Task], lost: Mapping[str, float]) -> dict[str, float]:
        """Lost agreement of heads, as shares of what is accepted where there are no targets."""
        figures = {head: VALUES if tasks[head].class_table is None else LABELS for head in lost}
        return {head: 100 * value / max(self.amounts[figures[head]], 1e-6) for head, value in lost.items()}

    def excess(self, result: "HeadResult") -> str:
        """Why a head is refused; empty if it is not."""
        metric = result.metric
        if metric is None or metric.name not in self.amounts:
            accepted, lost = self.amounts[result.agreement_figure], 100 * (1 - result.agreement)
            what = f"{lost:.2f} % of its labels differ"
            if result.agreement_figure == VALUES:
                what = f"its values differ by {lost:.2f} %"
            return "" if lost <= accepted else f"head {result.head!r}: {what}, {accepted:g} % are accepted"
        accepted = self.amounts[metric.name]
        if result.loss <= accepted:  # false for NaN
            return ""
        return f"head {result.head!r} loses {metric.show(result.loss)} {metric.name}, {accepted:g} is accepted"


@dataclass(frozen=True)
class HeadResult:
    """A head in float32 and in int8 on the same photos.

    Attributes:
        head: its name.
        photos: their number.
        agreement: share of equal labels; for values 1 minus the mean difference over the mean value.
        agreement_figure: LABELS or VALUES.
        metric: of the task; None without targets.
        before, after: the metric in float32 and in int8.
    """

    head: str
    photos: int
    agreement: float
    agreement_figure: str
    metric: Figure | None = None
    before: float = 0.0
    after: float = 0.0

    @property
    def loss(self) -> float:
        """What the metric lost, see ``Figure.loss``; 0 without targets."""
        return 0.0 if self.metric is None else self.metric.loss(self.after, self.before)

    def record(self) -> dict[str, object]:
        """What the file's card says about the head."""
        metric = {} if self.metric is None else {self.metric.name: {"float32": self.before, "int8": self.after}}
        return {"photos": self.photos, "agreement": round(self.agreement, 6), **metric}
