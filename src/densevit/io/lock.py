"""A folder that only one process writes to: the system releases its lock when the process ends, however it ends."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, EAGAIN, EDEADLK, ENOLCK, ENOSYS, EOPNOTSUPP
from logging import getLogger
from pathlib import Path

from densevit.errors import ConfigError, DataError
from densevit_runtime.io.decode import reason
from densevit_runtime.io.write import make_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""The file with the name of the process that holds the lock; it exists only while the folder is in use."""
_TAKEN = {EACCES, EAGAIN, EDEADLK}
_UNSUPPORTED = {ENOLCK, ENOSYS, EOPNOTSUPP}
_FAR = 2**30
"""On Windows a locked byte cannot be read, so one beyond the text is locked."""
_log = getLogger(__name__)
_held: set[tuple[int, Path]] = set()  # POSIX locks belong to a process, and exclude no other thread of it
_held_guard = threading.Lock()
_POLL_S = 0.2


@contextmanager
def lock_folder(folder: Path, advice: str) -> Iterator[None]:
    """Hold the lock of a folder, which is made if necessary; processes that are forked meanwhile do not hold it.

    Where the file system has no locks, a warning says so and the block runs without.

    Args:
        folder: what this process writes to.
        advice: what to do when another process holds the lock.

    Raises:
        ConfigError: another process holds it.
        DataError: the lock cannot be written.
    """
    me, path = (os.getpid(), folder.resolve()), folder / LOCK
    with _held_guard:
        if me in _held:
            raise _in_use(folder, "this process", advice)
        _held.add(me)
    try:
        file = _open_locked(folder, path, advice)
    except BaseException as error:
        _held.discard(me)
        if isinstance(error, OSError):
            raise DataError(f"{path} cannot be written ({reason(error)}); choose another folder") from error
        raise
    try:
        yield
    finally:
        if os.getpid() == me[0] and _is_current(file, path):  # a forked process does not release its parent's lock
            with suppress(OSError):
                path.unlink()  # while it is locked: another process that opens it now will find that it is gone
        os.close(file)
        with suppress(OSError):  # Windows does not remove an open file
            if fcntl is None:
                path.unlink()
        _held.discard(me)  # last, since closing any handle of the file releases the locks of all threads


@contextmanager
def wait_for_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder as ``lock_folder`` does, after whoever holds it has released it.

    Raises:
        DataError: the lock cannot be written.
    """
    said = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder, "waiting until it ends"))
                break
            except ConfigError as error:
                if not said:
                    _log.info("%s", error)
                said = True
                time.sleep(_POLL_S)
        yield


def _open_locked(folder: Path, path: Path, advice: str) -> int:
    while True:
        make_folder(folder)
        file = os.open(
            path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o644
        )
        try:
            if not _try_lock(file):
                holder = os.read(file, 200).decode(errors="replace")
                raise _in_use(folder, "".join(c for c in holder if c.isprintable()) or "another process", advice)
            if _is_current(file, path):
                os.truncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # the process that held it has just removed it


def _is_current(file: int, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(file), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def _try_lock(file: int) -> bool:
    try:
        _system_lock()(file)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno not in _UNSUPPORTED:
            raise
        _log.warning("this file system has no locks (%s); start no second process here", reason(error))
    return True


def _system_lock() -> Callable[[int], None]:
    if fcntl is not None:
        return lambda file: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    import msvcrt

    def lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        os.lseek(file, 0, os.SEEK_SET)

    return lock


def _in_use(folder: Path, holder: str, advice: str) -> ConfigError:
    return ConfigError(f"{folder} is in use by {holder}; {advice}")
