"""Thumbnails of samples for the page: photo, mask over photo, depth. Files that cannot be shown are left out."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Context
from densevit.doctor.facts import MaskFacts, PhotoFacts, SampleFacts, ShapeFacts
from densevit.doctor.palettes import class_colours, css
from densevit.errors import DataError, DensevitError
from densevit.io.stored import data_uri, read_numbers, read_stored_photo, resize_nearest, shrink, turn_upright
from densevit.types import Size
from densevit_runtime.colour import colourise_depth, overlay

SIDE = 280
"""Longer side of a thumbnail, in pixels."""

Picture = tuple[str, str]
"""Caption and data URI."""


def pictures(sample: SampleFacts, context: Context) -> list[Picture]:
    """The photo of a sample and its targets as training would see them."""
    shown: list[Picture] = []
    photo: NDArray[np.uint8] | None = None
    if isinstance(sample.photo, PhotoFacts):
        try:
            _, photo = read_stored_photo(Path(sample.photo.path))
        except DataError:
            return []
        photo = shrink(photo, _fit(photo.shape[:2]))
        shown.append((Path(sample.photo.path).name, data_uri(photo)))
    for target, draw in ((sample.masks, _mask), (sample.depth, _depth)):
        if target is not None:
            with suppress(DensevitError, ValueError):  # unreadable files are findings already
                shown.append((Path(target.path).name, data_uri(draw(sample, photo, context), kind="PNG")))
    return shown


def _depth(sample: SampleFacts, photo: NDArray[np.uint8] | None, context: Context) -> NDArray[np.uint8]:
    assert sample.depth is not None
    small, _ = _small(Path(sample.depth.path))
    if small.ndim == 3 and small.shape[2] >= 3:  # a picture, which is a finding
        return np.ascontiguousarray(small[..., :3].astype(np.uint8))
    return colourise_depth(small if small.ndim == 2 else small[..., 0])


def _mask(sample: SampleFacts, photo: NDArray[np.uint8] | None, context: Context) -> NDArray[np.uint8]:
    """The mask as training reads it, else as it is stored."""
    labels = labels_of(sample, context)
    if labels is not None:
        small = resize_nearest(labels, _fit(labels.shape))
        return draw_labels(small.astype(np.int64), photo, context)
    assert sample.masks is not None
    small, palette = _small(Path(sample.masks.path))
    return _draw_mask(small, palette, photo, context)


def labels_of(sample: SampleFacts, context: Context) -> NDArray[np.int32] | None:
    """Classes before merging, of a mask that is drawn or whose numbers stand for others; None for other masks.

    Raises:
        DataError: it cannot be read.
    """
    facts = sample.masks
    split = next(split for split in context.splits if split.name == sample.split)
    drawing = split.drawing(sample.stem)
    if isinstance(facts, ShapeFacts):
        if drawing is None or drawing.reader is None or not facts.values.size:
            raise DataError(f"{facts.path} cannot be drawn")
        return drawing.reader.draw(drawing.photo, drawing.file, facts.size)
    if isinstance(facts, MaskFacts) and facts.read is not None and split.stored is not None:
        return split.stored.rule(split.stored.read(Path(facts.path)), facts.path)
    return None


def _small(path: Path) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """A file as stored, upright and at the size of the page, and its palette."""
    stored = read_numbers(path)
    pixels = turn_upright(stored.pixels, stored.orientation)
    return resize_nearest(pixels, _fit(pixels.shape[:2])), stored.palette


def _draw_mask(
    small: NDArray[Any], palette: NDArray[np.uint8] | None, photo: NDArray[np.uint8] | None, context: Context
) -> NDArray[np.uint8]:
    """A mask over the photo: in its own colours if it has some and the classes have no names, else in theirs."""
    if small.ndim == 3 and small.shape[2] >= 3 and not (small == small[..., :1])[..., :3].all():
        return _over(photo, small[..., :3].astype(np.uint8))
    labels = (small if small.ndim == 2 else small[..., 0]).astype(np.int64)
    if palette is not None and context.classes is None and labels.max() < len(palette):
        return _over(photo, palette[labels])
    return draw_labels(labels, photo, context)


def draw_labels(labels: NDArray[np.int64], photo: NDArray[np.uint8] | None, context: Context) -> NDArray[np.uint8]:
    """Colours of the classes over the photo; ignored pixels black, numbers without a class magenta."""
    palette = class_colours(context)
    ignored = labels == context.ignore_index
    colours = np.array(palette, np.uint8)[labels % len(palette)]
    if context.classes is not None:
        colours[(labels < 0) | (labels >= len(palette))] = (255, 0, 255)
    colours[ignored] = 0
    picture = _over(photo, colours)
    if photo is not None and photo.shape == colours.shape:
        picture[ignored] = photo[ignored] // 4
    return picture


def _over(photo: NDArray[np.uint8] | None, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return colours if photo is None or photo.shape != colours.shape else overlay(photo, colours)


def _fit(size: tuple[int, ...]) -> Size:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def legend(context: Context) -> list[tuple[str, str]]:
    """(name, CSS colour) of every class."""
    names = context.classes.names if context.classes is not None else ()
    if not 0 < len(names) <= 256:
        return []
    return [(name, css(colour)) for name, colour in zip(names, class_colours(context), strict=True)]
