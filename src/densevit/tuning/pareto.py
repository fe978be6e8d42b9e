"""A metric against cost: points, budgets, the Pareto front, and the best point within a budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from densevit.errors import ConfigError
from densevit.evaluation.figure import Figure, read_amount
from densevit.inference.speed import SpeedConfig

BudgetKind = Literal["time", "memory", "loss"]
UNITS: dict[str, tuple[BudgetKind, float]] = {
    "ms": ("time", 1.0),
    "s": ("time", 1000.0),
    "mb": ("memory", 1.0),
    "gb": ("memory", 1000.0),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One setting, measured.

    Attributes:
        photos: how many it was measured on; fewer than asked for where it was given up early.
        value: of the figure.
        loss: against the model as it is on the same photos, see ``Figure.loss``.
        milliseconds: median per photo, from pixels to the prediction at the photo's size.
        peak_mb: highest memory of the process (of the device on CUDA) during one prediction; None if not measured.
        complete: whether it was measured on all photos.
    """

    speed: SpeedConfig
    photos: int
    value: float
    loss: float
    milliseconds: float
    peak_mb: float | None
    complete: bool

    @property
    def name(self) -> str:
        """The switches in a few words."""
        return describe(self.speed)


@dataclass(frozen=True, slots=True)
class Budget:
    """What may not be exceeded: milliseconds, megabytes, or loss of the figure."""

    kind: BudgetKind
    amount: float
    text: str

    @classmethod
    def parse(cls, text: str, figure: Figure) -> "Budget":
        """From "20 ms", "1.5 s", "800 MB", "2 GB" or "0.5 mIoU".

        Raises:
            ConfigError: for anything else.
        """
        amount, unit = read_amount(text) or (0.0, "")
        if unit.lower() in UNITS:
            kind, factor = UNITS[unit.lower()]
            return cls(kind, amount * factor, text.strip())
        if unit.lower() == figure.name.lower():
            return cls("loss", figure.check(amount, f"budget {text!r}"), text.strip())
        raise ConfigError(
            f"budget {text!r} is not understood; it is a number and ms, s, MB, GB, or {figure.name} for what may be "
            f'lost of it; write for example "20 ms" or "{figure.point / 2:g} {figure.name}"'
        )

    def spent(self, point: Point) -> float | None:
        """What a point takes of it; None if that was not measured."""
        return {"time": point.milliseconds, "memory": point.peak_mb, "loss": point.loss}[self.kind]

    def show(self, amount: float, figure: Figure) -> str:
        """An amount with its unit."""
        if self.kind == "loss":
            return f"{figure.show(amount)} {figure.name}"
        return f"{amount:.0f} {'ms' if self.kind == 'time' else 'MB'}"


def describe(speed: SpeedConfig) -> str:
    """A setting in a few words."""
    parts = []
    if speed.short_side is not None:
        parts.append(f"{speed.short_side} px")
    if speed.quality is not None:
        parts.append(speed.quality)
    if speed.patch_size is not None:
        parts.append(f"patch {speed.patch_size}")
    if speed.merging is not None:
        changed = speed.merging.model_dump(mode="json", exclude_defaults=True)
        share = f" {speed.merging.share:g}" if hasattr(speed.merging, "share") else ""
        options = "".join(f" {key}={value}" for key, value in changed.items() if key not in ("kind", "share"))
        parts.append(f"{speed.merging.kind}{share}{options}")
    if speed.exit_block is not None:
        parts.append(f"exit {speed.exit_block}")
    return ", ".join(parts) or "as it is"


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The complete points than which none is both faster and better, from fast to slow."""
    front: list[Point] = []
    for point in sorted((p for p in points if p.complete), key=lambda p: (p.milliseconds, p.loss)):
        if not front or point.loss < front[-1].loss:
            front.append(point)
    return front


def choose(points: Sequence[Point], budget: Budget, figure: Figure) -> Point:
    """The best complete point within the budget: of the figure, or the fastest where the figure is the budget.

    Raises:
        ConfigError: if none is, naming the nearest.
    """
    spent = [(amount, p) for p in points if p.complete and (amount := budget.spent(p)) is not None]
    fitting = [p for amount, p in spent if amount <= budget.amount]
    if fitting:
        by_time = budget.kind == "loss"
        return min(fitting, key=lambda p: (p.milliseconds, p.loss) if by_time else (p.loss, p.milliseconds))
    if not spent:
        raise ConfigError(f"no setting was measured for a budget of {budget.text}; let the measurement end")
    nearest, point = min(spent, key=lambda pair: pair[0])
    raise ConfigError(
        f"no setting keeps to {budget.text}; the nearest is {point.name!r} with {budget.show(nearest, figure)} at "
        f"{figure.name} {point.value:.4f}; raise --budget, or widen the grid with --grid"
    )
