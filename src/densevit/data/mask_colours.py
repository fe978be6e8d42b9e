"""What the colours in masks mean where nothing names their classes."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.mask_values import (
    ENDS,
    MOST_CLASSES,
    MOST_STRAY,
    PEAK,
    RARE,
    SHARPNESS,
    SKIRT_SHARE,
    Histogram,
    MaskValues,
    summed,
)
from densevit.data.sample import Rgb

_COLOUR_RADIUS, _MOST_COLOURS, _STRAY_PIXELS = 40, 4096, 8
"""How far stray colours are from theirs in a channel; how many are looked at; colours of fewer pixels are stray."""

_NAMES: dict[int, str] = {
    0x000000: "black", 0xFFFFFF: "white", 0xFF0000: "red", 0x00FF00: "green", 0x0000FF: "blue", 0xFFFF00: "yellow",
    0x00FFFF: "cyan", 0xFF00FF: "magenta", 0x808080: "grey", 0x800000: "maroon", 0x008000: "dark green",
    0x000080: "navy", 0x808000: "olive", 0x800080: "purple", 0x008080: "teal", 0xFFA500: "orange", 0xC0C0C0: "silver",
}  # fmt: skip


def judge_colours(masks: Sequence[Histogram]) -> MaskValues:
    """Tell the colours of classes from those of blurred edges; without classes where there are too many.

    Args:
        masks: a histogram of each mask that was read, of 0xRRGGBB.
    """
    values, counts = summed(masks)
    chosen = _colour_centres(values, counts)
    if chosen is None:
        return MaskValues(f"{len(values):,} colours", problem=f"the masks hold {len(values):,} colours")
    stray = 1 - counts[np.isin(values, chosen)].sum() / counts.sum()
    chosen = np.unique(_snapped(chosen)) if len(chosen) < len(values) else chosen
    held = ", ".join(colour_name(int(value)) for value in chosen[:8]) + (" ..." if len(chosen) > 8 else "")
    if len(chosen) < 2:
        return MaskValues(held, problem=f"the masks that were read hold only {held}")
    names = tuple(colour_name(int(value)) for value in chosen)
    keys: dict[str, Any] = {"classes": names, "palette": tuple(as_rgb(int(value)) for value in chosen)}
    text = f"masks have {len(chosen)} colours ({held}), taken for one class each and named after them"
    if len(chosen) < len(values):
        keys["unknown_colours"] = "nearest"
        text += f"; {len(values) - len(chosen):,} stray colours, in {stray:.1%} of the pixels, become the nearest"
        text += " (unknown_colours: refuse to stop at them, ignore to leave them out)"
    return MaskValues(held, keys, f"{text}; set classes to name them in this order")


def _colour_centres(values: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The colours of classes, in order, without stray ones near to them or rare; None where there are too many."""
    order = np.argsort(-counts, kind="stable")[:_MOST_COLOURS]
    left, total = counts[order].astype(np.float64), counts.sum()
    channels = np.stack([values[order] >> 16, values[order] >> 8 & 255, values[order] & 255], axis=-1)
    exact = len(values) <= MOST_CLASSES
    centres: list[int] = []
    found: list[tuple[NDArray[np.int64], float]] = []
    covered = 0.0
    while left.any():
        place = int(left.argmax())
        distance = np.abs(channels - channels[place]).max(axis=-1)
        peak, around = left[distance <= 2 * PEAK].sum(), left[distance <= _COLOUR_RADIUS].sum()
        if exact:  # a few colours are classes, except for those of some pixels
            if left[place] < max(_STRAY_PIXELS, RARE / 100 * total):
                break
            left[place] = 0
        elif around < RARE * total:
            break
        elif around < SKIRT_SHARE * _mixed(channels[place], found):
            left[distance <= _COLOUR_RADIUS] = 0
            continue
        elif peak < SHARPNESS * around:
            return None
        else:
            left[distance <= _COLOUR_RADIUS] = 0
        covered += around
        found.append((channels[place], float(around)))
        centres.append(int(values[order[place]]))
        if len(centres) > MOST_CLASSES:
            return None
    if not exact and covered < (1 - 1.5 * MOST_STRAY) * total:
        return None
    return np.sort(np.array(centres or [int(values[order[0]])], np.int64))


def _mixed(colour: NDArray[np.int64], found: Sequence[tuple[NDArray[np.int64], float]]) -> float:
    """The pixels of the rarer of two classes that a colour is between, as in blurred edges; 0 if it is not."""
    most = 0.0
    for (one, pixels), (other, others) in itertools.combinations(found, 2):
        step = other - one
        share = np.clip(((colour - one) @ step) / (step @ step), 0, 1)
        if np.abs(one + share * step - colour).max() <= _COLOUR_RADIUS:
            most = max(most, min(pixels, others))
    return most


def _snapped(colours: NDArray[np.int64]) -> NDArray[np.int64]:
    """Colours whose channels are at 0 or 255 where compression moved them a little."""
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
    channels = np.where(channels <= ENDS, 0, np.where(channels >= 255 - ENDS, 255, channels))
    return np.asarray(channels @ np.array([1 << 16, 1 << 8, 1]))


def as_rgb(colour: int) -> Rgb:
    """0xRRGGBB as red, green and blue."""
    return colour >> 16, colour >> 8 & 255, colour & 255


def colour_name(colour: int) -> str:
    """The name of a colour such as "red", otherwise #rrggbb."""
    return _NAMES.get(colour, f"#{colour:06x}")
