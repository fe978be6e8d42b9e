"""Read masks: class numbers, colours, and single regions."""

import base64
import binascii
import io
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.errors import DataError
from densevit_runtime.io.decode import decode, guarded
from densevit_runtime.io.read import LOSSY_FORMATS, load_array
from densevit_runtime.io.zipped import place


def read_labels(path: Path, *, lossy: bool = False) -> NDArray[np.int32]:
    """Read a mask of class indices; EXIF orientation is applied as for the photo.

    Args:
        path: a lossless image with one channel: 8-bit grey, palette (the *indices* count, not the colours), 1-bit
            (0 and 1), 16-bit or 32-bit integers; or a ``.npy`` array (H, W) of integers, booleans
            or floats that are whole numbers.
        lossy: accept a JPEG too, whose numbers are not those that were saved.

    Returns:
        (H, W) int32.

    Raises:
        DataError: the errors of ``read_image``; colours, alpha or floats instead of indices; a JPEG.
    """
    path = place(path)
    if path.suffix.lower() != ".npy":
        return decode(path, partial(_to_labels, lossy=lossy))
    labels = load_array(path, "one (H, W) array of integers", lambda a: a.ndim == 2 and a.dtype.kind in "biuf")
    if labels.dtype.kind == "f" and not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        raise DataError(f"{path} holds {labels.dtype} with fractions or NaN; class numbers are accepted; round them")
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
