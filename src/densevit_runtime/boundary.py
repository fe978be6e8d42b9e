"""What surrounds every command: usable streams, signals that end it cleanly, and reports of unexpected errors.

The commands of densevit and of densevit-runtime share it.
"""

import functools
import os
import platform
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType

FAULT = 70
"""Exit code of an error that is not the user's: EX_SOFTWARE of BSD's sysexits."""

PACKAGES = (
    "densevit",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "safetensors",
    "pydantic",
    "rasterio",
    "onnxruntime",
    "openvino",
)

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Stopped(KeyboardInterrupt):
    """A signal has ended the command; ``code`` is 128 + its number, as a shell would report it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; files that were finished are kept")
        self.code = 128 + number


class Carried(Exception):
    """An interruption or the end of a file on its way through typer, which would make "Aborted" of it."""


def carrying_interruptions(command: Callable[..., None]) -> Callable[..., None]:
    """The command, from which ``KeyboardInterrupt`` and ``EOFError`` come as the cause of ``Carried``."""

    @functools.wraps(command)
    def run(*args: object, **options: object) -> None:
        try:
            command(*args, **options)
        except (KeyboardInterrupt, EOFError) as error:
            raise Carried from error

    return run


def printable(text: str, *, lines: bool = False) -> str:
    """Text whose control characters, which could steer a terminal, are escaped; with ``lines``, newlines stay."""
    kept = "\n" if lines else ""
    return _CONTROL.sub(lambda c: c[0] if c[0] in kept else c[0].encode("unicode_escape").decode(), text)


def open_standard_streams() -> None:
    """Replace streams that are closed, and escape what the terminal's encoding lacks instead of failing.

    Without this, the next file that is opened would take the number of a closed stream and receive its text.
    """
    if os.name == "posix":
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(number)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 -- until the process ends
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the command, so that unfinished files are removed. Windows has only the first."""
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker dies of it as usual
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise Stopped(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for name in names if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, stop)
    except ValueError:  # not in the main thread
        numbers = []
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def report_fault(error: BaseException, program: str = "densevit") -> str:
    """Write what a maintainer needs to a file; the message for the user."""
    trace = "".join(traceback.format_exception(error))
    lines = [
        f"{program} {' '.join(map(ascii, sys.argv[1:]))}",
        f"{platform.platform()}, Python {platform.python_version()}",
    ]
    for package in PACKAGES:
        try:
            lines.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    what = f"this is a fault of {program}, not of your input: {type(error).__name__}: {error}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="densevit-fault-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write("\n".join([*lines, "", trace]))
    except OSError:
        return f"{what}\n{trace}Please report it with the lines above"
    return f"{what}\nPlease report it, with the file {file.name}; --debug shows the traceback"
