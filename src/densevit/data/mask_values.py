"""What the numbers or colours in masks mean where nothing names their classes, judged from how often each occurs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Histogram = tuple[NDArray[np.int64], NDArray[np.int64]]
"""The values of a mask in order (numbers, or colours as 0xRRGGBB), and the pixels of each."""

MOST_CLASSES = 40
"""Numbers with gaps between them, or colours, beyond this are no plausible classes."""

_IGNORED = 255
_DENSE = 0.5
"""Numbers that fill at least this share of 0..maximum count classes; others stand for them."""

_RADIUS, PEAK = 12, 2
"""Stray values are up to so far from their class in a cluster; its own are within the second."""

SHARPNESS = 0.6
"""The share of a cluster that is at its peak; a photo of even greys has 0.2."""

ENDS = 4
"""Clusters so near 0 or 255 are at it; compression moves them a little."""

_SKIRT, SKIRT_SHARE = 40, 0.25
"""So near a class, values of less than that share of it are its stray values, not another class."""

RARE, MOST_STRAY = 0.002, 0.1
"""The smallest class among stray values, and the most of them, as shares of all pixels."""

_INSTANCES = 1000
"""Larger numbers are often class x 1000 + instance."""

_OBJECTS = 6
"""Fewer numbers without gaps are classes."""

_PER_MASK = 64
"""A mask of more numbers is a photo, a regression target or holds instances."""


@dataclass(frozen=True)
class MaskValues:
    """What masks hold, as keys of ``FolderConfig``.

    Attributes:
        keys: ``classes`` and what else reads them; empty if ``problem`` is set.
        held: the values in words, such as "0, 128, 255".
        found: a sentence on what they are taken for, with the keys that change it.
        problem: why they are no classes; "" if they are.
    """

    held: str
    keys: dict[str, Any] = field(default_factory=dict)
    found: str = ""
    problem: str = ""


def judge_values(masks: Sequence[Histogram], *, lossy: bool = False) -> MaskValues:
    """Tell class numbers 0..K-1, spread numbers such as 0, 128 and 255, and numbers that are no classes apart.

    Args:
        masks: a histogram of each mask that was read, of one channel.
        lossy: they are JPEG files, so that some of the values are noise.
    """
    values, counts = summed(masks)
    held = _listed(values)
    if (most := float(np.median([len(own) for own, _ in masks]))) > _PER_MASK:
        if (clustered := _clusters(values, counts, lossy)) is not None:
            return clustered
        return MaskValues(held, problem=f"a mask holds {most:.0f} numbers on average, up to {values[-1]}")
    if values.tolist() == [0, 255]:
        return _binary(held, (0, 255))
    named = values[values != _IGNORED]
    if not named.size or (len(values) == 1 and values[0] == 0):
        return MaskValues(held, problem=f"the masks that were read hold only {held}")
    if int(named[0]) < 0:
        return MaskValues(held, problem=f"the masks hold {held}")
    number = int(named[-1]) + 1
    if (tops := _object_counts(masks)) is not None:
        return MaskValues(held, problem=f"each mask counts its objects, up to {tops[0]} to {tops[1]},")
    if values.tolist() == [0, 1, _IGNORED] and not any({1, _IGNORED} <= {*own.tolist()} for own, _ in masks):
        return _two_forms(held, masks)
    if (clustered := _clusters(values, counts, lossy)) is not None:
        return clustered
    if named[0] == 0 and len(named) >= _DENSE * number and not _stepped(values):
        ignored = f"; {_IGNORED} is ignored" if _IGNORED in values else ""
        if number == 2:
            classes: tuple[str, ...] = ("background", "foreground")
            text = f"masks hold {held}, taken for background and foreground{ignored}; set classes to name them"
        else:
            classes = tuple(f"class {index}" for index in range(number))
            text = f"masks hold {held}, taken for {number} classes{ignored}; set classes to name them"
        return MaskValues(held, {"classes": classes}, text)
    even = len({*np.diff(values).tolist()}) == 1  # 0, 1000, 2000
    if len(values) > MOST_CLASSES or (named[-1] >= _INSTANCES and len(named) > 2 and not even):
        return MaskValues(held, problem=f"the masks hold {len(values)} numbers from {values[0]} to {values[-1]}")
    return _spread(held, values)


def summed(masks: Sequence[Histogram]) -> Histogram:
    """The histogram of all masks together."""
    values, places = np.unique(np.concatenate([own for own, _ in masks]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, places, np.concatenate([own for _, own in masks]))
    return values, counts


def _stepped(values: NDArray[np.int64]) -> bool:
    """Whether these are few numbers spread evenly over 0..255."""
    steps = np.diff(values)
    return bool(len(values) > 2 and values[-1] == _IGNORED and steps.max() - steps.min() <= 2)


def _object_counts(masks: Sequence[Histogram]) -> tuple[int, int] | None:
    """The fewest and most objects where each mask numbers its own from 1 on without gaps; None for classes."""
    named = [own[own != _IGNORED] for own, _ in masks]
    tops = [int(own[-1]) for own in named if own.size and own[-1] > 0]
    dense = all(own[0] in (0, 1) and own[-1] - own[0] == len(own) - 1 for own in named if own.size)
    return (min(tops), max(tops)) if dense and len({*tops}) >= 4 and max(tops) >= _OBJECTS else None


def _two_forms(held: str, masks: Sequence[Histogram]) -> MaskValues:
    """Some masks of 0 and 1, others of 0 and 255."""
    large = sum(_IGNORED in own for own, _ in masks)
    classes = ("background", "foreground", "foreground as 255")
    keys = {"classes": classes, "class_values": (0, 1, _IGNORED), "merge": {"foreground": classes[1:]}}
    text = f"{large} masks hold 255 and others 1, none both, so that they are taken for one class"
    return MaskValues(held, keys, f"{text} (set merge to change it)")


def _binary(held: str, values: tuple[int, ...]) -> MaskValues:
    text = f"masks hold {held}, taken for background and foreground; set classes to name them"
    return MaskValues(held, {"classes": ("background", "foreground"), "class_values": values}, text)


def _spread(held: str, values: NDArray[np.int64], stray: float = 0.0, others: int = 0) -> MaskValues:
    numbers = tuple(int(value) for value in values)
    shown = ", ".join(map(str, numbers[:8])) + (" ..." if len(numbers) > 8 else "")
    keys: dict[str, Any] = {
        "class_values": numbers,
        "classes": tuple(f"class {index}" for index in range(len(numbers))),
    }
    if len(numbers) == 2 and numbers[0] == 0:
        keys["classes"] = ("background", "foreground")
    text = f"masks hold {held}, taken for {len(numbers)} classes"
    if others:
        keys["stray_values"] = "nearest"
        text = (
            f"masks hold {shown} and stray values ({others} others, in {stray:.2%} of the pixels), which become the "
            f"nearest of {len(numbers)} classes (stray_values: refuse to stop at them)"
        )
    return MaskValues(
        shown if others else held, keys, f"{text} by class_values; set classes to name them in this order"
    )


def _clusters(values: NDArray[np.int64], counts: NDArray[np.int64], lossy: bool) -> MaskValues | None:
    """Grey values over the whole range with stray ones around and between them; None if it is something else."""
    total = counts.sum()
    if values[0] < 0 or values[-1] > 255 or values[-1] < 240 or values[0] > 15 or len(values) < 3:
        return None
    grey = np.zeros(256)
    grey[values] = counts / total
    left, sharp, skirts = grey.copy(), True, 0.0
    centres: list[int] = []
    while left.sum() > 0 and len(centres) < 17:
        centre = int(left.argmax())
        peak = _around(left, centre, PEAK)
        even = (left.sum() - peak) * (2 * PEAK + 1) / max(int((left > 0).sum()), 64)
        if peak < max(RARE, 4 * even):
            break
        near = [_around(grey, other, PEAK) for other in centres if abs(other - centre) <= _SKIRT]
        if near and peak < SKIRT_SHARE * max(near):  # ringing of a JPEG around a class
            skirts += peak
            left[max(centre - PEAK, 0) : centre + PEAK + 1] = 0
            continue
        sharp &= peak >= SHARPNESS * _around(left, centre, _RADIUS)
        centres.append(centre)
        left[max(centre - _RADIUS, 0) : centre + _RADIUS + 1] = 0
    chosen = np.sort(np.array(centres, np.int64))
    stray = 1 - grey[chosen].sum() if len(centres) else 1.0
    far = float(left.sum()) + skirts
    others = len(values) - len(chosen)
    if not sharp or not 2 <= len(chosen) <= 16 or chosen[-1] < 240 or far > 1.5 * MOST_STRAY or stray > 4 * MOST_STRAY:
        return None
    if others == 0 or (stray > MOST_STRAY and others < 8 and not lossy):
        return None
    small = np.isin(values, chosen, invert=True)
    if counts[small].max() > 0.02 * counts[~small].min() and others < 8 and not lossy:
        return None  # few numbers that are frequent are classes, such as 0, 1, 2 and 255
    ends = np.where(chosen <= ENDS, 0, np.where(chosen >= 255 - ENDS, 255, chosen))
    return _spread("", ends, float(stray), others)


def _around(grey: NDArray[np.float64], centre: int, radius: int) -> float:
    return float(grey[max(centre - radius, 0) : centre + radius + 1].sum())


def _listed(values: NDArray[np.int64]) -> str:
    """The numbers in words; the first and last where there are many."""
    if len(values) <= 12:
        return ", ".join(map(str, values.tolist()))
    if int(values[-1]) - int(values[0]) == len(values) - 1:
        return f"{values[0]} to {values[-1]}"
    return f"{len(values)} numbers from {values[0]} to {values[-1]}"
