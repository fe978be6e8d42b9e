"""The files of one sample -> their facts. No file may stop the pass: what cannot be read becomes ``Broken``."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from densevit.data import FolderConfig
from densevit.data.sample import Sample
from densevit.doctor.drawing import Drawing, StoredMask
from densevit.doctor.facts import (
    THUMB_SIZE,
    Broken,
    DepthFacts,
    MaskFacts,
    PhotoFacts,
    SampleFacts,
    ShapeFacts,
    ValueFacts,
)
from densevit.errors import DataError
from densevit.io import read_bands, read_depth
from densevit.io.depth import plane
from densevit.io.stored import Stored, read_stored, read_stored_photo, shrink, to_grey, turn_upright

MAX_VALUES = 4096
"""Values of a mask that are kept with their counts; a photo taken for a mask has more."""

FIT_SIZE = (96, 96)
"""Size at which the outlines of mask and photo are compared."""

_DEPTH_PIXELS = 40_000
"""Pixels from which quantiles of depth are taken, since sorting all of a large map takes longer than reading it."""

_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"GIF8", b"BM", b"RIFF"),
    *(b"\x93NUMPY", b"P5", b"P6", b"Pf"),
)
"""First bytes of the formats that the readers read."""

_T = TypeVar("_T")


def probe(
    split: str,
    name: str,
    files: Mapping[str, Path],
    config: FolderConfig | None = None,
    reader: Drawing | StoredMask | None = None,
) -> SampleFacts:
    """Read the files of one sample.

    Args:
        split: its split.
        name: of its pair.
        files: by kind: ``images``, and any of ``masks``, ``depth`` and ``values``.
        config: how they are read.
        reader: draws the mask, or reads the classes of a stored one, where these are not its numbers.
    """
    edges: list[NDArray[np.float32]] = []  # of the photo, for the mask; empty if the photo is broken
    photo = _tolerant(files["images"], lambda path: _photo(path, edges if "masks" in files else None, config))
    masks: MaskFacts | ShapeFacts | Broken | None = None
    if isinstance(reader, Drawing):
        size = photo.upright_size if isinstance(photo, PhotoFacts) else None
        masks = _tolerant(reader.named, lambda _: reader.facts(size))
    elif "masks" in files:
        masks = _tolerant(files["masks"], lambda path: _mask(path, *edges))
        if reader is not None and isinstance(masks, MaskFacts):
            masks = replace(masks, read=reader.counts(files["masks"]))
    invalid = config.depth_invalid if config is not None else ()
    depth = _tolerant(files["depth"], lambda path: _depth(path, invalid)) if "depth" in files else None
    values = _tolerant(files["values"], _values) if "values" in files else None
    return SampleFacts(split, name, photo, masks, depth, values)


def _tolerant(path: Path, read: Callable[[Path], _T]) -> _T | Broken:
    try:
        return read(path)
    except DataError as error:
        return Broken(str(path), _broken_code(path), str(error).removeprefix(f"{path} "))
    except (OSError, ValueError, MemoryError) as error:  # a permission, an odd array, an image beyond memory
        return Broken(str(path), "unreadable", f"cannot be read ({error})")


def _broken_code(path: Path) -> str:
    try:
        if path.stat().st_size == 0:
            return "empty-file"
        with path.open("rb") as file:
            start = file.read(1024)
    except (OSError, DataError):  # DataError: the file is in a damaged archive
        return "unreadable"
    return "unreadable" if start.startswith(_MAGIC) or path.suffix.lower() in {".npy", ".json"} else "not-an-image"


def _photo(path: Path, edges: list[NDArray[np.float32]] | None, config: FolderConfig | None) -> PhotoFacts:
    """Read a photo and append its outlines to ``edges``."""
    if config is not None and config.bands is not None:
        image = read_bands(path, bands=config.bands, full_scale=config.full_scale)
        rgb = Sample(path.stem, image).picture
        stored = Stored("bands", "bands", 1, 1, rgb)
    else:
        stored, rgb = read_stored_photo(path)
    digest = hashlib.blake2b(f"{rgb.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(rgb).data)
    if edges is not None:
        edges.append(_photo_edges(rgb))
    sparse = rgb[::7, ::7]  # most photos are neither grey nor blank, which a few pixels show faster
    grey = (sparse == sparse[..., :1]).all() and (rgb == rgb[..., :1]).all()
    is_16_bit = stored.pixels.dtype.kind in "iu" and stored.pixels.dtype.itemsize > 1
    return PhotoFacts(
        path=str(path),
        format=stored.format,
        size=stored.size,
        upright_size=stored.upright_size,
        orientation=stored.orientation,
        frames=stored.frames,
        digest=digest.digest(),
        thumb=shrink(to_grey(rgb), THUMB_SIZE).tobytes(),
        grey=bool(grey),
        transparent=stored.mode in {"RGBA", "LA", "PA"} and bool((stored.pixels[..., -1] < 255).any()),
        peak=int(stored.pixels.max()) if is_16_bit else 0,
        blank=bool((sparse == rgb[0, 0]).all() and (rgb == rgb[0, 0]).all()),
    )


def _mask(path: Path, *edges: NDArray[np.float32]) -> MaskFacts:
    stored = read_stored(path)
    pixels, colours = mask_pixels(stored)
    channels = stored.pixels.shape[2] if stored.format == "NPY" and stored.pixels.ndim == 3 else 0
    mode = f"{stored.mode} of {channels} channels" if channels else stored.mode
    values, counts = _unique(pixels)
    num_values = len(values)
    if num_values > MAX_VALUES:
        kept = np.sort(np.argsort(counts, kind="stable")[::-1][:MAX_VALUES])
        values, counts = values[kept], counts[kept]
    palette = None
    if stored.palette is not None:
        table = np.zeros((max(256, int(values.max()) + 1), 3), np.int64)
        table[: len(stored.palette)] = stored.palette
        palette = (table[values] * (65536, 256, 1)).sum(axis=1)
    fits = _fits(edges[0], turn_upright(pixels, stored.orientation)) if edges else None
    size = stored.upright_size
    return MaskFacts(str(path), size, stored.format, mode, values, counts, num_values, colours, palette, fits)


def mask_pixels(stored: Stored) -> tuple[NDArray[Any], bool]:
    """(H, W) integers as stored, and whether they are colours 0xRRGGBB; three equal channels are class numbers.

    Raises:
        DataError: the file holds something else, such as floats.
    """
    pixels = stored.pixels
    if stored.format == "NPY" and not _may_be_mask(pixels):
        raise DataError(
            f"the mask holds an array {pixels.shape} of {pixels.dtype}; one (H, W) array of integers is accepted"
        )
    if pixels.dtype == bool:
        return pixels.astype(np.uint8), False
    if pixels.dtype.kind == "f" and pixels.ndim == 2 and (pixels == np.rint(pixels)).all():
        pixels = pixels.astype(np.int64)
    if pixels.dtype.kind not in "iu":
        raise DataError(f"the mask holds {pixels.dtype}; integers are accepted")
    if pixels.ndim == 2:
        return pixels, False
    if pixels.shape[2] == 2:  # grey with alpha
        return pixels[..., 0], False
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    if stored.mode in {"RGB", "RGBA", "uint8"} and np.array_equal(red, green) and np.array_equal(green, blue):
        return red, False
    return (red.astype(np.int64) << 16) | (green.astype(np.int64) << 8) | blue, True


def _may_be_mask(pixels: NDArray[Any]) -> bool:
    """Whether an array is what the reader of masks accepts, or what ``--write-fixed`` makes of it: floats, colours."""
    if pixels.dtype.kind not in "biuf" or (pixels.ndim == 3 and pixels.shape[2] not in {3, 4}):
        return False
    return pixels.dtype.kind == "f" or -(2**31) <= int(pixels.min()) <= int(pixels.max()) < 2**31


def _unique(pixels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if pixels.dtype.itemsize <= 2 and pixels.dtype.kind == "u":  # counting is faster than sorting
        counts = np.bincount(pixels.ravel())
        values = np.flatnonzero(counts)
        return values.astype(np.int64), counts[values].astype(np.int64)
    values, counts = np.unique(pixels, return_counts=True)
    return values.astype(np.int64), counts.astype(np.int64)


def _photo_edges(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How much the photo changes at each place of (96, 96), as a unit vector."""
    grey = shrink(to_grey(rgb), (FIT_SIZE[0] + 1, FIT_SIZE[1] + 1)).astype(np.float32)
    change = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    return unit_vectors(np.sqrt(change)[None])[0]


def _fits(edges: NDArray[np.float32], labels: NDArray[Any]) -> tuple[float, ...] | None:
    """Correlation of the mask's outlines with the photo's for each EXIF orientation; None without outlines."""
    outline = np.zeros(labels.shape[:2], np.uint8)
    outline[1:] |= (labels[1:] != labels[:-1]).view(np.uint8)
    outline[:, 1:] |= (labels[:, 1:] != labels[:, :-1]).view(np.uint8)
    if not outline.any():
        return None
    small = shrink(outline * 255, FIT_SIZE).astype(np.float32)
    return tuple((unit_vectors(np.stack([turn_upright(small, turn) for turn in range(1, 9)])) @ edges).tolist())


def unit_vectors(fields: NDArray[Any]) -> NDArray[Any]:
    """(n, ...) floats -> n vectors of mean 0 and length 1, whose product is their correlation."""
    flat = fields.reshape(len(fields), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)).clip(1e-6)


def _depth(path: Path, invalid: tuple[float, ...]) -> DepthFacts:
    # Pillow cannot read OpenEXR; the reader of depth may.
    stored = Stored("EXR", "F", 1, 1, read_depth(path)) if path.suffix.lower() == ".exr" else read_stored(path)
    pixels = plane(stored.pixels)
    if pixels.dtype.kind not in "iubf":
        raise DataError(f"{path} holds {pixels.dtype}; integers and floats are accepted; save metres or millimetres")
    bits = 0 if pixels.dtype.kind == "f" else pixels.dtype.itemsize * 8
    if bits == 32 and stored.format == "PNG":  # 16 bits in Pillow's mode I
        bits = 16
    facts = DepthFacts(str(path), stored.upright_size, bits, pixels.ndim == 3, valid=0.0, nan=0, negative=0)
    if pixels.ndim == 3:
        return facts
    depth = turn_upright(pixels, stored.orientation).astype(np.float32)
    depth[np.isin(depth, np.array(invalid, np.float32))] = 0
    finite = np.isfinite(depth)
    valid = finite & (depth > 0)
    below = depth[finite & (depth < 0)]
    lowest = 0.0 if not below.size else float(below[0]) if below.min() == below.max() else -np.inf
    missing = int((~finite).sum())
    facts = replace(facts, nan=missing, negative=below.size, lowest=lowest, valid=float(valid.mean()))
    known = depth[valid]
    if not known.size:
        return facts
    step = max(1, known.size // _DEPTH_PIXELS)
    sample = known[::step]
    rows = (np.flatnonzero(valid)[::step] // depth.shape[1]).astype(np.float32)
    quantiles = (*np.quantile(sample, (0.01, 0.5, 0.99)), known.min(), known.max())
    return replace(
        facts,
        quantiles=tuple(float(q) for q in quantiles),
        top_share=float((known == known.max()).mean()),
        below_top=float(known.max(initial=0, where=known < known.max())),
        levels=min(len(np.unique(sample)), 1025),
        slope=float(np.prod(unit_vectors(np.stack([rows, sample]).astype(np.float64)), axis=0).sum()),
    )


def _values(path: Path) -> ValueFacts:
    stored = read_stored(path)
    pixels = stored.pixels
    is_float = pixels.dtype.kind == "f"
    accepted = stored.format == "NPY" and pixels.ndim == 3 and is_float
    problem = "" if accepted else f"the file holds an array {pixels.shape} of {pixels.dtype}"
    finite = float(np.isfinite(pixels).mean()) if is_float else 1.0
    return ValueFacts(str(path), stored.size, pixels.shape[2] if pixels.ndim == 3 else 1, finite, problem)
