"""The rule for files that exist already: only what densevit wrote, and nobody has changed since, may be replaced.

Each folder with results has a manifest, a hidden text file with one JSON object a line: the name, size, SHA-256 and
time of every file that was written there. The last line about a name counts, and damaged lines are skipped. A file with
another time, such as a copy, is compared by its hash.
"""

import hashlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from densevit_runtime.errors import DataError

MANIFEST = ".outputs.densevit.jsonl"
"""Name of the manifest of a folder."""

TEMPORARY = ".densevit-"
"""Start of the names of unfinished files, which a later command removes if their process has died."""

_FOREIGN_AGE_S = 24 * 3600.0
"""Unfinished files of other machines are only removed from this age on, since their process cannot be asked."""

_LONGEST_LINE = 64 * 1024

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def claim(outputs: Iterable[Path], *, inputs: Sequence[Path] = (), overwrite: bool = False) -> None:
    """Check, before any work, that a command may write its outputs; remove what killed commands left next to them.

    Args:
        outputs: all files that the command will write.
        inputs: files and folders that it reads: neither is replaced, nor any file in such a folder that densevit did
            not write, whatever ``overwrite`` says.
        overwrite: files of others, and results that were edited, may be replaced too.

    Raises:
        DataError: one of them may not be replaced.
    """
    folders: dict[Path, list[Path]] = {}
    for output in outputs:
        target = Path(os.path.realpath(output))
        folders.setdefault(target.parent, []).append(target)
    refused: list[Path] = []
    for folder, targets in folders.items():
        present = _names(folder)
        remove_stale(folder, present)
        for target in targets:
            if target.name not in present or target.is_dir():  # the writer will say that a folder is in the way
                continue
            _refuse_input(target, inputs)
            if not may_replace(target):
                refused.append(target)
    if refused and not overwrite:
        raise DataError(refusal(refused))
    for target in filter(Path.is_file, refused):
        record(target)  # from here on it may be replaced


def may_replace(path: Path) -> bool:
    """Whether a file is as densevit wrote it; also where there is none."""
    entry = _manifest(path.parent).get(path.name)
    try:
        status = path.stat()
    except FileNotFoundError:
        return True
    if entry is None or entry.bytes != status.st_size:
        return False
    return entry.changed_ns == status.st_mtime_ns or entry.sha256 == file_sha256(path)


def record(path: Path) -> None:
    """Enter a finished file in the manifest of its folder."""
    status = path.stat()
    entry = _Entry(status.st_size, file_sha256(path), status.st_mtime_ns)
    line = json.dumps({"name": path.name, **asdict(entry)}) + "\n"
    with (path.parent / MANIFEST).open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else f"\n{line}"  # after a line that a crash has cut short
        file.write(line.encode())


def temporary_path(target: Path) -> Path:
    """A new name next to a file, which tells machine and process.

    The suffix stays, since some writers depend on it; the leading dot hides the file from ``find_images``.
    """
    return target.with_name(f"{TEMPORARY}{_HOST}-{os.getpid()}-{uuid.uuid4().hex}{target.suffix}")


def remove_stale(folder: Path, names: Iterable[str] | None = None) -> None:
    """Remove unfinished files of processes that have died."""
    for name in _names(folder) if names is None else names:
        if name.startswith(TEMPORARY) and not _is_alive(folder / name):
            with suppress(OSError):
                (folder / name).unlink()


def _is_alive(path: Path) -> bool:
    host, _, rest = path.name.removeprefix(TEMPORARY).partition("-")
    process = rest.partition("-")[0]
    if host != _HOST or not process.isdecimal() or os.name == "nt":  # where signal 0 would end the process
        try:
            return time.time() - path.stat().st_mtime < _FOREIGN_AGE_S
        except OSError:
            return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        pass
    return True


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 -- only names, of what may be 100,000 files
    except OSError:
        return set()


def _refuse_input(target: Path, inputs: Sequence[Path]) -> None:
    for source in inputs:
        real = Path(os.path.realpath(source))
        same = real == target or (real.is_file() and target.exists() and real.samefile(target))
        inside = not same and real in target.parents and real.is_dir() and not may_replace(target)
        if same or inside:
            where = "is" if same else f"is in {source}, which is"
            raise DataError(
                f"{target} {where} an input of this command, and inputs are never replaced; choose another output"
            )


def refusal(paths: Sequence[Path]) -> str:
    """The message about files that may not be replaced."""
    more = f" and {len(paths) - 1} more files exist" if len(paths) > 1 else " exists"
    return (
        f"{paths[0]}{more}, and densevit did not write what is there now; only its own unchanged results are replaced; "
        "choose another place, or pass --overwrite (overwrite=True)"
    )


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file as it was written."""

    bytes: int
    sha256: str
    changed_ns: int


@dataclass
class _Known:
    """What has been read of a manifest so far."""

    read: int = 0
    entries: dict[str, _Entry] = field(default_factory=dict)


_known: dict[Path, _Known] = {}


def _manifest(folder: Path) -> dict[str, _Entry]:
    """The entries by name; only lines that were added since the last call are read."""
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
    except OSError:
        _known.pop(folder, None)
        return {}
    known = _known.get(folder)
    if known is None or size < known.read:
        known = _known[folder] = _Known()
    if size > known.read:
        with path.open("rb") as file:
            file.seek(known.read)
            _read_lines(file, known)
    return known.entries


def _read_lines(file: IO[bytes], known: _Known) -> None:
    for line in iter(lambda: file.readline(_LONGEST_LINE), b""):
        if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:  # still being written
            break
        known.read += len(line)
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            known.entries[str(entry["name"])] = _Entry(
                int(entry["bytes"]), str(entry["sha256"]), int(entry.get("changed_ns", -1))
            )
