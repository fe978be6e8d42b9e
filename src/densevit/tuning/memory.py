"""The highest memory of a piece of work in this process, or on its GPU."""

import ctypes
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch


def peak_megabytes(work: Callable[[], object], device: torch.device) -> float | None:
    """Run the work; the highest memory meanwhile, with all that the process holds anyway, in MB.

    On CUDA that of the device's allocator; on Linux the resident memory; elsewhere None.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) / 1e6
    if not _forget_peak():
        return None
    work()
    match = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(match[1]) * 1.024e-3 if match else None


def _forget_peak() -> bool:
    """Give freed memory back, so that earlier work does not count, and start the kernel's record anew."""
    if not sys.platform.startswith("linux"):
        return False
    with suppress(OSError, AttributeError):  # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
