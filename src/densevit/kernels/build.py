"""C sources of the package as libraries: compiled once, on the first use on a machine, and never required.

A library lies in the user's cache folder, under a name that tells source, compiler and processor. Without a C compiler,
or with ``DENSEVIT_NATIVE=0`` in the environment, the caller's form in torch does the same work more slowly.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_TUNING = ("-march=native", "-mcpu=native", "-O3")
"""Flags that fit the code to this processor, in order of preference; compilers differ in which they know."""

_SHARED = Path(__file__).with_name("vectors.h")
"""What the C files have in common."""

_log = logging.getLogger(__name__)


def library(source: Path, otherwise: str) -> ctypes.CDLL | None:
    """The library of a C file, or None where it cannot be had.

    Args:
        source: the file.
        otherwise: what happens without it, for the log.
    """
    if os.environ.get("DENSEVIT_NATIVE") == "0":
        return None
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        _log.info("no C compiler was found; %s", otherwise)
        return None
    for folder in _cache_folders():
        path = folder / f"{source.stem}-{_key(source, compiler)}.so"
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # not there, or damaged
            pass
        try:
            _compile(source, compiler, path)
            return ctypes.CDLL(str(path))
        except (OSError, subprocess.SubprocessError) as error:
            _log.debug("%s could not be built in %s: %s", source.name, folder, error)
    _log.warning("%s could not be built with %s; %s", source.name, compiler, otherwise)
    return None


def _compile(source: Path, compiler: str, path: Path) -> None:
    """Build the library beside its final name, then move it there: another process never sees half of it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        for tuning in _TUNING:
            flags = ["-O3", tuning, "-std=gnu99", "-fPIC", "-shared", f"-I{_SHARED.parent}"]
            command = [compiler, *flags, "-o", str(made), str(source), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if done.returncode == 0:
                made.replace(path)
                return
        raise subprocess.SubprocessError(done.stderr.strip()[-500:])


def _cache_folders() -> Iterator[Path]:
    """Where a library may lie: the user's cache folder, or, where that cannot be written, one for this process."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "densevit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        pass
    else:
        # What others may write must not be loaded as code.
        if os.access(folder, os.W_OK) and not folder.stat().st_mode & 0o022:
            yield folder
    yield Path(_own_folder().name)


@cache
def _own_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="densevit-")


def _key(source: Path, compiler: str) -> str:
    """Tells sources, compiler and processor, since a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    facts = (source.read_text(), _SHARED.read_text(), str(shutil.which(compiler)), platform.machine(), processor)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
