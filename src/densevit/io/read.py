"""Read photos, label masks and value maps into arrays."""

import base64
import binascii
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.errors import DataError
from densevit.io.arrays import array_of, array_to_rgb, grey_to_rgb, on_white, to_8_bit
from densevit.io.dark import warn_if_dark
from densevit.io.decode import decode, guarded, require_file, upright
from densevit.io.zipped import ZipPath, place

LOSSY_FORMATS = frozenset({"JPEG", "MPO"})
"""Pillow's names of formats that change values; MPO is a JPEG with a second image inside, as phones write it."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one photo.

    EXIF orientation is applied. Transparent parts are composited on white. 16-bit grey is scaled from 0..65535; float
    pixels from 0..1 if all are in that range, else from 0..255. CMYK, YCCK, LAB, HSV and palettes are converted;
    embedded colour profiles are ignored. The first frame of an animation or multi-page file is read. A warning names
    files of 16 bits whose values are so low, as those of 12-bit cameras are, that the photo is almost black.

    Args:
        path: a file in one of ``FORMATS``, whatever its extension.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: no such file, not an image, damaged or cut short, beyond ``limits``, values of unknown range.
    """
    return decode(place(path), lambda image, name: _to_rgb(warn_if_dark(image, name), name))


def as_image(source: object) -> NDArray[np.uint8]:
    """Convert a photo in any form to an array.

    Args:
        source: a path, read by ``read_image``; a Pillow image, converted by the same rules; or an array or tensor: grey
            (H, W), (H, W, C) or (C, H, W) with C of 1 (grey), 3 (RGB) or 4 (RGBA), and any of these as a batch of one.
            Where the shape fits both, such as (3, 640, 4), an array has its channels last and a tensor first, as is the
            custom of numpy and torch. Values are bool, uint8, uint16 or floats in [0, 1].

    Returns:
        (H, W, 3) uint8, RGB; may share memory with ``source``.

    Raises:
        DataError: another type, shape, dtype or range; the errors of ``read_image``.
    """
    if isinstance(source, str | os.PathLike):
        return read_image(Path(source))
    if isinstance(source, Image.Image):
        name = "the Pillow image"
        with guarded(name):
            image = _to_rgb(upright(source, name), name)
        return image
    if (array := array_of(source)) is not None:
        return array_to_rgb(*array)
    raise DataError(
        f"the image is of type {type(source).__name__}; a path, a Pillow image, a numpy array or a torch tensor is"
        " accepted"
    )


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read a mask of class indices; EXIF orientation is applied as for the photo.

    Args:
        path: a lossless image with one channel: 8-bit grey, palette (the *indices* count, not the colours), 1-bit
            (0 and 1), 16-bit or 32-bit integers; or a ``.npy`` array (H, W) of integers.

    Returns:
        (H, W) int32.

    Raises:
        DataError: the errors of ``read_image``; colours, alpha or floats instead of indices; a JPEG.
    """
    path = place(path)
    if path.suffix.lower() != ".npy":
        return decode(path, _to_labels)
    labels = load_array(path, "one (H, W) array of integers", lambda a: a.ndim == 2 and a.dtype.kind in "iu")
    if labels.dtype.itemsize > 2 and not -(2**31) <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise DataError(f"{path} holds {int(labels.max())}; class indices of 32 bits are accepted")
    return labels.astype(np.int32)


def read_mask(path: Path) -> NDArray[np.int32] | NDArray[np.uint8]:
    """Read a mask of either kind: one channel as ``read_labels`` does, (H, W), or colours, (H, W, 3)."""
    if place(path).suffix.lower() == ".npy":
        return read_labels(path)
    return decode(place(path), lambda image, name: (_to_labels if _is_index(image) else _to_colours)(image, name))


def read_colours(path: Path) -> NDArray[np.uint8]:
    """Read a mask in colours; palettes become colours, and EXIF orientation is applied.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the errors of ``read_image``; a JPEG; 16-bit or float pixels.
    """
    return decode(place(path), _to_colours)


def decode_mask(text: str, name: str) -> NDArray[np.bool_]:
    """Decode the base64 of a PNG file with one channel to (H, W), true where it is not 0.

    Raises:
        DataError: another text; the message names the file ``name``.
    """
    accepted = "the base64 of a PNG file with one channel"
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, TypeError, binascii.Error):
        raise DataError(f"{name} has a mask that is not base64; {accepted} is accepted") from None
    with guarded(f"the mask in {name}", accepted), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return _to_labels(image, f"the mask in {name}") != 0


def read_values(path: Path) -> NDArray[np.float32]:
    """Read a value map, the target of a dense regression.

    Args:
        path: a ``.npy`` file of one (H, W, K) array of floats, NaN where unknown.

    Returns:
        (H, W, K) float32.

    Raises:
        DataError: no such file, damaged or not ``.npy``; an array but (H, W, K) floats.
    """
    values = load_array(place(path), "one (H, W, K) array of floats", lambda a: a.ndim == 3 and a.dtype.kind == "f")
    return values.astype(np.float32)


def load_array(path: Path, accepted: str, fits: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
    """Load a ``.npy`` file; nothing in it is executed.

    Args:
        path: the file.
        accepted: says in messages what it should hold.
        fits: whether an array is accepted; empty ones never are.

    Raises:
        DataError: no such file, damaged, or not accepted.
    """
    require_file(path)
    with guarded(path, f"{accepted}, as np.save writes it,"), path.open("rb") as file:
        _check_array_header(path, file)
        source = io.BytesIO(path.read_bytes()) if isinstance(path, ZipPath) else path
        loaded: object = np.load(source, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise DataError(f"{path} holds {type(loaded).__name__}; {accepted} is accepted")
    return require_array(path, loaded, accepted, fits)


def _check_array_header(path: Path, file: IO[bytes]) -> None:
    """Compare the size that the header of a ``.npy`` file claims with that of the file."""
    start = file.read(len(np.lib.format.MAGIC_PREFIX))
    file.seek(0)
    if start != np.lib.format.MAGIC_PREFIX:
        return
    read_header = np.lib.format.read_array_header_1_0
    if np.lib.format.read_magic(file) != (1, 0):
        read_header = np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    claimed, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
    if not dtype.hasobject and claimed > there:
        raise DataError(
            f"{path} claims an array {shape} of {dtype}, {claimed:,} bytes, and holds {there:,}; copy it again"
        )


def require_array(path: Path, array: NDArray[Any], accepted: str, fits: Callable[[NDArray[Any]], bool]) -> NDArray[Any]:
    """The array of a file if it is accepted, with the arguments and errors of ``load_array``."""
    if array.size == 0 or not fits(array):
        raise DataError(f"{path} holds an array {array.shape} of {array.dtype}; {accepted} is accepted")
    return array


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from a loaded image of any mode."""
    if image.mode.startswith("I") or image.mode == "F":
        return grey_to_rgb(to_8_bit(_integers_as_16_bit(np.asarray(image), name), name, float_maximum=(1, 255)))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return on_white(rgba[:, :, :3], rgba[:, :, 3])
    return np.array(image.convert("RGB"))


def _integers_as_16_bit(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Pillow's mode I (int32), which it uses for 16-bit PPMs, as uint16; other dtypes unchanged."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name} holds 32-bit integers from {low} to {high}; 0..65535 is accepted; scale the values")
    return array.astype(np.uint16)


def _to_labels(image: Image.Image, name: str) -> NDArray[np.int32]:
    if image.format in LOSSY_FORMATS:
        raise DataError(f"{name} is a JPEG, which blurs class indices; lossless masks are accepted; export it as PNG")
    if not _is_index(image):
        raise DataError(
            f"{name} is a mask of mode {image.mode}; one channel of class indices (grey or palette PNG) is accepted;"
            " replace each colour by its class index and save that"
        )
    return np.asarray(image).astype(np.int32)


def _is_index(image: Image.Image) -> bool:
    return image.mode in {"1", "L", "P", "I"} or image.mode.startswith("I;16")


def _to_colours(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.format in LOSSY_FORMATS:
        raise DataError(f"{name} is a JPEG, which blurs colours; lossless masks are accepted; export it as PNG")
    if image.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}:
        raise DataError(
            f"{name} is a mask of mode {image.mode}; 8-bit colours are accepted; leave out palette if it holds numbers"
        )
    return np.array(image.convert("RGB"))  # alpha is dropped: a colour mixed with white would be another class
