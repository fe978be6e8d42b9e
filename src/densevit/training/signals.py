"""Ctrl-C and SIGTERM: the running step is finished, the state is saved, and the run ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """A run was asked to stop and has saved its state.

    Attributes:
        code: exit status by the shell's convention, 128 and the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Asked:
    """Whether a signal has come.

    Attributes:
        signal: its number, 0 for none.
    """

    def __init__(self) -> None:
        self.signal = 0


class Interrupted(Exception):
    """A signal came where nothing needs to be finished first."""


@contextmanager
def listening() -> Iterator[Asked]:
    """Note the first signal instead of dying of it; the second one acts as ever."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody listen
        yield asked
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        asked.signal = number
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
