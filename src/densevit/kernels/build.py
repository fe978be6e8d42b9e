"""Compiles the package's C sources on first use, loads and runs them; a kernel that cannot be built is never required.

A library is kept in the user's cache folder under a name that identifies source, flags, compiler and processor, and
ends in a hash of its content. It is loaded only if no other user can change it and the hash is right; else it is built
again, or in a temporary folder. Without a C compiler, on Windows, which has no such owners and permissions, or with
``DENSEVIT_NATIVE=0`` in the environment, callers do the same work in torch, more slowly. ``DENSEVIT_NATIVE_FLAGS`` adds
flags for the compiler, such as those of a sanitizer.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.kernels.cache import digest, folders, verified

POINTER, INT, LONG, FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float

MAX_SIZE = 2**30
"""The C code counts in 32 bits, and rounds sizes up."""

Signatures = Mapping[str, tuple[Any, Sequence[Any]]]
"""Name of a C function -> type of its result (None for void) and of its arguments."""

_TUNING = ("-march=native", "-mcpu=native", "-O3")
"""Flags for this processor's instructions, in order of preference; compilers differ in which they accept."""

_TIMEOUT_S = 30.0
"""For one C file, which takes a second or two; a compiler that needed longer is not asked again by this process."""
_hanging: set[str] = set()

_HEADERS = tuple(sorted(Path(__file__).parent.rglob("*.h")))
"""What C files of the package may include."""

_log = logging.getLogger(__name__)


def library(source: Path, fallback: str, signatures: Signatures = MappingProxyType({})) -> ctypes.CDLL | None:
    """The compiled library of a C file, or None if it cannot be built.

    Args:
        source: the C file.
        fallback: what happens without the library, for the log.
        signatures: of the functions to be called; none to only load the library.
    """
    if os.environ.get("DENSEVIT_NATIVE") == "0" or sys.platform == "win32":
        return None
    compiler = next((c for c in (os.environ.get("CC"), "cc", "gcc", "clang") if c and shutil.which(c)), None)
    if compiler is None:
        _log.info("no C compiler was found; %s", fallback)
        return None
    try:
        flags = shlex.split(os.environ.get("DENSEVIT_NATIVE_FLAGS", ""))
        name = f"{source.stem}-{_key(source, compiler, flags)}"
    except (OSError, ValueError) as error:  # no such source; flags with an open quote
        _log.warning("%s could not be built: %s; %s", source.name, error, fallback)
        return None
    for folder in folders():
        for path in sorted(folder.glob(f"{name}-*.so")):
            kept = _load(path, signatures)
            if kept is not None:
                return kept
        try:
            built = _load(_compile(source, compiler, flags, folder, name), signatures)
        except (OSError, subprocess.SubprocessError) as error:
            _log.debug("%s could not be built in %s: %s", source.name, folder, error)
        else:
            if built is not None:
                return built
    _log.warning("%s could not be built with %s; %s", source.name, compiler, fallback)
    return None


def countable(*tensors: Tensor) -> bool:
    """Whether all sizes are 1 to ``MAX_SIZE``."""
    return all(1 <= size <= MAX_SIZE for tensor in tensors for size in tensor.shape)


def checked(tensor: Tensor, dtype: torch.dtype, *shape: int, contiguous: bool = True) -> Tensor:
    """The same tensor, if C may take it for an array of this type and shape; ``address`` and ``data_ptr`` ask nothing.

    Raises:
        ShapeError: if it may not.
    """
    plain = tensor.device.type == "cpu" and tensor.layout == torch.strided
    if plain and (tensor.dtype, tuple(tensor.shape)) == (dtype, shape) and (tensor.is_contiguous() or not contiguous):
        return tensor
    raise ShapeError(
        f"a kernel was given {tensor.dtype} {tuple(tensor.shape)} on {tensor.device} but takes {dtype} {shape}, "
        f"{'contiguous ' if contiguous else ''}on the CPU; pass such a tensor"
    )


def rows_of(x: Tensor, width: int) -> Tensor:
    """(..., width) float32 as (rows, width) whose rows are contiguous; copied only where that is necessary.

    Raises:
        ShapeError: if x has another width, or is not float32 on the CPU.
    """
    rows = x.reshape(-1, x.shape[-1])
    rows = rows if rows.stride(-1) == 1 or width == 1 else rows.contiguous()
    return checked(rows, torch.float32, len(rows), width, contiguous=False)


def address(tensor: Tensor, *index: int) -> int:
    """Address of the element at the given leading indices; the others are zero."""
    offset = sum(i * stride for i, stride in zip(index, tensor.stride(), strict=False))
    return tensor.data_ptr() + tensor.element_size() * offset


def _load(path: Path, signatures: Signatures) -> ctypes.CDLL | None:
    """The library, or None, with the file removed, if it is damaged, of another user, or without a function."""
    try:
        if verified(path):
            loaded = ctypes.CDLL(str(path))
            for name, (result, arguments) in signatures.items():
                function = getattr(loaded, name)
                function.restype = result
                function.argtypes = arguments
            return loaded
    except (OSError, AttributeError) as error:
        _log.debug("%s cannot be loaded: %s", path, error)
    with suppress(OSError):  # a folder that is only readable
        path.unlink()
    return None


def _compile(source: Path, compiler: str, flags: Sequence[str], folder: Path, name: str) -> Path:
    """Build next to the final path, then rename, so that no other process ever loads half a file."""
    deadline = time.monotonic() + _TIMEOUT_S
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built, messages = Path(scratch) / "built.so", Path(scratch) / "messages"
        for tuning in _TUNING:
            options = ["-O3", tuning, "-std=gnu99", "-fPIC", "-shared", f"-I{Path(__file__).parent}", *flags]
            command = [compiler, *options, "-o", str(built), str(source), "-lm"]
            if _run(command, messages, deadline) == 0:
                built.chmod(0o700)  # whatever the umask
                path = folder / f"{name}-{digest(built.read_bytes())}.so"
                built.replace(path)
                return path
        raise subprocess.SubprocessError(messages.read_text(errors="replace").strip()[-500:])


def _run(command: Sequence[str], messages: Path, deadline: float) -> int:
    """Exit status of a compiler. What it prints goes to a file, since its servers (sccache) may hold a pipe open."""
    if command[0] in _hanging:
        raise subprocess.SubprocessError(f"{command[0]} did not end within {_TIMEOUT_S:.0f} s before")
    with messages.open("wb") as out:
        # In a session, so that the programs that it starts end with it.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            return process.wait(max(deadline - time.monotonic(), 0.1))
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                _hanging.add(command[0])
            raise


def _key(source: Path, compiler: str, flags: Sequence[str]) -> str:
    """Hash of sources, flags, compiler and processor: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        processor = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        processor = platform.processor()
    parts = (str(shutil.which(compiler)), platform.machine(), processor, *flags)
    content = (source.read_bytes(), *(header.read_bytes() for header in _HEADERS), *map(os.fsencode, parts))
    return hashlib.sha256(b"\n".join(content)).hexdigest()[:16]
