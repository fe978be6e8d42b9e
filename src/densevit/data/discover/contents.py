"""What a few of the files hold: photos, masks or depth, and the values of masks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.discover.groups import Group
from densevit.data.discover.roles import Role
from densevit.data.discover.tree import Tree
from densevit.data.mask_colours import as_rgb, judge_colours
from densevit.data.mask_files import is_grey
from densevit.data.mask_values import Histogram, MaskValues, judge_values
from densevit.data.sample import Rgb
from densevit.errors import DataError
from densevit.io.stored import Stored, read_numbers
from densevit_runtime.io.read import LOSSY_FORMATS

SAMPLES = 5
MASKS = 200
"""So many masks are read for their classes; all, if there are no more."""

_LOOKED_AT = 2_000
"""Rows and columns of a mask in which its objects are looked for."""

_MOST_NAMED, _FEWEST_NUMBERED = 6, 4
"""Masks of more numbers may number their objects; so many of them tell."""

_FEW, _COVERED = 32, 0.9
"""An image whose most frequent values, so many, cover that share of it is a mask."""


@dataclass(frozen=True)
class Held:
    """The values of a group of masks.

    Attributes:
        number: of masks that were read.
        values: of one channel, a histogram each.
        colours: of three channels, as 0xRRGGBB.
        lossy: they are JPEG files.
        palette: of the first palette image; empty without one.
        spread_out: numbers are stored as red, green and blue alike, which only ``class_values`` reads.
        by_colour: palette images whose palettes differ, so that their colours count.
        numbered: each mask numbers its objects by their places.
    """

    number: int
    values: tuple[Histogram, ...]
    colours: tuple[Histogram, ...]
    lossy: bool
    palette: tuple[Rgb, ...]
    spread_out: bool = False
    by_colour: bool = False
    numbered: bool = False

    def judge(self) -> MaskValues:
        """What the values mean."""
        if self.values and self.colours:
            return MaskValues("", problem=f"{len(self.values)} masks hold numbers and {len(self.colours)} hold colours")
        if not self.values and not self.colours:
            return MaskValues("nothing that can be read", problem="none of the masks can be read")
        if self.numbered:
            return MaskValues("", problem="the masks number their objects from the top down")
        judged = judge_values(self.values, lossy=self.lossy) if self.values else judge_colours(self.colours)
        if self.by_colour and judged.keys:
            judged.keys["mask_format"] = "colour"
        if self.spread_out and judged.keys:
            judged.keys.setdefault("class_values", tuple(range(len(judged.keys["classes"]))))
        if self.lossy and self.colours and judged.keys:
            judged.keys["unknown_colours"] = "nearest"
        return judged


def read_masks(tree: Tree, group: Group, number: int = MASKS) -> Held:
    """The values of some masks, evenly spread over the group; broken ones are left to those who need them."""
    values: list[Histogram] = []
    colours: list[Histogram] = []
    lossy = spread_out = False
    palettes: list[tuple[Histogram, NDArray[np.int64]]] = []
    numbered: list[bool] = []
    for file in group.sample(number):
        try:
            stored = read_numbers(tree.path(file))
        except DataError:
            continue
        lossy |= stored.format in LOSSY_FORMATS
        pixels = stored.pixels
        if pixels.ndim == 3 and pixels.shape[2] >= 3 and is_grey(pixels, lossy=stored.format in LOSSY_FORMATS):
            pixels, spread_out = pixels[..., 1], True
        if pixels.ndim == 3 and pixels.shape[2] >= 3:
            colours.append(_count(packed(pixels)))
        elif pixels.ndim == 2 or pixels.shape[2] <= 2:
            plain = pixels if pixels.ndim == 2 else pixels[..., 0]
            values.append(_count(plain))
            if stored.palette is not None:
                palettes.append((values[-1], packed(stored.palette[None])[0].astype(np.int64)))
            if len(numbered) < 4 * SAMPLES and len(values[-1][0]) > _MOST_NAMED:
                numbered.append(_numbers_objects(plain))
    if by_colour := len(palettes) == len(values) and _differ(palettes):
        colours, values = [*colours, *(_through(*one) for one in palettes)], []
    if colours and spread_out:  # masks of black only are grey by chance
        colours += [_as_colours(histogram) for histogram in values]
        values, spread_out = [], False
    palette = tuple(as_rgb(int(colour)) for colour in palettes[0][1]) if palettes else ()
    objects = len(numbered) >= _FEWEST_NUMBERED and all(numbered)
    found = (tuple(values), tuple(colours))
    return Held(len(values) + len(colours), *found, lossy, palette, spread_out, by_colour, objects)


def _differ(palettes: Sequence[tuple[Histogram, NDArray[np.int64]]]) -> bool:
    """Whether a number stands for another colour in another mask, as where each image was given its own palette."""
    known: dict[int, int] = {}
    for (values, _), palette in palettes:
        for value in values[values < len(palette)].tolist():
            if known.setdefault(value, int(palette[value])) != palette[value]:
                return True
    return False


def _through(numbers: Histogram, palette: NDArray[np.int64]) -> Histogram:
    """The colours of a palette image."""
    values, counts = numbers
    found, places = np.unique(palette[np.minimum(values, len(palette) - 1)], return_inverse=True)
    return found, np.bincount(places.reshape(-1), weights=counts).astype(np.int64)


def _numbers_objects(pixels: NDArray[Any]) -> bool:
    """Whether the numbers from 1 on are objects in the order of their first rows, some of them side by side.

    Layers, such as those of a retina, are in this order too, but never side by side.
    """
    pixels = pixels[:: pixels.shape[0] // _LOOKED_AT + 1, :: pixels.shape[1] // _LOOKED_AT + 1]
    rows, columns = np.nonzero(pixels)
    numbers = pixels[rows, columns]
    found, first = np.unique(numbers, return_index=True)
    if not found.size or found[0] != 1 or found[-1] != len(found) or np.any(np.diff(first) < 0):
        return False
    left, right = np.full(len(found) + 1, pixels.shape[1]), np.full(len(found) + 1, -1)
    np.minimum.at(left, numbers.astype(np.int64), columns)
    np.maximum.at(right, numbers.astype(np.int64), columns)
    return bool(np.any((right[1:-1] < left[2:]) | (right[2:] < left[1:-1])))


def _as_colours(grey: Histogram) -> Histogram:
    return grey[0] * 0x010101, grey[1]


def role_by_content(tree: Tree, group: Group) -> Role:
    """What most of a few files look like."""
    votes: Counter[Role] = Counter()
    for file in group.sample(SAMPLES):
        try:
            votes[_looks(read_numbers(tree.path(file)))] += 1
        except DataError:
            votes[""] += 1
    return votes.most_common(1)[0][0]


def _looks(stored: Stored) -> Role:
    """What one file looks like."""
    pixels = stored.pixels
    if pixels.dtype.kind == "f":
        return "depth" if pixels.ndim == 2 else "values"
    if stored.format in LOSSY_FORMATS and not _is_flat(pixels):
        return "images"
    if pixels.ndim == 2 and pixels.dtype.itemsize >= 2:
        few = len(np.unique(pixels)) <= 64
        return "masks" if few else "depth"
    return "masks" if _is_flat(pixels) else "images"


def _is_flat(pixels: NDArray[Any]) -> bool:
    """Whether few values or colours cover nearly the whole image, as they do in a mask but not in a photo."""
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if channels == 1 and pixels.dtype == np.bool_:
        return True
    if channels == 2:
        return False
    counts = np.sort(_count(pixels if channels == 1 else packed(pixels))[1])[::-1]
    size = pixels.shape[0] * pixels.shape[1]
    return bool(counts[:_FEW].sum() >= _COVERED * size and len(counts) <= max(size // 16, 4))


def packed(pixels: NDArray[Any]) -> NDArray[np.int32]:
    """Colours (H, W, 3) as 0xRRGGBB (H, W)."""
    red, green, blue = np.moveaxis(pixels[..., :3].astype(np.int32), -1, 0)
    return (red << 16) | (green << 8) | blue


def _count(values: NDArray[Any]) -> Histogram:
    flat = values.reshape(-1)
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))  # runs of equal values are few in masks
    found, places = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(places.reshape(-1), weights=np.diff(np.append(starts, flat.size)))
    return found.astype(np.int64), counts.astype(np.int64)
