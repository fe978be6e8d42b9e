"""Write files atomically: they appear complete or not at all."""

import errno
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit_runtime.errors import DataError, OutputError
from densevit_runtime.io.decode import reason
from densevit_runtime.io.outputs import may_replace, record, refusal, temporary_path

_SURROGATE = re.compile("[\ud800-\udfff]")

_EVERYWHERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
"""Errors that the next file would meet too."""


def write_png(path: Path, array: NDArray[Any]) -> None:
    """Write (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB, as PNG.

    Raises:
        DataError: another shape or dtype; the file cannot be written.
    """
    kinds = {(2, np.dtype(np.uint8)), (2, np.dtype(np.uint16)), (3, np.dtype(np.uint8))}
    if (array.ndim, array.dtype) not in kinds or array.size == 0 or array.shape[2:] not in {(), (3,)}:
        raise DataError(
            f"{path} would hold an array {array.shape} of {array.dtype}; a PNG takes (H, W) uint8 or uint16, or"
            " (H, W, 3) uint8"
        )
    _save_png(path, Image.fromarray(np.ascontiguousarray(array)))


def write_jpeg(path: Path, array: NDArray[np.uint8], *, quality: int = 95) -> None:
    """Write (H, W, 3) uint8 RGB as JPEG.

    Raises:
        DataError: the file cannot be written.
    """
    write_bytes_atomic(path, encode_jpeg(array, quality=quality))


def encode_jpeg(array: NDArray[np.uint8], *, quality: int = 95) -> bytes:
    """(H, W, 3) uint8 RGB as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def write_labels(path: Path, labels: NDArray[Any], palette: Sequence[Sequence[int]] | NDArray[np.uint8]) -> None:
    """Write class indices as an indexed PNG, or as 16-bit grey without colours if there are more than 256 classes.

    Args:
        path: the PNG.
        labels: (H, W) integers, 0 <= label < len(palette), or 255 (ignore), which is shown in black; of more than 256
            classes, 65535 is ignore.
        palette: (K, 3) RGB colours 0..255, one per class.

    Raises:
        DataError: labels out of range or not (H, W) integers; the file cannot be written.
    """
    num_colours = len(palette)
    ignore = 255 if num_colours <= 256 else 65535
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{path} would hold labels {labels.shape} of {labels.dtype}; (H, W) integers are accepted; take the arg max"
        )
    unknown = labels[(labels < 0) | ((labels >= num_colours) & (labels != ignore))]
    if unknown.size or num_colours > 65535:
        label = unknown[0] if unknown.size else num_colours - 1
        raise DataError(
            f"{path} would hold label {label}; 0 to {min(num_colours, 65535) - 1} (a palette of {num_colours} colours)"
            f" and {ignore} (ignore) are accepted; check the class names and the palette"
        )
    if num_colours > 256:
        write_png(path, labels.astype(np.uint16))
        return
    image = Image.fromarray(labels.astype(np.uint8))
    # Always 256 colours: Pillow packs a shorter palette into fewer bits per pixel, which would lose label 255.
    colours = np.zeros((256, 3), np.uint8)
    colours[:num_colours] = np.asarray(palette, np.uint8).reshape(num_colours, 3)
    image.putpalette(colours.tobytes())
    _save_png(path, image)


def write_depth_mm(path: Path, depth_m: NDArray[Any]) -> None:
    """Write a depth map as 16-bit PNG in millimetres.

    Args:
        path: the PNG.
        depth_m: (H, W) metres; clipped to 0..65.535, NaN and infinity become 0 (no measurement).

    Raises:
        DataError: not (H, W); the file cannot be written.
    """
    millimetres = np.nan_to_num(np.asarray(depth_m, np.float64) * 1000, nan=0.0, posinf=0.0, neginf=0.0)
    write_png(path, np.rint(millimetres.clip(0, 65535)).astype(np.uint16))


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write one array of numbers as ``.npy``.

    Raises:
        DataError: an array of objects; the file cannot be written.
    """
    if array.dtype.hasobject:
        raise DataError(f"{path} would hold an array of {array.dtype}; numbers are accepted")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_json(path: Path, obj: object, *, internal: bool = False) -> None:
    """Write strict JSON, indented by two, as ``to_json`` does; see ``atomic_path``.

    Raises:
        DataError: the file cannot be written.
    """
    write_bytes_atomic(path, (to_json(obj, indent=2) + "\n").encode(), internal=internal)


def to_json(obj: object, *, indent: int | None = None) -> str:
    """Strict JSON: numpy values become numbers and lists, paths become strings, NaN and infinity null.

    Bytes of file names that are not UTF-8, which Python holds as lone surrogates, are escaped and survive a round trip.
    """
    text = json.dumps(_plain(obj), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def write_bytes_atomic(path: Path, data: bytes, *, internal: bool = False) -> None:
    """Write a file atomically; see ``atomic_path``.

    Raises:
        DataError: the file cannot be written.
    """
    with atomic_path(path, internal=internal) as temporary:
        temporary.write_bytes(data)


def link_or_copy(source: Path, path: Path) -> None:
    """Give a file a second name in its folder, as a hard link, or as a copy where the file system has no links.

    Raises:
        DataError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file, which is created if necessary.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and its parents, unless they exist.

    Raises:
        DataError: it cannot be made, for example because a file has its name.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"folder {path} cannot be made ({reason(error)}); choose another name or fix the permissions"
        ) from error


@contextmanager
def atomic_path(path: Path, *, sync: bool = False, internal: bool = False) -> Iterator[Path]:
    """Yield the name of a temporary file next to ``path``, which replaces ``path`` when the block succeeds.

    An error in the block leaves ``path`` unchanged and no partial file. Missing parent folders are made.

    Args:
        path: the file to write; a link is followed.
        sync: wait until the data is on the disk, so that a power cut cannot lose it (for checkpoints).
        internal: the file is in a folder of densevit's own, such as a cache, so any earlier one is replaced; others
            are recorded, and replaced if they are as recorded (``densevit_runtime.io.outputs``).

    Raises:
        DataError: a file that densevit did not write is in the way.
        OutputError: any ``OSError`` in the block or from the file system: disk full, no permission.
    """
    # Otherwise a link such as /dev/stdout would itself be replaced.
    target = Path(os.path.realpath(path))
    temporary = temporary_path(target)
    try:
        if target.exists() and not target.is_file():
            raise DataError(f"{path} is a folder or a device; choose the name of a file")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not internal and not may_replace(target):
            raise DataError(refusal([target]))
        temporary.touch()
        mode = temporary.stat().st_mode  # as the umask grants it; some writers (safetensors) grant only the owner
        yield temporary
        temporary.chmod(mode)
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
        if not internal:
            record(target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path} cannot be written ({reason(error)}); choose another place or free some space",
        everywhere=error.errno in _EVERYWHERE or "No space left" in str(error),
    )


def _save_png(path: Path, image: Image.Image) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _plain(obj: object) -> Any:
    """Convert ``obj`` to the types of JSON."""
    match obj:
        case dict():
            return {str(key): _plain(value) for key, value in obj.items()}
        case list() | tuple():
            return [_plain(value) for value in obj]
        case np.ndarray() | np.generic():
            return _plain(obj.tolist())
        case float():
            return obj if math.isfinite(obj) else None
        case Path():
            return str(obj)
    return obj
