"""Files inside zip archives, read in place by paths such as ``data.zip!/images/train/a.jpg``."""

import io
import os
import stat
import zipfile
from collections.abc import Generator
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from densevit_runtime.errors import DataError

MAX_FILE_BYTES = 4 * 2**30
"""Largest file that is unpacked into memory, by the size that the archive states."""

MAX_RATIO = 1100
"""Largest compression ratio of files of more than a few megabytes; deflate reaches 1032."""

MAX_ENTRIES = 5_000_000
"""Most files of an archive, whose list is kept in memory."""

_BAR = "!"
_SMALL = 16 * 2**20

# Before Python 3.12, only the concrete class of Path can be a base.
if TYPE_CHECKING:
    _Base = Path
else:
    _Base = type(Path())


class ZipPath(_Base):
    """A path into an archive, whose name is followed by ``!``.

    It holds only its text, so it can be pickled and sent to worker processes; archives are opened once per process.
    Reading works as with other paths; writing does not.
    """

    __slots__ = ()

    @property
    def archive(self) -> Path:
        """The archive on disk."""
        return Path(str(self)[: self._bar()])

    @property
    def inside(self) -> str:
        """The name inside the archive; empty for the archive as a whole."""
        return str(self)[self._bar() + 1 :].replace(os.sep, "/").strip("/")

    def _bar(self) -> int:
        return str(self).lower().index(f".zip{_BAR}") + len(".zip")

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind and size; the time is the archive's."""
        index = _index(self.archive)
        if self.inside in index.files:
            mode, size = stat.S_IFREG | 0o444, index.files[self.inside].file_size
        elif self.inside in index.folders:
            mode, size = stat.S_IFDIR | 0o555, 0
        else:
            raise FileNotFoundError(2, "No such file in the archive", str(self))
        time = self.archive.stat().st_mtime
        return os.stat_result((mode, 0, 0, 1, 0, 0, size, time, time, time))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such a file or folder."""
        return self.is_file() or self.is_dir()

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return self.archive.is_file() and self.inside in _index(self.archive).files

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return self.archive.is_file() and self.inside in _index(self.archive).folders

    def iterdir(self) -> Generator["ZipPath", None, None]:
        """What a folder holds."""
        names = _index(self.archive).folders.get(self.inside)
        if names is None:
            raise FileNotFoundError(2, "No such folder in the archive", str(self))
        return (self / name for name in sorted(names))

    def expanduser(self) -> "ZipPath":
        """The same path with the archive's ``~`` replaced."""
        return ZipPath(f"{self.archive.expanduser()}{_BAR}") / self.inside

    def read_bytes(self) -> bytes:
        """The content, checked against its checksum.

        Raises:
            DataError: damaged, encrypted, packed by an unknown method, or suspiciously large.
        """
        index = _index(self.archive)
        entry = index.files.get(self.inside)
        if entry is None:
            raise FileNotFoundError(2, "No such file in the archive", str(self))
        _refuse_bombs(entry, str(self))
        try:
            return index.zip.read(entry)
        except (RuntimeError, NotImplementedError) as error:  # a password, or an exotic compression
            raise DataError(
                f"{self} cannot be unpacked ({error}); archives without password, with deflate or no compression, are "
                "accepted"
            ) from error
        except Exception as error:  # among them zlib.error and lzma.LZMAError, which not every build has
            raise DataError(f"{self} is damaged or cut short ({error}); copy the archive again") from error

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        """The content as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *_: Any, encoding: str | None = None, **__: Any) -> IO[Any]:  # type: ignore[override]
        """The content as a file in memory."""
        if set(mode) - set("rbt"):
            raise OSError(30, "Archives are read only", str(self))
        return io.BytesIO(self.read_bytes()) if "b" in mode else io.StringIO(self.read_text(encoding))


def names_in(folder: ZipPath) -> list[tuple[str, bool]]:
    """The names in a folder of an archive, and whether each is a folder; for long listings."""
    index, inside = _index(folder.archive), folder.inside
    if inside not in index.folders:
        raise FileNotFoundError(2, "No such folder in the archive", str(folder))
    prefix = f"{inside}/" if inside else ""
    return [(name, f"{prefix}{name}" in index.folders) for name in index.folders[inside]]


def place(path: str | Path) -> Path:
    """The path, as a ``ZipPath`` if it names an archive: ``data.zip``, or ``data.zip!/images/train``.

    Folders with such names stay plain paths.
    """
    if isinstance(path, ZipPath):
        return path
    path = Path(path)
    text = str(path)
    if ".zip" not in text.lower() or path.is_dir():
        return path
    if text.lower().endswith(".zip"):
        return ZipPath(text + _BAR)
    return ZipPath(text) if f".zip{_BAR}" in text.lower() else path


class _Index:
    """An open archive with its files by name, and the names in each folder."""

    def __init__(self, archive: Path) -> None:
        try:
            self.zip = zipfile.ZipFile(archive)
            entries = self.zip.infolist()
        except FileNotFoundError as error:
            raise DataError(f"{archive} does not exist; check the path") from error
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{archive} is not a zip archive, or damaged ({error}); copy it again") from error
        if len(entries) > MAX_ENTRIES:
            raise DataError(
                f"{archive} holds {len(entries):,} files; up to {MAX_ENTRIES:,} are accepted; unpack it or split it"
            )
        # Some programs for Windows write backslashes.
        named = [(entry.filename.replace("\\", "/").removeprefix("./"), entry) for entry in entries]
        self.files = {name.strip("/"): entry for name, entry in named if not name.endswith("/")}
        self.folders: dict[str, set[str]] = {"": set()}
        for name, _ in named:
            self._add(name.strip("/"), name.endswith("/"))

    def _add(self, name: str, is_folder: bool) -> None:
        if is_folder:
            self.folders.setdefault(name, set())
        while name:
            parent, _, last = name.rpartition("/")
            known = self.folders.get(parent)
            if known is not None and last in known:
                return
            self.folders.setdefault(parent, set()).add(last)
            name = parent


def _index(archive: Path) -> _Index:
    """The index of an archive in this process; read again when the file has changed.

    The process is part of the key, since parent and child would share one file position after a fork.
    """
    try:
        status = archive.stat()
        stamp = (status.st_mtime_ns, status.st_size)
    except OSError:
        stamp = (0, 0)
    return _read_index(archive, stamp, os.getpid())


@lru_cache(maxsize=16)
def _read_index(archive: Path, stamp: tuple[int, int], process: int) -> _Index:
    return _Index(archive)


def _refuse_bombs(entry: zipfile.ZipInfo, name: str) -> None:
    ratio = entry.file_size / max(entry.compress_size, 1)
    if entry.file_size > MAX_FILE_BYTES or (entry.file_size > _SMALL and ratio > MAX_RATIO):
        raise DataError(
            f"{name} would unpack to {entry.file_size:,} bytes from {entry.compress_size:,}; up to {MAX_FILE_BYTES:,} "
            f"bytes and a ratio of {MAX_RATIO} are accepted; check where the archive comes from"
        )
