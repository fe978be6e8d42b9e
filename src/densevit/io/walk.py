"""List the files below a folder, or inside a zip archive, once and within the budget."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from densevit.errors import DataError
from densevit.limits import limits, too_much
from densevit_runtime.io.zipped import ZipPath, names_in

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
"""Files and folders that file managers and archivers leave behind, besides hidden ones such as ``._a.jpg``."""


@dataclass(slots=True)
class Listing:
    """What is below a folder.

    Attributes:
        files: by path relative to the folder, with slashes and composed accents, in order; a second file of the same
            path has its accents as they are stored.
        folders: relative paths of folders that were not entered, as they are too deep.
        dangling: links to files that do not exist.
        devices: devices and pipes.
        litter: hidden files and folders, and others that file managers and archivers leave.
    """

    files: dict[str, Path] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    devices: list[Path] = field(default_factory=list)
    litter: list[Path] = field(default_factory=list)


def walk(root: Path, depth: int | None = None) -> Listing:
    """List the files below a folder or in an archive, down to a ``depth`` of subfolders; 0 is the folder itself.

    Links to folders are followed, except to a folder that they are in.

    Raises:
        DataError: a folder cannot be listed, or there are more files than ``limits`` accept.
    """
    found = Listing()
    stack: list[tuple[Path, str, int, tuple[tuple[int, int], ...]]] = [(root, "", 0, ())]
    seen = 0
    while stack:
        folder, prefix, level, above = stack.pop()
        try:
            entries = sorted(_entries(folder))
            status = folder.stat()
        except OSError as error:
            raise DataError(f"{folder} cannot be listed ({error.strerror}); check the permissions") from None
        own = (status.st_dev, status.st_ino)
        if own in above and not isinstance(folder, ZipPath):
            continue  # a link back to a folder around it
        seen += len(entries)
        if seen > limits().files:
            raise DataError(too_much(f"{root} has more than {limits().files:,} files and folders", "files"))
        below: list[tuple[Path, str, int, tuple[tuple[int, int], ...]]] = []
        for name, kind in entries:
            path, relative = folder / name, prefix + unicodedata.normalize("NFC", name)
            if is_litter(name):
                found.litter.append(path)
            elif kind == "file":
                _add(found.files, relative, path, root)
            elif kind == "folder" and depth is not None and level >= depth:
                found.folders.append(relative)
            elif kind == "folder":
                below.append((path, f"{relative}/", level + 1, (*above, own)))
            else:
                (found.dangling if kind == "dangling" else found.devices).append(path)
        stack += reversed(below)
    return found


def _add(files: dict[str, Path], relative: str, path: Path, root: Path) -> None:
    """Enter a file; of two of one path, that with composed accents has it."""
    other = files.setdefault(relative, path)
    if other is not path:
        written, before = (one.as_posix().removeprefix(root.as_posix()).lstrip("/") for one in (path, other))
        files |= {before: other, written: path}


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left by file managers and archivers."""
    return name.startswith(".") or name.casefold() in _LITTER


def _entries(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and kind of what a folder holds."""
    if isinstance(folder, ZipPath):
        yield from ((name, "folder" if is_dir else "file") for name, is_dir in names_in(folder))
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield entry.name, "folder"
            elif entry.is_file():
                yield entry.name, "file"
            else:
                yield entry.name, "dangling" if entry.is_symlink() else "device"
