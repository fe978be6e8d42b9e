"""From the file of a mask to stored numbers: grey levels, indices, or colours by their place in a palette."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import Rgb
from densevit.errors import DataError
from densevit.io import read_colours, read_labels
from densevit.io import read_mask as read_stored_mask

_JPEG_NOISE = 16
"""By how much red, green and blue of a grey JPEG may differ."""


def read_mask(
    path: Path,
    *,
    palette: tuple[Rgb, ...],
    mode: Literal["auto", "index", "colour"] = "auto",
    unknown: int | Literal["nearest"] | None = None,
    lossy: bool = False,
) -> NDArray[np.int32]:
    """The stored numbers of a mask; colours become their index in ``palette``.

    Args:
        path: an image, or a ``.npy`` array of integers.
        palette: a colour for each class, or empty.
        mode: "index" takes the numbers, "colour" the colours, also of a palette image; "auto" takes the numbers of an
            image of one channel.
        unknown: value for pixels of any other colour; "nearest" takes the nearest one of the palette; None refuses
            them.
        lossy: accept JPEGs, whose numbers and colours are not those that were saved.

    Raises:
        DataError: if the file cannot be read, or has colours that are not in the palette.
    """
    if not palette or mode == "index":
        return read_labels(path, lossy=lossy)
    stored = read_colours(path, lossy=lossy) if mode == "colour" else read_stored_mask(path, lossy=lossy)
    if stored.ndim == 2:
        return stored.astype(np.int32, copy=False)
    return _from_colours(stored, palette, str(path), unknown)


def read_grey(path: Path, *, lossy: bool = False) -> NDArray[np.int32]:
    """The stored numbers of a mask, which may also be saved as colours whose red, green and blue are equal.

    Raises:
        DataError: if the file cannot be read, or has other colours.
    """
    stored = read_stored_mask(path, lossy=lossy)
    if stored.ndim == 2:
        return stored.astype(np.int32, copy=False)
    if not is_grey(stored, lossy=lossy):
        raise DataError(
            f"mask {path} has colours, while class_values are numbers of grey masks; set palette to the colours instead"
        )
    return stored[:, :, 1].astype(np.int32)


def is_grey(pixels: NDArray[Any], *, lossy: bool) -> bool:
    """Whether red, green and blue of (H, W, C) are equal, or in a lossy file nearly so."""
    channels = np.moveaxis(pixels[..., :3], -1, 0)
    spread = np.maximum.reduce(channels) - np.minimum.reduce(channels)
    return bool((spread <= (_JPEG_NOISE if lossy else 0)).all())


def _from_colours(
    colours: NDArray[Any], palette: tuple[Rgb, ...], name: str, unknown: int | Literal["nearest"] | None
) -> NDArray[np.int32]:
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    codes = (red << 16) | (green << 8) | blue
    labels = _colour_table(palette)[codes].astype(np.int32)
    missing = labels < 0
    if not missing.any():
        return labels
    if unknown == "nearest":
        found, places = np.unique(codes[missing], return_inverse=True)
        labels[missing] = _nearest_colours(found, palette)[places.reshape(-1)]
        return labels
    if unknown is not None:
        labels[missing] = unknown
        return labels
    values, counts = np.unique(codes[missing], return_counts=True)
    shown = [f"({v >> 16}, {v >> 8 & 255}, {v & 255})" for v in values[np.argsort(-counts, kind="stable")][:6].tolist()]
    more = " ..." if len(values) > 6 else ""
    raise DataError(
        f"mask {name} has {len(values)} colours that no class has, {', '.join(shown)}{more} "
        f"in {int(counts.sum())} pixels; the palette has {len(palette)} colours; add theirs to it, or set "
        "unknown_colours: ignore (many colours that nearly fit come from a resized or lossy mask: export it again, or "
        "set nearest)"
    )


def _nearest_colours(codes: NDArray[np.int32], palette: tuple[Rgb, ...]) -> NDArray[np.int32]:
    """The class of the nearest colour, by the sum of squares over red, green and blue; the first one of equals."""
    channels = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1)
    best = np.full(len(codes), np.iinfo(np.int32).max, np.int32)
    labels = np.zeros(len(codes), np.int32)
    for index, colour in enumerate(palette):
        distance = ((channels - np.array(colour, np.int32)) ** 2).sum(axis=-1, dtype=np.int32)
        labels[distance < best] = index
        np.minimum(best, distance, out=best)
    return labels


@lru_cache(maxsize=4)
def _colour_table(palette: tuple[Rgb, ...]) -> NDArray[Any]:
    """The class of every 24-bit colour, -1 for none; 32 MB (64 beyond 32,767 classes), built once per process."""
    table = np.full(1 << 24, -1, np.int16 if len(palette) <= 32_767 else np.int32)
    for index, (red, green, blue) in reversed([*enumerate(palette)]):
        table[(red << 16) | (green << 8) | blue] = index
    return table
