"""Peak memory of a call and of this process."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from densevit import memory

MB = 1_000_000
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps the peak of a process")


def allocate(megabytes: int) -> None:
    np.ones(megabytes * MB, dtype=np.uint8).sum()


ALLOCATE = """
import numpy as np
from densevit.memory import peak_during
memory = peak_during(lambda: np.ones(200_000_000, dtype=np.uint8).sum())
print(memory.exact, memory.transient)
"""


@linux
def test_transient_memory__is_what_a_call_allocates() -> None:
    # In a fresh process: this one may hold freed memory, which a call reuses.
    run = subprocess.run([sys.executable, "-c", ALLOCATE], capture_output=True, text=True, timeout=60, check=True)
    exact, transient = run.stdout.split()

    assert exact == "True"
    assert 195 * MB <= int(transient) <= 230 * MB


@linux
def test_peak__is_that_of_the_last_call() -> None:
    memory.release_freed_memory()
    large = memory.peak_during(lambda: allocate(200)).peak
    memory.release_freed_memory()
    small = memory.peak_during(lambda: allocate(1)).peak

    assert large - small > 150 * MB
    assert (memory.peak_bytes() or 0) >= small


def test_peak__is_polled_where_the_kernel_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    holding, polled = threading.Event(), threading.Event()

    def resident_bytes() -> int:
        if not holding.is_set():
            return 100
        polled.set()
        return 900

    def hold() -> None:
        holding.set()
        assert polled.wait(timeout=60)

    def call() -> None:
        hold()
        holding.clear()

    monkeypatch.setattr(memory, "resident_bytes", resident_bytes)
    monkeypatch.setattr(memory, "_reset_peak", lambda: False)

    assert memory.peak_during(call) == memory.Memory(before=100, peak=900, exact=False)
