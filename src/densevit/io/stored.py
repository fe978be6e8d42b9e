"""Files as stored, before readers turn or refuse anything, for checks; and resizing by Pillow."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.errors import DataError
from densevit.types import Size
from densevit_runtime.io.decode import guarded, open_image, orientation_of
from densevit_runtime.io.png import check_complete_png
from densevit_runtime.io.read import as_image, load_array


@dataclass(frozen=True, slots=True)
class Stored:
    """The content of an image file or array as stored.

    Attributes:
        format: Pillow's name of the format, or ``NPY``.
        mode: Pillow's mode, or the dtype of an array.
        orientation: EXIF orientation 1..8; 1 if there is none.
        frames: number of frames in the file; the first is read.
        pixels: (H, W) or (H, W, channels); indices if there is a palette.
        palette: (n, 3) uint8 colours of the indices, or None.
    """

    format: str
    mode: str
    orientation: int
    frames: int
    pixels: NDArray[Any]
    palette: NDArray[np.uint8] | None = None

    @property
    def size(self) -> Size:
        """(H, W) as stored."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    @property
    def upright_size(self) -> Size:
        """(H, W) with the EXIF orientation applied, as readers return it."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def read_stored(path: Path) -> Stored:
    """Read an image or a ``.npy`` array without turning or converting it.

    Raises:
        DataError: no such file, no image or array, damaged or cut short, too large.
    """
    if path.suffix.lower() == ".npy":
        array = load_array(path, "one (H, W) or (H, W, K) array", lambda array: array.ndim in {2, 3})
        return Stored("NPY", str(array.dtype), 1, 1, array)
    return _with_photo(path, photo=False)[0]


def read_numbers(path: Path) -> Stored:
    """An image or array as it is stored.

    Raises:
        DataError: it cannot be read, or holds no real numbers, such as text.
    """
    stored = read_stored(path)
    if stored.pixels.dtype.kind not in "biuf" or not stored.pixels.size:
        raise DataError(f"{path} holds {stored.pixels.dtype} {stored.pixels.shape}; real numbers are accepted")
    return stored


def read_stored_photo(path: Path) -> tuple[Stored, NDArray[np.uint8]]:
    """The file as stored and the upright (H, W, 3) uint8 photo of ``read_image``, decoded once.

    Raises:
        DataError: as ``read_image``.
    """
    return _with_photo(path, photo=True)


def _with_photo(path: Path, *, photo: bool) -> tuple[Stored, NDArray[np.uint8]]:
    with guarded(path), open_image(path) as image:
        name, frames = image.format or "", int(getattr(image, "n_frames", 1))
        image.load()
        check_complete_png(image, path)
        rgb = as_image(image) if photo else np.zeros((0, 0, 3), np.uint8)
        pixels = np.asarray(image)
        stored = Stored(name, image.mode, orientation_of(image), frames, pixels, _palette(image))
    return stored, rgb


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels (H, W) or (H, W, channels) by an EXIF orientation of 1..8."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def shrink(pixels: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """Resize (H, W) or (H, W, 3) uint8; each pixel is the mean of those that it covers."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BOX, reducing_gap=3.0))


def resize_pillow(image: NDArray[np.uint8], size: Size, filter_name: str) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) -> uint8 (*size, 3) by Pillow's filter of that name, such as "bicubic"."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling[filter_name.upper()]))


def to_grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) RGB -> (H, W) luma."""
    return np.asarray(Image.fromarray(image).convert("L"))


def resize_nearest(pixels: NDArray[Any], size: Size) -> NDArray[Any]:
    """(H, W, ...) -> (*size, ...); each pixel takes the value under its centre."""
    rows = ((np.arange(size[0]) + 0.5) * pixels.shape[0] / size[0]).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * pixels.shape[1] / size[1]).astype(np.int64)
    return pixels[rows][:, columns]


def data_uri(picture: NDArray[np.uint8], *, kind: Literal["JPEG", "PNG"] = "JPEG") -> str:
    """(H, W, 3) uint8 as a data URI, for pages that contain their pictures."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format=kind, quality=85)  # PNG ignores the quality
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _palette(image: Image.Image) -> NDArray[np.uint8] | None:
    if image.mode != "P":
        return None
    colours = np.array(image.getpalette("RGB") or [], np.uint8)
    return colours[: colours.size // 3 * 3].reshape(-1, 3)
