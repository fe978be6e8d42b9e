"""Read photos, label masks and value maps into arrays."""

import base64
import binascii
import io
import math
import os
import sys
from collections.abc import Callable
from functools import partial
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


def read_labels(path: Path, *, lossy: bool = False) -> NDArray[np.int32]:
    """Read a mask of class indices; EXIF orientation is applied as for the photo.

    Args:
        path: a lossless image with one channel: 8-bit grey, palette (the *indices* count, not the colours), 1-bit
            (0 and 1), 16-bit or 32-bit integers; or a ``.npy`` array (H, W) of integers.
        lossy: accept a JPEG too, whose numbers are not those that were saved.

    Returns:
        (H, W) int32.

    Raises:
        DataError: the errors of ``read_image``; colours, alpha or floats instead of indices; a JPEG.
    """
    path = place(path)
    if path.suffix.lower() != ".npy":
        return decode(path, partial(_to_labels, lossy=lossy))
    labels = load_array(path, "one (H, W) array of integers", lambda a: a.ndim == 2 and a.dtype.kind in "iu")
    if labels.dtype.itemsize > 2 and not -(2**31) <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise DataError(f"{path} holds {int(labels.max())}; class indices of 32 bits are accepted")
    return labels.astype(np.int32)


def read_mask(path: Path, *, lossy: bool = False) -> NDArray[np.int32] | NDArray[np.uint8]:
    """Read a mask of either kind: one channel as ``read_labels`` does, (H, W), or colours, (H, W, 3)."""
    if place(path).suffix.lower() == ".npy":
        return read_labels(path)

    def convert(image: Image.Image, name: str) -> NDArray[Any]:
        return (_to_labels if _is_index(image) else _to_colours)(image, name, lossy=lossy)

    return decode(place(path), convert)


def read_region(path: Path) -> NDArray[np.bool_]:
    """Read the mask of one region: true where it is not 0, or not transparent; EXIF orientation is applied.

    Returns:
        (H, W).

    Raises:
        DataError: the errors of ``read_mask``.
    """
    if place(path).suffix.lower() == ".npy":
        return read_labels(path) != 0

    def convert(image: Image.Image, name: str) -> NDArray[np.bool_]:
        if image.mode in {"LA", "PA", "RGBA"} and image.getchannel("A").getextrema()[0] == 0:
            return np.asarray(image.getchannel("A")) > 0
        stored: NDArray[Any] = _to_labels(image, name) if _is_index(image) else _to_colours(image, name).max(axis=2)
        return stored != 0

    return decode(place(path), convert)


def read_colours(path: Path, *, lossy: bool = False) -> NDArray[np.uint8]:
    """Read a mask in colours; palettes become colours, and EXIF orientation is applied.

    Args:
        path: of an image.
        lossy: accept a JPEG too, whose colours are not those that were saved.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: the errors of ``read_image``; a JPEG; 16-bit or float pixels.
    """
    return decode(place(path), partial(_to_colours, lossy=lossy))


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


def _to_labels(image: Image.Image, name: str, *, lossy: bool = False) -> NDArray[np.int32]:
    if image.format in LOSSY_FORMATS and not lossy:
        raise DataError(f"{name} is a JPEG, which blurs class indices; lossless masks are accepted; export it as PNG")
    if not _is_index(image):
        raise DataError(
            f"{name} is a mask of mode {image.mode}; one channel of class indices (grey or palette PNG) is accepted;"
            " replace each colour by its class index and save that"
        )
    return np.asarray(image).astype(np.int32)


def _is_index(image: Image.Image) -> bool:
    return image.mode in {"1", "L", "P", "I"} or image.mode.startswith("I;16")


def _to_colours(image: Image.Image, name: str, *, lossy: bool = False) -> NDArray[np.uint8]:
    if image.format in LOSSY_FORMATS and not lossy:
        raise DataError(f"{name} is a JPEG, which blurs colours; lossless masks are accepted; export it as PNG")
    if image.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}:
        raise DataError(
            f"{name} is a mask of mode {image.mode}; 8-bit colours are accepted; leave out palette if it holds numbers"
        )
    return np.array(image.convert("RGB"))  # alpha is dropped: a colour mixed with white would be another class
