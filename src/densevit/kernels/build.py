"""Compiles the package's C sources on first use, loads and runs them; a kernel that cannot be built is never required.

A library is kept in the user's cache folder under a name that identifies source, compiler and processor. Without a C
compiler, or with ``DENSEVIT_NATIVE=0`` in the environment, callers do the same work in torch, more slowly.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

POINTER, INT, LONG, FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]
"""Name of a C function -> type of its result (None for void) and of its arguments."""

_TUNING = ("-march=native", "-mcpu=native", "-O3")
"""Flags for this processor's instructions, in order of preference; compilers differ in which they accept."""

_SHARED = Path(__file__).with_name("vectors.h")
"""The header that all C files include."""

_log = logging.getLogger(__name__)


def library(source: Path, fallback: str, signatures: Signatures = MappingProxyType({})) -> ctypes.CDLL | None:
    """The compiled library of a C file, or None if it cannot be built.

    Args:
        source: the C file.
        fallback: what happens without the library, for the log.
        signatures: of the functions to be called; none to only load the library.
    """
    if os.environ.get("DENSEVIT_NATIVE") == "0":
        return None
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        _log.info("no C compiler was found; %s", fallback)
        return None
    for folder in _cache_folders():
        path = folder / f"{source.stem}-{_key(source, compiler)}.so"
        try:
            return _load(path, signatures)
        except OSError:  # missing or damaged
            pass
        try:
            _compile(source, compiler, path)
            return _load(path, signatures)
        except (OSError, subprocess.SubprocessError) as error:
            _log.debug("%s could not be built in %s: %s", source.name, folder, error)
    _log.warning("%s could not be built with %s; %s", source.name, compiler, fallback)
    return None


def address(tensor: Tensor, *index: int) -> int:
    """Address of the element at the given leading indices; the others are zero."""
    offset = sum(i * stride for i, stride in zip(index, tensor.stride(), strict=False))
    return tensor.data_ptr() + tensor.element_size() * offset


def parallel_for(
    body: Callable[[int, int], None], count: int, *, grain: int | None = None, max_threads: int | None = None
) -> None:
    """Call ``body(start, stop)`` for ranges that cover ``range(count)``, on torch's number of threads.

    ``body`` must spend its time in ctypes calls, which release the interpreter's lock. Each thread gets one equal
    share, or, with ``grain``, ranges of that length one after another, for iterations that differ in cost.
    """
    threads = min(torch.get_num_threads(), count, max_threads or count)
    if threads <= 1:
        body(0, count)
        return
    bounds = [count * i // threads for i in range(threads + 1)]
    if grain is not None:
        bounds = [*range(0, count, grain), count]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(body, bounds[:-1], bounds[1:]))


def _load(path: Path, signatures: Signatures) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


def _compile(source: Path, compiler: str, path: Path) -> None:
    """Build next to the final path, then rename, so that no other process ever loads half a file."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = Path(scratch) / path.name
        for tuning in _TUNING:
            flags = ["-O3", tuning, "-std=gnu99", "-fPIC", "-shared", f"-I{_SHARED.parent}"]
            command = [compiler, *flags, "-o", str(built), str(source), "-lm"]
            result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if result.returncode == 0:
                built.replace(path)
                return
        raise subprocess.SubprocessError(result.stderr.strip()[-500:])


def _cache_folders() -> Iterator[Path]:
    """Folders for the library: the user's cache, then, if that is not writable, a temporary one of this process."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "densevit"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        pass
    else:
        # Code must not be loaded from a folder that others may write to.
        if os.access(folder, os.W_OK) and not folder.stat().st_mode & 0o022:
            yield folder
    yield Path(_temporary_folder().name)


@cache
def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="densevit-")


def _key(source: Path, compiler: str) -> str:
    """Hash of sources, compiler and processor: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    parts = (source.read_text(), _SHARED.read_text(), str(shutil.which(compiler)), platform.machine(), processor)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
