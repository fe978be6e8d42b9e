"""The ratio of two medians with a bootstrap interval."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


@dataclass(frozen=True)
class Ratio:
    """How many times the other program's median is larger than ours, with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def ratio_of_medians(theirs: Sequence[float], ours: Sequence[float], *, seed: int = 0) -> Ratio:
    """The ratio of medians of interleaved samples.

    Sample i of both was taken at nearly the same time, so the bootstrap draws pairs: other work on the machine that
    slows both down cancels.

    Args:
        theirs: positive samples of the other program.
        ours: as many samples of ours, taken in turns with them.
        seed: of the resampling.

    Raises:
        ValueError: if there are no samples, or the numbers differ.
    """
    a, b = np.asarray(theirs, dtype=np.float64), np.asarray(ours, dtype=np.float64)
    if a.size == 0 or a.shape != b.shape:
        raise ValueError(f"{a.size} samples against {b.size}; pairs are needed")
    draws = np.random.default_rng(seed).integers(0, a.size, size=(RESAMPLES, a.size))
    ratios = np.median(a[draws], axis=1) / np.median(b[draws], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(np.median(a) / np.median(b)), float(low), float(high))
