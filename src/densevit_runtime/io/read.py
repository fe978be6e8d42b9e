"""Read photos, label masks and value maps into arrays."""

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit_runtime.errors import DataError
from densevit_runtime.io.arrays import array_of, array_to_rgb, grey_to_rgb, on_white, to_8_bit
from densevit_runtime.io.dark import warn_if_dark
from densevit_runtime.io.decode import decode, guarded, require_file, upright
from densevit_runtime.io.zipped import ZipPath, place

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
