"""Small pictures of samples for the page: photo, mask over photo, depth. A file that cannot be shown is left out."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Material
from densevit.doctor.facts import MaskFacts, PhotoFacts, SampleFacts
from densevit.errors import DataError, DensevitError
from densevit.io.stored import data_uri, read_stored, read_stored_photo, resize_nearest, shrink, turn_upright
from densevit.tasks.colour import colourise_depth, default_palette, overlay, palette_for
from densevit.types import Size

SIDE = 280
"""Longer side of a picture, in pixels."""

Picture = tuple[str, str]
"""Caption, and address of the picture itself."""


def pictures(sample: SampleFacts, material: Material) -> list[Picture]:
    """The photo of a sample and what belongs to it, as training would see it."""
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
        if target is None:
            continue
        try:
            stored = read_stored(Path(target.path))
            pixels = turn_upright(stored.pixels, stored.orientation)
            small = resize_nearest(pixels, _fit(pixels.shape[:2]))
            draw = _draw_mask(small, target, photo, material) if kind == "masks" else _draw_depth(small)
            shown.append((Path(target.path).name, data_uri(draw, kind="PNG")))
        except (DensevitError, ValueError):  # what can't be read is a finding already
            continue
    return shown


def _draw_mask(
    small: NDArray[Any], mask: object, photo: NDArray[np.uint8] | None, material: Material
) -> NDArray[np.uint8]:
    """Colours of the classes over the photo; ignored is black, a number without a class a glaring magenta."""
    if isinstance(mask, MaskFacts) and mask.colours and small.ndim == 3:
        return np.ascontiguousarray(small[..., :3]).astype(np.uint8)
    labels = (small if small.ndim == 2 else small[..., 0]).astype(np.int64)
    count = material.num_classes or 0
    names = material.classes.names if material.classes is not None else ()
    palette = palette_for(names) if 0 < count <= 256 else default_palette(16)
    ignored = labels == material.ignore_index
    outside = (labels < 0) | (labels >= max(count, 1)) if count else np.zeros(labels.shape, bool)
    colours = np.array(palette, np.uint8)[labels % len(palette)]
    colours[outside] = (255, 0, 255)
    colours[ignored] = 0
    if photo is None or photo.shape != colours.shape:
        return colours
    picture = overlay(photo, colours)
    picture[ignored] = picture[ignored] // 4
    return picture


def _draw_depth(small: NDArray[Any]) -> NDArray[np.uint8]:
    if small.ndim == 3:
        return np.ascontiguousarray(small[..., :3]).astype(np.uint8)
    return colourise_depth(small)


def _fit(size: tuple[int, ...]) -> Size:
    scale = min(1.0, SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def legend(material: Material) -> list[tuple[str, str]]:
    """(name, CSS colour) of every class."""
    if material.classes is None or not 0 < len(material.classes.names) <= 256:
        return []
    names = material.classes.names
    return [(name, "#{:02x}{:02x}{:02x}".format(*rgb)) for name, rgb in zip(names, palette_for(names), strict=True)]
