"""Folders from which compiled code may be loaded: only those that no other user can change.

Owners and permissions are POSIX; on Windows no library is built or loaded (see ``build.library``).
"""

import hashlib
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_PASSABLE_BY_OTHERS = stat.S_IXGRP | stat.S_IXOTH
_LARGEST = 64 * 2**20
"""Bytes: far more than a library of one C file has."""

_log = logging.getLogger(__name__)


def folders() -> Iterator[Path]:
    """The user's cache folder, then a temporary one of this process; each only if no other user can change it."""
    base = _cache_home()
    if base is not None:
        folder = Path(os.path.realpath(base / "densevit"))
        try:
            refusal = _reachable(folder.parent)
            if not refusal:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                refusal = _reachable(folder.parent) or _changeable(folder, folder.stat())
        except OSError as error:
            _log.debug("%s is not used: %s", folder, error)
        else:
            if not refusal:
                yield folder
            else:
                _warn(folder, refusal)
    try:
        temporary = Path(os.path.realpath(_temporary_folder().name))
        refusal = _reachable(temporary.parent) or _changeable(temporary, temporary.stat())
    except OSError as error:  # no temporary folder at all
        _log.debug("no temporary folder is used: %s", error)
        return
    if not refusal:
        yield temporary
    else:
        _warn(temporary, refusal)


def verified(path: Path) -> bool:
    """Whether a file whose name ends in ``-DIGEST.so`` is this user's, and is whole: loading part of one is a crash."""
    try:
        # Neither a link, which may leave the folder, nor a pipe, which would wait for a writer.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST or _changeable(path, status):
            return False
        return path.stem.endswith("-" + digest(file.read()))


def digest(content: bytes) -> str:
    """Identifies a library's content in its name."""
    return hashlib.sha256(content).hexdigest()[:32]


def _cache_home() -> Path | None:
    """``$XDG_CACHE_HOME`` or ``~/.cache``; None if neither is an absolute path, as for a user without a home."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the specification wants others to be ignored
        return given
    try:
        home = Path.home()
    except RuntimeError:  # neither $HOME nor an entry in the list of users
        return None
    return home / ".cache" if home.is_absolute() else None


def _changeable(path: Path, status: os.stat_result) -> str:
    """Why another user may change this folder or file, or nothing."""
    if status.st_uid != os.geteuid():
        return f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}"
    return f"{path} may be written by others" if status.st_mode & _WRITABLE_BY_OTHERS else ""


def _reachable(folder: Path) -> str:
    """Why another user may put another folder in the place of this one or of one above it, or nothing.

    Folders above may be root's. One that others may write is harmless if it is sticky, or inside one that they cannot
    enter. What does not exist yet is passed over.
    """
    entered = True
    for directory in reversed([folder, *folder.parents]):
        try:
            status = directory.lstat()
        except FileNotFoundError:
            return ""
        if status.st_uid not in (0, os.geteuid()):
            return _changeable(directory, status)
        if entered and status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
            return f"{directory} may be written by others"
        entered = entered and bool(status.st_mode & _PASSABLE_BY_OTHERS)
    return ""


@cache
def _warn(folder: Path, refusal: str) -> None:
    _log.warning("compiled kernels are not kept in %s: %s; name another folder in XDG_CACHE_HOME", folder, refusal)


@cache
def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="densevit-")
