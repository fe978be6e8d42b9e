"""The published programs' rules for the size at which a photo is run. Pure functions on (height, width)."""

import math
from typing import Literal

from densevit.types import Size

Method = Literal["minimal", "lower_bound", "upper_bound"]


def keep_ratio(size: Size, bounds: tuple[float, float]) -> Size:
    """The largest size of the same aspect within bounds on the long and the short side (mmcv), in any order."""
    factor = min(max(bounds) / max(size), min(bounds) / min(size))
    return _rounded(size, factor)


def scaled_bounds(base: Size, scale: float) -> tuple[int, int]:
    """The resize bounds of a multi-scale pass, cut to whole pixels."""
    return int(base[0] * scale), int(base[1] * scale)


def photo_scaled(size: Size, scale: float) -> Size:
    """A multi-scale pass relative to the photo (mmsegmentation from 1.0 on)."""
    return _rounded(size, scale)


def setr_multi_scale(size: Size, bounds: tuple[int, int], window: int) -> Size:
    """Like ``keep_ratio``, but the short side never falls below the window and the long side is free (SETR)."""
    short = max(min(bounds), window)
    h, w = size
    target = (short * h / w, short) if h > w else (short, short * w / h)
    return keep_ratio(size, target)


def cover_window(size: Size, window: int) -> Size:
    """At least a window in both directions, keeping the aspect (Segmenter)."""
    h, w = size
    if min(h, w) >= window:
        return size
    return (window, int(w / h * window)) if h < w else (int(h / w * window), window)


def net_size(size: Size, target: Size, multiple: int, method: Method) -> Size:
    """Both sides scaled by one factor and rounded to a multiple (DPT, MiDaS, Depth Anything).

    Args:
        size: of the photo.
        target: the size that the factor aims at.
        multiple: of which both sides become.
        method: "minimal" takes the factor nearer to 1; "lower_bound" the larger one, so both sides reach the target;
            "upper_bound" the smaller one, so none exceeds it.
    """
    factors = [wanted / length for wanted, length in zip(target, size, strict=True)]
    if method == "minimal":
        # Equal distances go to the height, as there.
        factor = factors[1] if abs(1 - factors[1]) < abs(1 - factors[0]) else factors[0]
    else:
        factor = max(factors) if method == "lower_bound" else min(factors)
    sides = []
    for length, wanted in zip(size, target, strict=True):
        exact = factor * length / multiple
        side = round(exact) * multiple  # half to even
        if method == "lower_bound" and side < wanted:
            side = math.ceil(exact) * multiple
        if method == "upper_bound" and side > wanted:
            side = math.floor(exact) * multiple
        sides.append(max(side, multiple))
    return sides[0], sides[1]


def stretched(target: Size, multiple: int) -> Size:
    """The target itself, rounded to a multiple: the aspect is not kept (transformers' default for DPT)."""
    return max(round(target[0] / multiple), 1) * multiple, max(round(target[1] / multiple), 1) * multiple


def _rounded(size: Size, factor: float) -> Size:
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)
