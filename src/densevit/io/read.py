"""Read photos, label masks and value maps into arrays."""

import io
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.errors import DataError
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
        source: a path, read by ``read_image``; a Pillow image, converted by the same rules; an array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4); or a tensor (3, H, W), (1, 3, H, W) or (H, W, 3), channels first where both fit.
            Arrays are uint8, uint16 or floats in [0, 1], tensors uint8 or floats in [0, 1], both RGB or RGBA.

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
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source, f"an array {source.shape} of {source.dtype}")
    # A caller with a tensor has imported torch; this module need not.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(source, torch.Tensor):
        return _tensor_to_rgb(source)
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
        return _grey_to_rgb(_to_8_bit(_integers_as_16_bit(np.asarray(image), name), name, float_maximum=(1, 255)))
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return on_white(rgba[:, :, :3], rgba[:, :, 3])
    return np.array(image.convert("RGB"))


def _array_to_rgb(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from (H, W) or (H, W, 1|3|4)."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in {1, 3, 4} or array.size == 0:
        raise DataError(f"the image is {name}; (H, W) and (H, W, 1|3|4) are accepted; give one RGB image")
    array = _to_8_bit(array, f"the image, {name},")
    if array.shape[2] == 4:
        return on_white(array[:, :, :3], array[:, :, 3])
    return _grey_to_rgb(array[:, :, 0]) if array.shape[2] == 1 else np.ascontiguousarray(array)


def _tensor_to_rgb(tensor: Any) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from a torch tensor (3, H, W), (1, 3, H, W) or (H, W, 3)."""
    name = f"a tensor {tuple(tensor.shape)} of {tensor.dtype}"
    if tensor.ndim == 4 and len(tensor) == 1:
        tensor = tensor[0]
    if tensor.ndim == 3 and tensor.shape[0] == 3:
        tensor = tensor.permute(1, 2, 0)
    if tensor.ndim != 3 or tensor.shape[2] != 3:
        raise DataError(f"the image is {name}; (3, H, W), (1, 3, H, W) and (H, W, 3) are accepted; give one RGB image")
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16.
    return _array_to_rgb((tensor.float() if tensor.is_floating_point() else tensor).numpy(), name)


def _to_8_bit(array: NDArray[Any], name: str, float_maximum: tuple[int, ...] = (1,)) -> NDArray[np.uint8]:
    """Scale uint16, or floats from 0 to the first of ``float_maximum`` that holds them all, to 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return from_16_bit(array)
    if array.dtype.kind != "f":
        raise DataError(f"{name} holds {array.dtype}; uint8, uint16 and floats are accepted; convert the values")
    low, high = float(array.min()), float(array.max())
    for maximum in float_maximum:
        # Resampling may overshoot a little, which is clipped. NaN fails both comparisons.
        if low >= -1e-3 * maximum and high <= 1.001 * maximum:
            return np.rint(array.astype(np.float32).clip(0, maximum) * (255 / maximum)).astype(np.uint8)
    ranges = " or ".join(f"0..{maximum}" for maximum in float_maximum)
    raise DataError(f"{name} holds floats from {low:g} to {high:g}; floats in {ranges} are accepted; scale the values")


def _integers_as_16_bit(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Pillow's mode I (int32), which it uses for 16-bit PPMs, as uint16; other dtypes unchanged."""
    if array.dtype != np.int32:
        return array
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name} holds 32-bit integers from {low} to {high}; 0..65535 is accepted; scale the values")
    return array.astype(np.uint16)


def _grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[:, :, None], 3, axis=2)


def from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def on_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite (H, W, 3) with alpha (H, W) on white."""
    share = alpha[:, :, None].astype(np.uint16)
    mixed = rgb * share  # at most 255 * 255, also with the white added
    mixed += 255 * (255 - share) + 127
    mixed //= 255
    return mixed.astype(np.uint8)
