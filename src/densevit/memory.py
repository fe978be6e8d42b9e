"""Resident memory of this process, and the highest it was since a mark. Linux tells both; elsewhere a thread looks."""

import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_LOOK_EVERY_S = 0.002


@dataclass(frozen=True)
class Memory:
    """Resident bytes of one process around one call.

    Attributes:
        before: when everything was built and nothing had run.
        peak: the highest during the call.
        exact: the kernel kept the peak; otherwise it was looked up every 2 ms and may be a little low.
    """

    before: int
    peak: int
    exact: bool

    @property
    def transient(self) -> int:
        """What the call needed on top of what was there."""
        return self.peak - self.before


def peak_during(call: Callable[[], object]) -> Memory:
    """Run a call and measure the memory that it needs; meaningful in a process that has done nothing of the kind."""
    before = resident_bytes()
    if _reset_peak():
        call()
        return Memory(before, peak_bytes(), exact=True)
    return _watch(call, before)


def resident_bytes() -> int:
    """Resident memory of this process now."""
    if _STATUS.exists():
        return _status("VmRSS")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def peak_bytes() -> int:
    """The highest resident memory of this program so far.

    Not getrusage's where that can be helped: it counts the process that started this one, from before it did.
    """
    return _status("VmHWM") if _STATUS.exists() else resident_bytes()


def _reset_peak() -> bool:
    """Have the kernel forget the highest value so far; False where it does not do that."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return False
    return _status("VmHWM") - _status("VmRSS") < 2**20


def _status(key: str) -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def _watch(call: Callable[[], object], before: int) -> Memory:
    highest, done = before, threading.Event()

    def look() -> None:
        nonlocal highest
        while not done.is_set():
            highest = max(highest, resident_bytes())
            time.sleep(_LOOK_EVERY_S)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return Memory(before, max(highest, resident_bytes()), exact=False)
