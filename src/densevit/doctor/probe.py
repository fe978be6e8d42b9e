"""One sample's files -> its facts. Nothing in a file may stop the pass: what cannot be read becomes ``Broken``."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.facts import (
    THUMB_SIZE,
    Broken,
    DepthFacts,
    MaskFacts,
    PhotoFacts,
    SampleFacts,
    ValueFacts,
)
from densevit.errors import DataError
from densevit.io import read_depth
from densevit.io.stored import Stored, read_stored, read_stored_photo, shrink, to_grey, turn_upright

MAX_VALUES = 4096
"""Of a mask, kept with their counts; a photo taken for a mask has more."""

_DEPTH_PIXELS = 40_000

FIT_SIZE = (96, 96)
"""At which outlines of mask and photo are compared."""

_T = TypeVar("_T")


def probe(split: str, stem: str, files: dict[str, Path], invalid_depths: tuple[float, ...] = ()) -> SampleFacts:
    """Read the files of one sample, by kind: ``images``, and any of ``masks``, ``depth`` and ``values``."""
    edges: list[NDArray[np.float32]] = []
    photo = _tolerant(files["images"], lambda path: _photo(path, edges if "masks" in files else None))
    masks = _tolerant(files["masks"], lambda path: _mask(path, *edges)) if "masks" in files else None
    depth = _tolerant(files["depth"], lambda path: _depth(path, invalid_depths)) if "depth" in files else None
    values = _tolerant(files["values"], _values) if "values" in files else None
    return SampleFacts(split, stem, photo, masks, depth, values)


def _tolerant(path: Path, read: Callable[[Path], _T]) -> _T | Broken:
    try:
        return read(path)
    except DataError as error:
        return Broken(str(path), _code(path), str(error).removeprefix(f"{path} "))
    except (OSError, ValueError, MemoryError) as error:  # a permission, an odd array, a picture beyond memory
        return Broken(str(path), "unreadable", f"cannot be read ({error})")


def _code(path: Path) -> str:
    """Which finding an unreadable file belongs to."""
    try:
        if path.stat().st_size == 0:
            return "empty-file"
        with path.open("rb") as file:
            start = file.read(1024)
    except (OSError, DataError):  # the latter for what lies in a damaged archive
        return "unreadable"
    known = (
        b"\xff\xd8\xff",
        b"\x89PNG",
        b"II*\0",
        b"MM\0*",
        b"GIF8",
        b"BM",
        b"RIFF",
        b"\x93NUMPY",
        b"P5",
        b"P6",
        b"Pf",
    )
    return "unreadable" if start.startswith(known) or path.suffix.lower() == ".npy" else "not-an-image"


def _photo(path: Path, edges: list[NDArray[np.float32]] | None) -> PhotoFacts:
    """The photo; what its outlines are is left in ``edges``."""
    stored, rgb = read_stored_photo(path)
    digest = hashlib.blake2b(f"{rgb.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(rgb).data)
    if edges is not None:
        edges.append(_photo_edges(rgb))
    grey = bool(
        np.array_equal(rgb[::7, ::7, 0], rgb[::7, ::7, 1])
        and (rgb[..., 0] == rgb[..., 1]).all()
        and (rgb[..., 1] == rgb[..., 2]).all()
    )
    wide = stored.pixels.dtype.kind in "iu" and stored.pixels.dtype.itemsize > 1
    return PhotoFacts(
        str(path),
        stored.format,
        stored.mode,
        stored.size,
        stored.upright_size,
        stored.orientation,
        stored.frames,
        digest.digest(),
        shrink(to_grey(rgb), THUMB_SIZE).tobytes(),
        grey,
        stored.mode in {"RGBA", "LA", "PA"} and bool((stored.pixels[..., -1] < 255).any()),
        int(stored.pixels.max()) if wide else None,
        bool((rgb[::7, ::7] == rgb[0, 0]).all() and (rgb == rgb[0, 0]).all()),
    )


def _mask(path: Path, *edges: NDArray[np.float32]) -> MaskFacts:
    stored = read_stored(path)
    pixels, colours = mask_pixels(stored)
    values, counts = _unique(pixels)
    palette = None
    if stored.palette is not None:
        known = np.zeros((max(256, int(values.max()) + 1), 3), np.int64)
        known[: len(stored.palette)] = stored.palette
        palette = (known[values] * (65536, 256, 1)).sum(axis=1)
    num_values = len(values)
    if num_values > MAX_VALUES:
        kept = np.sort(np.argsort(counts, kind="stable")[::-1][:MAX_VALUES])
        values, counts = values[kept], counts[kept]
        palette = palette[kept] if palette is not None else None
    facts = MaskFacts(
        str(path),
        stored.format,
        stored.mode,
        stored.upright_size,
        values,
        counts,
        num_values,
        colours,
        palette,
    )
    return replace(facts, fits=_fits(edges[0], turn_upright(pixels, stored.orientation))) if edges else facts


def mask_pixels(stored: Stored) -> tuple[NDArray[Any], bool]:
    """(H, W) integers as stored, and whether they are colours 0xRRGGBB; three equal channels are one of indices.

    Raises:
        DataError: if the file holds something else, floats for one.
    """
    pixels = stored.pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8), False
    if pixels.dtype.kind == "f" and pixels.ndim == 2 and (pixels == np.rint(pixels)).all():
        pixels = pixels.astype(np.int64)
    if pixels.dtype.kind not in "iu":
        raise DataError(f"the mask holds {pixels.dtype}; integers are accepted; save class numbers")
    if pixels.ndim == 2:
        return pixels, False
    if pixels.shape[2] == 2:  # grey with alpha
        return pixels[..., 0], False
    red, green, blue = (pixels[..., i] for i in range(3))
    if stored.mode in {"RGB", "RGBA", "uint8"} and np.array_equal(red, green) and np.array_equal(green, blue):
        return red, False
    return (red.astype(np.int64) << 16) | (green.astype(np.int64) << 8) | blue, True


def _unique(pixels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The values and their counts; without sorting where they are small."""
    if pixels.dtype.itemsize <= 2 and pixels.dtype.kind == "u":
        counts = np.bincount(pixels.ravel())
        values = np.flatnonzero(counts)
        return values.astype(np.int64), counts[values].astype(np.int64)
    values, counts = np.unique(pixels, return_counts=True)
    return values.astype(np.int64), counts.astype(np.int64)


def _photo_edges(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much the photo changes at each place, (96, 96), with mean 0 and length 1."""
    grey = shrink(to_grey(rgb), (FIT_SIZE[0] + 1, FIT_SIZE[1] + 1)).astype(np.float32)
    change = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    return _unit(np.sqrt(change))


def _fits(edges: NDArray[np.float32], labels: NDArray[Any]) -> tuple[float, ...] | None:
    """Correlation of the mask's outlines with the photo's, for each way to turn the mask; None without outlines."""
    outline = np.zeros(labels.shape[:2], np.uint8)
    outline[1:] |= (labels[1:] != labels[:-1]).view(np.uint8)
    outline[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).view(np.uint8)
    if not outline.any():
        return None
    small = shrink(outline * 255, FIT_SIZE).astype(np.float32)
    return tuple(float((edges * _unit(turn_upright(small, way))).sum()) for way in range(1, 9))


def _unit(field: NDArray[np.float32]) -> NDArray[np.float32]:
    field = field - field.mean()
    return field / max(float(np.sqrt((field**2).sum())), 1e-9)


def _depth(path: Path, invalid: tuple[float, ...]) -> DepthFacts:
    # Pillow has no OpenEXR; the reader of depth says whether there is another that has.
    stored = Stored("EXR", "F", 1, 1, read_depth(path)) if path.suffix.lower() == ".exr" else read_stored(path)
    pixels = stored.pixels
    if pixels.dtype.kind not in "iubf":
        raise DataError(f"{path} holds {pixels.dtype}; integers and floats are accepted; save metres or millimetres")
    integers = pixels.dtype.kind != "f"
    bits = pixels.dtype.itemsize * 8 if integers else 0
    if bits == 32 and stored.format == "PNG":  # Pillow's mode I
        bits = 16
    facts = DepthFacts(
        str(path), stored.format, stored.mode, stored.upright_size, bits, pixels.ndim == 3, valid=0.0, nan=0, negative=0
    )
    if pixels.ndim == 3:
        return facts
    depth = turn_upright(pixels, stored.orientation).astype(np.float32)
    known_invalid = np.isin(depth, np.array(invalid, np.float32))
    depth[known_invalid] = 0
    finite = np.isfinite(depth)
    valid = finite & (depth > 0)
    known = depth[valid]
    facts = replace(
        facts, nan=int((~finite).sum()), negative=int((finite & (depth < 0)).sum()), valid=float(valid.mean())
    )
    if not known.size:
        return facts
    # Quantiles and the like from a part of the pixels, since sorting all of a large map takes longer than reading it.
    step = max(1, known.size // _DEPTH_PIXELS)
    sample, rows = known[::step], (np.flatnonzero(valid)[::step] // depth.shape[1]).astype(np.float32)
    quantiles = (*np.quantile(sample, (0.01, 0.5, 0.99)), known.min(), known.max())
    return replace(
        facts,
        quantiles=tuple(float(q) for q in quantiles),
        saturated=float((known >= 65535).mean()) if bits == 16 else 0.0,
        levels=min(len(np.unique(sample)), 1025),
        slope=_correlation(rows, sample),
    )


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    a, b = first.astype(np.float64) - first.mean(), second.astype(np.float64) - second.mean()
    length = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / length if length > 0 else 0.0


def _values(path: Path) -> ValueFacts:
    stored = read_stored(path)
    pixels = stored.pixels
    good = stored.format == "NPY" and pixels.ndim == 3 and pixels.dtype.kind == "f"
    problem = "" if good else f"it holds an array {pixels.shape} of {pixels.dtype}"
    finite = float(np.isfinite(pixels).mean()) if pixels.dtype.kind == "f" else 1.0
    return ValueFacts(str(path), stored.size, pixels.shape[2] if pixels.ndim == 3 else 1, finite, problem)
