"""Log messages on the terminal, with the progress of a run in one line that is redrawn."""

import logging
import shutil
import sys
from typing import TextIO

from densevit.training.run.progress import PROGRESS
from densevit_runtime.boundary import printable as printable

_CLEAR = "\r\x1b[2K"


class TerminalHandler(logging.StreamHandler[TextIO]):
    """Writes messages to standard error; on a terminal, those of ``PROGRESS`` replace each other."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.live = self.stream.isatty()
        self._drawn = False

    def format(self, record: logging.LogRecord) -> str:
        """The message without control characters."""
        return printable(super().format(record), lines=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message, over the progress line if there is one."""
        if not self.live:
            super().emit(record)
            return
        progress = record.name == PROGRESS
        if self._drawn:
            self.stream.write(_CLEAR)
        self._drawn = progress
        if progress:
            width = shutil.get_terminal_size().columns
            self.stream.write(self.format(record)[: max(width - 1, 1)])
            self.flush()
        else:
            super().emit(record)

    def close(self) -> None:
        """Keep the last progress line and begin a new one."""
        if self._drawn and not self.stream.closed:
            self.stream.write("\n")
            self._drawn = False
        super().close()


def set_up_logging(*, quiet: bool) -> None:
    """Log to the terminal from INFO on, or from WARNING on if quiet; progress in detail only on a live terminal."""
    handler = TerminalHandler()
    level = logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=level, format="%(message)s", handlers=[handler], force=True)
    logging.getLogger(PROGRESS).setLevel(logging.DEBUG if handler.live and not quiet else logging.NOTSET)
