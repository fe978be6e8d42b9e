"""The colours in which classes are shown: their own where the data set has them."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import Rgb
from densevit.doctor.context import Context
from densevit.doctor.facts import MaskFacts
from densevit.tasks.palettes import default_palette, palette_for

_SHOWN = 24
"""Rows of the table of colours without a name."""

_SHADES = 16
"""Colours that agree up to this step look alike, as in palettes that repeat the number."""


@dataclass(frozen=True, slots=True)
class ColourShare:
    """A colour in masks whose classes have no names, or a number and its colour in palette masks.

    Attributes:
        number: the number that is stored, None in masks of three channels.
        colour: 0xRRGGBB.
        share: of the pixels of these masks.
        masks: number of masks that have it.
    """

    number: int | None
    colour: int
    share: float
    masks: int


def class_colours(context: Context) -> tuple[Rgb, ...]:
    """A colour for each class: of the class list, otherwise of the masks' palettes, otherwise chosen to differ."""
    if context.classes is None:
        return default_palette(16)
    names = context.classes.names
    if context.classes.palette:
        return context.classes.palette
    own = _of_masks(context)
    if own is None:
        return palette_for(names)
    return tuple(own.get(index, colour) for index, colour in enumerate(palette_for(names)))


def css(colour: Rgb) -> str:
    """A colour as #rrggbb."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def rgb(packed: NDArray[np.int64] | int) -> NDArray[np.uint8]:
    """0xRRGGBB (...) -> uint8 (..., 3)."""
    return (np.asarray(packed)[..., None] >> np.array([16, 8, 0]) & 255).astype(np.uint8)


def _of_masks(context: Context) -> dict[int, Rgb] | None:
    """Class -> its most frequent colour in palette masks; None where these are none, or hardly to be told apart."""
    counts: Counter[tuple[int, int]] = Counter()
    for mask, labels in context.indexed_masks():
        if mask.palette is not None:
            counts.update(zip(labels.tolist(), mask.palette.tolist(), strict=True))
    colours: dict[int, Rgb] = {}
    for (label, packed), _ in counts.most_common():
        red, green, blue = rgb(packed).tolist()
        if 0 <= label < (context.num_classes or 0) and label != context.ignore_index:
            colours.setdefault(label, (red, green, blue))
    shades = {tuple(part // _SHADES for part in colour) for colour in colours.values()}
    return colours if colours and len(shades) == len(colours) else None


def colour_shares(context: Context) -> list[ColourShare]:
    """What masks in colours or with a palette hold, most frequent first, where the classes are not known by it."""
    pixels: Counter[tuple[int | None, int]] = Counter()
    masks: Counter[tuple[int | None, int]] = Counter()
    total = 0
    for _, mask in context.of(MaskFacts):
        keys = _keys(mask, named=context.classes is not None)
        total += int(mask.counts.sum()) if keys else 0
        pixels.update(dict(zip(keys, mask.counts.tolist(), strict=False)))
        masks.update(keys)
    return [ColourShare(*key, count / total, masks[key]) for key, count in pixels.most_common(_SHOWN)]


def _keys(mask: MaskFacts, *, named: bool) -> list[tuple[int | None, int]]:
    if mask.read is not None:
        return []
    if mask.colours and not mask.is_lossy:
        return [(None, colour) for colour in mask.values.tolist()]
    if mask.palette is not None and not named:
        return list(zip(mask.values.tolist(), mask.palette.tolist(), strict=True))
    return []
