"""Medians, and the ratio of two medians with a bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times faster (smaller) one side is.

    Attributes:
        value: median of the other side over the median of ours; above 1 we are ahead.
        low: lower end of the bootstrap interval of 95 %; equal to ``value`` for a single pair.
        high: its upper end.
        pairs: number of pairs of samples.
    """

    value: float
    low: float
    high: float
    pairs: int


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float], *, seed: int = 0) -> Ratio:
    """The ratio of medians of interleaved samples.

    Sample i of both sides was taken at nearly the same time, so the bootstrap draws pairs: what a neighbour on the
    machine did to both of them cancels.

    Args:
        theirs: positive samples of the other side.
        ours: as many of our side, taken in turns with them.
        seed: of the resampling.

    Raises:
        ValueError: if there are none, or not as many of both.
    """
    a, b = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    if a.size == 0 or a.shape != b.shape:
        raise ValueError(f"{a.size} samples against {b.size}; pairs are needed")
    value = float(np.median(a) / np.median(b))
    draws = np.random.default_rng(seed).integers(0, a.size, size=(RESAMPLES, a.size))
    ratios = np.median(a[draws], axis=1) / np.median(b[draws], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(value, float(low), float(high), int(a.size))
