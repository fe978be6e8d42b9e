"""Learning-rate schedules as pure functions of the iteration."""

import math
from typing import Literal

from pydantic import Field

from densevit.config import Config


class ScheduleConfig(Config):
    """The learning rate over a run.

    Attributes:
        kind: "poly" is (1 - t / T) ** power, "cosine" half a period of a cosine.
        power: of poly; 0.9 in SETR and Segmenter.
        min_lr: the rate at the end of poly and cosine.
        warmup: iterations of linear rise from ``warmup_factor`` times the rate.
    """

    kind: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(default=0.9, gt=0, le=1e6)
    min_lr: float = Field(default=0.0, ge=0, le=1e6)
    warmup: int = Field(default=0, ge=0, le=10**12)
    warmup_factor: float = Field(default=1e-6, ge=0, le=1)

    def lr_at(self, iteration: int, *, base: float, iterations: int) -> float:
        """The rate of the step after ``iteration`` finished ones, for a base rate; ``min_lr`` is not scaled with it."""
        done = min(iteration / max(iterations, 1), 1.0)
        shares = {"poly": (1 - done) ** self.power, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}
        floor = 0.0 if self.kind == "constant" else min(self.min_lr, base)
        rate = (base - floor) * shares[self.kind] + floor
        if iteration < self.warmup:
            rate *= self.warmup_factor + (1 - self.warmup_factor) * iteration / self.warmup
        return rate
