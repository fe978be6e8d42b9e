"""Progress of a stream that survives a kill, and logits that do not fit into memory."""

import contextlib
import json
import logging
import os
import shutil
import struct
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.errors import DataError
from densevit.io import make_folder, write_json
from densevit.io.lock import LOCK
from densevit.io.raster_write import disk_error

_log = logging.getLogger(__name__)
_HEADER = struct.Struct("<IQI")
_DAMAGE = (OSError, ValueError, zlib.error, struct.error)


class StripStore:
    """Finished strips of blocks on disk; each strip is a file that appears whole or not at all.

    Args:
        folder: a hidden one next to the results; the caller holds its lock.
        key: everything that the strips depend on; strips made with another key are deleted.
        layout: index of a strip -> its blocks in order, each the number of an output and the bytes of its values.
    """

    def __init__(self, folder: Path, key: dict[str, Any], layout: Callable[[int], Sequence[tuple[int, int]]]) -> None:
        self.folder, self._layout = folder, layout
        make_folder(folder)
        known, wanted = _read_key(folder / "key.json"), json.loads(json.dumps(key))
        if known is not None and known != wanted:
            changed = sorted(name for name in wanted if known.get(name) != wanted[name])
            _log.warning("deleting an unfinished run with different %s; starting again", ", ".join(changed) or "keys")
        if known != wanted:
            self.remove()
            write_json(folder / "key.json", key, internal=True)
        for left in folder.glob("*.part"):
            _delete(left)

    def done(self) -> int:
        """Number of finished strips before the first that is missing or damaged; a damaged one is deleted."""
        count = 0
        while self._strip(count).exists():
            try:
                for _ in self._read(count):
                    pass
            except _DAMAGE as error:
                _log.warning("strip %d of the unfinished run is damaged (%s); computing it again", count + 1, error)
                _delete(self._strip(count))
                break
            count += 1
        return count

    def _strip(self, index: int) -> Path:
        return self.folder / f"{index:06d}.strip"

    @contextlib.contextmanager
    def strip(self, index: int) -> Iterator["StripWriter"]:
        """Write a strip; it is kept if the ``with`` block ends without an error."""
        path, part = self._strip(index), self._strip(index).with_suffix(".part")
        try:
            with part.open("wb") as file:
                yield StripWriter(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise disk_error(path, error) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def blocks(self, index: int, output: int) -> Iterator[bytes]:
        """The values of one output in a strip, block by block.

        Raises:
            DataError: the strip has been damaged since it was written or checked; it is deleted.
        """
        try:
            yield from self._read(index, output)
        except _DAMAGE as error:
            _delete(self._strip(index))
            raise DataError(
                f"{self._strip(index)} is damaged ({error}) and has been deleted; run the same command again, which "
                "computes it again"
            ) from error

    def _read(self, index: int, output: int | None = None) -> Iterator[bytes]:
        """The blocks of one output in a strip, or of all."""
        path = self._strip(index)
        left = path.stat().st_size
        with path.open("rb") as file:
            for expected, size in self._layout(index):
                number, length, check = _HEADER.unpack(file.read(_HEADER.size))
                left -= _HEADER.size + length
                if number != expected or left < 0:
                    raise ValueError("a block is missing or cut short")
                if output not in (None, number):
                    file.seek(length, os.SEEK_CUR)
                    continue
                data = zlib.decompressobj().decompress(file.read(length), size + 1)
                if len(data) != size or zlib.crc32(data) != check:
                    raise ValueError("a checksum is wrong")
                yield data
        if left:
            raise ValueError("it is too long")

    def remove(self) -> None:
        """Delete all strips, whose contents are in the results."""
        for path in self.folder.iterdir():
            if path.name != LOCK:
                _delete(path)


class StripWriter:
    """Appends blocks to a strip."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, output: int, values: NDArray[Any]) -> None:
        """Append a block of one output."""
        data = np.ascontiguousarray(values).tobytes()
        packed = zlib.compress(data, 1)
        self._file.write(_HEADER.pack(output, len(packed), zlib.crc32(data)) + packed)


def _delete(path: Path) -> None:
    """Delete a file, or whatever else has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _read_key(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class LogitCache:
    """Logits of windows by row and column: in memory up to a limit, beyond it in a scratch file with a cache.

    Args:
        folder: for the scratch file, which has no name and disappears with the process.
        limit: bytes of memory.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit
        self._memory: OrderedDict[tuple[int, int], Tensor] = OrderedDict()
        self._places: dict[tuple[int, int], int] = {}
        self._free: list[int] = []
        self._file: Any = None
        self._bytes = 0
        self._end = 0
        self.shape: tuple[int, ...] | None = None

    def put(self, index: tuple[int, int], logits: Tensor) -> None:
        """Keep the logits (K, h, w) float32 of a window; all windows have the same shape."""
        self.shape = tuple(logits.shape)
        size = logits.numel() * 4
        if self._file is None and self._bytes + size <= self._limit:
            self._memory[index] = logits
            self._bytes += size
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, prefix=".densevit-scratch-")  # noqa: SIM115 -- close()
                for key, held in self._memory.items():
                    self._write(key, held)
            self._write(index, logits)
        except OSError as error:
            raise disk_error(self._folder, error) from error

    def _write(self, index: tuple[int, int], logits: Tensor) -> None:
        data = logits.cpu().contiguous().numpy().tobytes()
        if not self._free:
            self._free.append(self._end)
            self._end += len(data)
        place = self._free.pop()
        self._file.seek(place)
        self._file.write(data)
        self._places[index] = place

    def get(self, i: int, j: int) -> Tensor | None:
        """The logits of a window; None if it was left out."""
        index = (i, j)
        if index in self._memory:
            self._memory.move_to_end(index)
            return self._memory[index]
        if index not in self._places:
            return None
        assert self.shape is not None
        size = int(np.prod(self.shape)) * 4
        self._file.seek(self._places[index])
        logits = torch.from_numpy(np.frombuffer(bytearray(self._file.read(size)), np.float32).reshape(self.shape))
        self._memory[index] = logits
        self._bytes += size
        while self._bytes > self._limit and len(self._memory) > 1:
            self._memory.popitem(last=False)  # what is evicted is in the file too
            self._bytes -= size
        return logits

    def drop_rows(self, below: int) -> None:
        """Forget the rows of windows before ``below``."""
        for index in [index for index in self._memory if index[0] < below]:
            self._bytes -= self._memory.pop(index).numel() * 4
        for index in [index for index in self._places if index[0] < below]:
            self._free.append(self._places.pop(index))

    def close(self) -> None:
        """Remove the scratch file."""
        if self._file is not None:
            self._file.close()
