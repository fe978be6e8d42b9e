"""Peak memory of a call, of this process, and of a GPU."""

import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_POLL_S = 0.002


@dataclass(frozen=True)
class Memory:
    """Bytes held around one call; unless ``exact``, the peak was polled and may be a little low."""

    before: int
    peak: int
    exact: bool

    @property
    def transient(self) -> int:
        """The memory that the call needed in addition to what was held before."""
        return self.peak - self.before


def peak_during(call: Callable[[], object], device: "torch.device | None" = None) -> Memory:
    """Run a call and measure its memory: of the allocator on a CUDA device, otherwise of this process.

    Linux keeps the peak of a process and can reset it; elsewhere a thread polls the resident memory.
    """
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return Memory(before, torch.cuda.max_memory_allocated(device), exact=True)
    before = resident_bytes()
    if not _reset_peak():
        return _polled(call, before)
    call()
    return Memory(before, _status_bytes("VmHWM"), exact=True)


def release_freed_memory() -> None:
    """Return freed memory to the system where glibc allows it, so that a later call cannot reuse it uncounted."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library, such as musl
            ctypes.CDLL(None).malloc_trim(0)


def peak_bytes() -> int | None:
    """The peak so far: of tensors on the GPU if CUDA is in use, otherwise of this process; None if unknown."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    if _STATUS.exists():  # getrusage would count the parent process from before the fork
        return _status_bytes("VmHWM")
    return resident_bytes() if sys.platform == "darwin" else None


def resident_bytes() -> int:
    """Resident memory of this process; outside Linux its highest value so far."""
    if _STATUS.exists():
        return _status_bytes("VmRSS")
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _status_bytes(key: str) -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak() -> bool:
    """Reset the kernel's record of the peak; False where that has no effect."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return _status_bytes("VmHWM") - _status_bytes("VmRSS") < 2**20


def _polled(call: Callable[[], object], before: int) -> Memory:
    readings = [before]
    done = threading.Event()

    def poll() -> None:
        while not done.wait(_POLL_S):
            readings[0] = max(readings[0], resident_bytes())

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return Memory(before, max(readings[0], resident_bytes()), exact=False)
