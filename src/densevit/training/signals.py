"""Ctrl-C, SIGTERM and SIGHUP: the running step is finished, the state is saved, and the run ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)
"""What a closed terminal sends; Windows has no such signal."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, *(() if _HANGUP is None else (_HANGUP,)))


class Stopped(KeyboardInterrupt):
    """A signal has stopped a run, whose state is saved.

    Attributes:
        code: exit status by the shell's convention, 128 + the number of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.code = 128 + number


class Interrupted(Exception):
    """Leaves the training loop, or an evaluation, after a signal; ``train`` saves the state and raises ``Stopped``."""


@dataclass
class StopRequest:
    """Whether a signal has asked the run to stop.

    Attributes:
        signal: number of the signal, 0 if none has come.
    """

    signal: int = 0


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record the first signal instead of dying of it; a second one has its usual effect.

    A SIGHUP that nohup has this process ignore stays ignored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # Python only handles signals in the main thread
        yield request
        return
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    if previous.get(_HANGUP) is signal.SIG_IGN:
        del previous[_HANGUP]

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def record(number: int, frame: FrameType | None) -> None:
        request.signal = number
        restore()

    for number in previous:
        signal.signal(number, record)
    try:
        yield request
    finally:
        restore()
