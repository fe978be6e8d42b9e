"""Log messages on a terminal and in a file: progress stays in one line there, and is plain lines here."""

import io
import logging
import sys
from collections.abc import Iterator

import pytest

from densevit.cli.terminal import set_up_logging
from densevit.training.run.progress import PROGRESS


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, progress = logging.getLogger(), logging.getLogger(PROGRESS)
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    progress.setLevel(logging.NOTSET)


def written(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, quiet: bool = False) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "20")
    set_up_logging(quiet=quiet)
    progress, other = logging.getLogger(PROGRESS), logging.getLogger("densevit.training")
    progress.info("iteration 1")
    progress.debug("iteration 2 and a line that is long")
    other.info("a figure")
    other.warning("a warning")
    progress.debug("iteration 3")
    logging.getLogger().handlers[-1].close()
    return stream.getvalue()


def test_terminal__has_one_line_of_progress_that_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    clear = "\r\x1b[2K"
    assert written(Terminal(), monkeypatch) == (
        f"iteration 1{clear}iteration 2 and a l{clear}a figure\na warning\niteration 3\n"
    )


def test_file__has_whole_lines_and_those_for_a_log_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert written(io.StringIO(), monkeypatch) == "iteration 1\na figure\na warning\n"


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_quiet__shows_warnings_alone(monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]) -> None:
    assert written(stream(), monkeypatch, quiet=True) == "a warning\n"
