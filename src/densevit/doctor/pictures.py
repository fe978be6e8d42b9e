"""Thumbnails of samples for the page: photo, mask over photo, depth. Files that cannot be shown are left out."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Context
from densevit.doctor.facts import MaskFacts, PhotoFacts, SampleFacts, ShapeFacts
from densevit.errors import DataError, DensevitError
from densevit.io.stored import data_uri, read_stored, read_stored_photo, resize_nearest, shrink, turn_upright
from densevit.tasks.colour import colourise_depth, default_palette, overlay, palette_for
from densevit.types import Size

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
    for kind in ("masks", "depth"):
        target = getattr(sample, kind)
        if target is None or isinstance(target, ShapeFacts):
            continue
        with suppress(DensevitError, ValueError):  # unreadable files are findings already
            stored = read_stored(Path(target.path))
            pixels = turn_upright(stored.pixels, stored.orientation)
            small = resize_nearest(pixels, _fit(pixels.shape[:2]))
            if small.ndim == 3 and (kind == "depth" or (isinstance(target, MaskFacts) and target.colours)):
                drawn = np.ascontiguousarray(small[..., :3]).astype(np.uint8)
            else:
                drawn = colourise_depth(small) if kind == "depth" else _draw_mask(small, photo, context)
            shown.append((Path(target.path).name, data_uri(drawn, kind="PNG")))
    return shown


def _draw_mask(small: NDArray[Any], photo: NDArray[np.uint8] | None, context: Context) -> NDArray[np.uint8]:
    """Colours of the classes over the photo; ignored pixels black, numbers without a class magenta."""
    labels = (small if small.ndim == 2 else small[..., 0]).astype(np.int64)
    names = context.classes.names if context.classes is not None else ()
    palette = palette_for(names) if names else default_palette(16)
    ignored = labels == context.ignore_index
    colours = np.array(palette, np.uint8)[labels % len(palette)]
    if names:
        colours[(labels < 0) | (labels >= len(names))] = (255, 0, 255)
    colours[ignored] = 0
    if photo is None or photo.shape != colours.shape:
        return colours
    picture = overlay(photo, colours)
    picture[ignored] = picture[ignored] // 4
    return picture


def _fit(size: tuple[int, ...]) -> Size:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def legend(context: Context) -> list[tuple[str, str]]:
    """(name, CSS colour) of every class."""
    names = context.classes.names if context.classes is not None else ()
    if not 0 < len(names) <= 256:
        return []
    return [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in zip(names, palette_for(names), strict=True)]
