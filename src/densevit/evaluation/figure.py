"""The figure that ranks models, and how a loss of it is written: ``"0.5 mIoU"`` in points, ``"0.005 delta1"``."""

import re
from dataclasses import dataclass

from densevit.errors import ConfigError

FRACTIONS = ("delta1", "delta2", "delta3")
"""Figures whose losses are fractions, as papers give them. Of others that are better when higher, they are points."""

LARGEST_FRACTION = 0.1
"""A larger loss of a fraction is refused: it was meant in points."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric that ranks models, and the unit of its losses: points, a fraction, or the metric's own unit.

    Attributes:
        name: as the task's metrics have it.
        higher_is_better: others, such as MAE, keep their unit.
    """

    name: str
    higher_is_better: bool

    @property
    def point(self) -> float:
        """A hundredth, in the unit of losses."""
        return 0.01 if self.name in FRACTIONS else 1.0

    def loss(self, value: float, reference: float) -> float:
        """How much worse than the reference; negative for better, NaN if one is."""
        return (reference - value) * 100 * self.point if self.higher_is_better else value - reference

    def after(self, loss: float, reference: float) -> float:
        """The value that is worse than a reference by a loss."""
        return reference - loss / (100 * self.point) if self.higher_is_better else reference + loss

    def show(self, loss: float, sign: str = "") -> str:
        """A loss as text; ``sign`` is "+" to show it in any case."""
        return f"{loss:{sign}.{4 if self.name in FRACTIONS else 2}f}"

    def check(self, loss: float, given: str) -> float:
        """A loss that may be accepted.

        Args:
            loss: in the unit of losses.
            given: the option and its value, for the message.

        Raises:
            ConfigError: if a fraction is given in points.
        """
        if self.name in FRACTIONS and loss > LARGEST_FRACTION:
            raise ConfigError(
                f"{given} would accept nearly anything: losses of {self.name} are fractions, of which up to "
                f'{LARGEST_FRACTION} is accepted; half a point is "0.005 {self.name}"'
            )
        return loss


def read_amount(text: str) -> tuple[float, str] | None:
    """A number and its unit, from "0.5 mIoU" or "20ms"; None for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]\w*)\s*", text)
    return None if match is None else (float(match[1]), match[2])
