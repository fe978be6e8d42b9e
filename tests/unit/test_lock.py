"""Locks of folders: one process at a time, released however it ends, and no file is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from densevit.errors import ConfigError, DataError
from densevit.io import lock as module
from densevit.io.lock import LOCK, lock_folder

HOLDER = """
import sys, time
from pathlib import Path
from densevit.io.lock import lock_folder
with lock_folder(Path(sys.argv[1]), "wait"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that holds the lock of the folder until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_second_process__is_refused_and_told_of_the_first(holder: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"run is in use by process {holder.pid} on \S+; wait a bit"):
        lock_folder(tmp_path / "run", "wait a bit").__enter__()


def test_lock__is_free_after_the_end_and_leaves_no_file(holder: Any, tmp_path: Path) -> None:
    holder.communicate()
    assert list((tmp_path / "run").iterdir()) == []
    with lock_folder(tmp_path / "run", "wait"):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


def test_lock_of_a_killed_process__is_free(holder: Any, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_folder(tmp_path / "run", "wait"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_lock__is_not_held_by_a_forked_process(tmp_path: Path) -> None:
    with lock_folder(tmp_path / "run", "wait"):
        if (child := os.fork()) == 0:
            try:
                lock_folder(tmp_path / "run", "wait").__enter__()
            except ConfigError as error:
                os._exit(10 if f"process {os.getppid()} on" in str(error) else 11)
            os._exit(12)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
        with pytest.raises(ConfigError, match="is in use by this process"):
            lock_folder(tmp_path / "run", "wait").__enter__()


def test_error__releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), lock_folder(tmp_path, "wait"):
        raise KeyboardInterrupt
    with lock_folder(tmp_path, "wait"):
        pass


def test_lock_that_has_just_been_removed__is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = module._try_lock, []

    def remove_first(file: int) -> bool:
        calls.append(file)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()
        return real(file)

    monkeypatch.setattr(module, "_try_lock", remove_first)
    with lock_folder(tmp_path, "wait"):
        assert (tmp_path / LOCK).exists()
    assert len(calls) == 2


def test_lock_of_another_process__is_not_removed(tmp_path: Path) -> None:
    with lock_folder(tmp_path, "wait"):
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text("of another")
    assert (tmp_path / LOCK).read_text() == "of another"


@pytest.mark.parametrize("kind", ["folder", "link", "FIFO"])
def test_odd_file_in_the_place_of_the_lock__is_an_error_or_taken(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run" / LOCK
    path.parent.mkdir()
    (tmp_path / "precious").write_text("kept")
    {"folder": path.mkdir, "link": lambda: path.symlink_to(tmp_path / "precious"), "FIFO": lambda: os.mkfifo(path)}[
        kind
    ]()
    with pytest.raises(DataError, match=r"cannot be written \(.*\); choose another folder"):
        lock_folder(tmp_path / "run", "wait").__enter__()
    assert (tmp_path / "precious").read_text() == "kept"


def test_file_system_without_locks__is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(_file: int) -> None:
        raise OSError(module.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "_system_lock", lambda: unsupported)
    with lock_folder(tmp_path, "wait"):
        pass
    assert "has no locks (No locks available); start no second process here" in caplog.text
