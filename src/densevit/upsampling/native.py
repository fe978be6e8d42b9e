"""The C kernel of ``decode.c``: compiled once, on the first use on a machine, and never required.

The library lies in the user's cache folder, under a name that tells source, compiler and processor. Without a C
compiler, or with ``DENSEVIT_NATIVE=0`` in the environment, the plain torch form does the same work more slowly.
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
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.upsampling.neighbours import neighbours

_SOURCE = Path(__file__).with_name("decode.c")
_TUNING = ("-march=native", "-mcpu=native", "-O3")
"""Flags that fit the code to this processor, in order of preference; compilers differ in which they know."""

_PER_THREAD = 2_000_000
"""Values, pixels times classes, below which another thread does not pay."""

_log = logging.getLogger(__name__)


def decode(
    logits: Tensor, *, align_corners: bool, labels: Tensor, scores: Tensor | None, entropy: Tensor | None
) -> bool:
    """Fill labels (H, W), and scores and entropy (H, W) where given, from logits (K, h, w) on the CPU.

    Returns:
        False, and nothing is filled, where there is no kernel.
    """
    library = load()
    if library is None or logits.requires_grad:
        return False
    source = logits.float()
    classes, height, width = (source.shape[0], *labels.shape)
    lanes = library.densevit_lanes()
    padded = -(-classes // lanes) * lanes
    y0, y1, wy = neighbours(source.shape[1], height, align_corners, source.device)
    x0, x1, wx = neighbours(source.shape[2], width, align_corners, source.device)
    small = labels.dtype == torch.uint8

    def rows(first: int, last: int) -> None:
        line = torch.empty(source.shape[2] * padded)
        library.densevit_decode(
            *(_at(source), source.stride(0), source.stride(1), source.stride(2)),
            *(source.shape[2], classes, padded, width),
            *map(_at, (y0, y1, wy, x0, x1, wx)),
            *(first, last, _at(line), _at(labels if small else None), _at(None if small else labels)),
            *(_at(scores), _at(entropy)),
        )

    threads = min(torch.get_num_threads(), height, max(1, height * width * classes // _PER_THREAD))
    if threads == 1:
        rows(0, height)
        return True
    bounds = [height * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        list(pool.map(rows, bounds[:-1], bounds[1:]))
    return True


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    if os.environ.get("DENSEVIT_NATIVE") == "0":
        return None
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        _log.info("no C compiler was found; upsampling runs in plain torch, which is slower")
        return None
    for folder in _cache_folders():
        path = folder / f"decode-{_key(compiler)}.so"
        try:
            return _opened(path)
        except OSError:  # not there, or damaged
            pass
        try:
            _compile(compiler, path)
            return _opened(path)
        except (OSError, subprocess.SubprocessError) as error:
            _log.debug("the C kernel could not be built in %s: %s", folder, error)
    _log.warning("the C kernel could not be built with %s; upsampling runs in plain torch, which is slower", compiler)
    return None


def _opened(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    arguments: list[Any] = [pointer, *[long] * 3, *[integer] * 4, *[pointer] * 6, *[integer] * 2, *[pointer] * 5]
    library.densevit_lanes.restype = integer
    library.densevit_decode.restype, library.densevit_decode.argtypes = None, arguments
    return library


def _compile(compiler: str, path: Path) -> None:
    """Build the library beside its final name, then move it there: another process never sees half of it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        for tuning in _TUNING:
            command = [compiler, "-O3", tuning, "-std=gnu99", "-fPIC", "-shared", "-o", str(made), str(_SOURCE), "-lm"]
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


def _key(compiler: str) -> str:
    """Tells source, compiler and processor, since a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    facts = (_SOURCE.read_text(), str(shutil.which(compiler)), platform.machine(), processor)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
