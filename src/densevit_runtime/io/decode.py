"""Decode the first frame of an image file, or raise a ``DataError`` that says what is wrong with it."""

import logging
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from densevit_runtime.errors import DataError
from densevit_runtime.io.png import check_complete_png
from densevit_runtime.io.zipped import ZipPath
from densevit_runtime.limits import limits, too_much

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
}
"""Pillow's name of each accepted format -> its extensions, by which folders and globs are searched.

The list is short on purpose: each format has magic bytes, and none starts another program, as PostScript would.
"""

IMAGE_SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)

# EXIF tag 274: how to turn the stored pixels upright; 1 needs nothing.
_ORIENTATION_TAG = 274
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# First bytes of files that are often mistaken for photos.
_STRANGERS = {
    b"ftyphei": "a HEIC photo",
    b"ftypmif": "a HEIC photo",
    b"%PDF": "a PDF",
    b"<svg": "an SVG drawing",
    b"git-lfs": "a Git LFS pointer, so the real file was not fetched",
}
_ACCEPTED = "JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, PPM and JPEG 2000 are accepted"

SIXTEEN_BITS = "densevit: 16 bits"
"""Key of ``info`` that tells whether a decoded file has 16 bits for each channel."""

_log = logging.getLogger(__name__)
_limit_lock = threading.Lock()
_T = TypeVar("_T")


def decode(path: Path, convert: Callable[[Image.Image, str], _T]) -> _T:
    """Decode the first frame of ``path``, turn it upright and return ``convert(image, name)``.

    Raises:
        DataError: no such file, not an image of ``FORMATS``, damaged or cut short, or beyond ``limits``.
    """
    with guarded(path), open_image(path) as image:
        has_16_bits = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        image.load()
        image.info[SIXTEEN_BITS] = has_16_bits
        check_complete_png(image, path)
        result = convert(upright(image, str(path)), str(path))
    return result


def open_image(path: Path) -> Image.Image:
    """Read the header of an image file; its pixels are decoded later.

    Raises:
        DataError: no such file, not an image of ``FORMATS``, or beyond ``limits``.
    """
    require_file(path)
    # Pillow warns from 89 megapixels on and refuses 179. That limit is a global, so it is lifted for the moment, by one
    # thread at a time.
    with _limit_lock:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(path.open("rb") if isinstance(path, ZipPath) else path, formats=list(FORMATS))
        except UnidentifiedImageError as error:
            raise DataError(f"{path} is {_describe(path)}; {_ACCEPTED}; convert it or copy it again") from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    try:
        bits = 8 if image.mode == "1" else 1  # eight pixels of a bit each are a byte before compression
        check_pixels(path, (image.height, image.width), path.stat().st_size * bits)
    except DataError:
        image.close()
        raise
    return image


def check_pixels(name: object, size: tuple[int, int], stored_bytes: int | None = None) -> None:
    """Check the size that a file claims before its pixels take memory.

    Args:
        name: of the file, for the message.
        size: (H, W) as claimed.
        stored_bytes: of the file, which honest compression cannot undercut without end.

    Raises:
        DataError: no pixels, more than ``limits`` allow, or more than the file can hold.
    """
    height, width = size
    claim = f"{name} has {height} x {width} pixels"
    if min(height, width) < 1:
        raise DataError(f"{claim}; an image has at least one; copy or export it again")
    if height * width > limits().pixels:
        raise DataError(f"{too_much(claim, 'pixels')}, or scale it down or cut it into tiles")
    per_byte = limits().pixels_per_byte
    if stored_bytes is not None and height * width > max(limits().small_pixels, per_byte * stored_bytes):
        claim = f"{claim} in {stored_bytes:,} bytes, {height * width // max(stored_bytes, 1):,} for each"
        raise DataError(too_much(claim, "pixels_per_byte"))


def upright(image: Image.Image, name: str) -> Image.Image:
    """The loaded image with its EXIF orientation applied."""
    image.load()
    # Read after loading, because Pillow turns TIFFs while loading and then drops the tag.
    orientation = orientation_of(image, name)
    if orientation == 1:
        return image
    turned = image.transpose(UPRIGHT[orientation])
    turned.format = image.format
    return turned


def orientation_of(image: Image.Image, name: str = "") -> int:
    """EXIF orientation 1..8 of a loaded image; 1 if there is none, with a warning about ``name`` if it is damaged."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception as error:  # damaged metadata can raise anything; the pixels are still good
        if name:
            _log.warning("%s has damaged EXIF data (%s); it is assumed to be upright", name, reason(error))
        return 1
    return orientation if orientation in UPRIGHT else 1


def require_file(path: Path) -> None:
    """Make sure that ``path`` is a file with content.

    Raises:
        DataError: it is not.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        raise DataError(f"{path} cannot be read ({reason(error)}); check path and permissions") from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{path} is a folder, not a file; name a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is a device or a pipe, not a file; save it to a file first")
    if status.st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); copy or download it again")


@contextmanager
def guarded(name: object, accepted: str = "") -> Iterator[None]:
    """Turn any error of a decoder into a ``DataError`` about the damaged file."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{name} does not fit in memory; scale it down") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        expected = f"{accepted} is accepted; " if accepted else ""
        raise DataError(f"{name} is damaged or cut short ({reason(error)}); {expected}copy it again") from error


def reason(error: BaseException) -> str:
    """The text of an error, without the path that an ``OSError`` repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _describe(path: Path) -> str:
    """What a file that is not an image seems to be, by its first bytes."""
    with path.open("rb") as file:
        start = file.read(64)
    for mark, name in _STRANGERS.items():
        if mark in start:
            return name
    if start.isascii() and start.decode().replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
        return f"a text file that begins with {start.decode()[:20]!r}"
    return "not an image, or its first bytes are damaged"
