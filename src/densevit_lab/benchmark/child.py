"""The parent's end of a child process."""

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from densevit.errors import DensevitError

LIMIT_S = 1800.0
OVER = "left out: the time of this run was over"


class ChildError(DensevitError):
    """A child process could not do what it was asked: its message, or how it ended."""


class Worker:
    """A fresh process that answers requests; see ``worker.py``. Its threads wait without spinning.

    Args:
        threads: of every library that reads an environment variable.
        log: file for what the libraries print.
        limit_s: how long an answer may take.
        until: ``time.monotonic`` at which no answer is waited for any more.
    """

    def __init__(self, *, threads: int, log: Path, limit_s: float = LIMIT_S, until: float = float("inf")) -> None:
        self._log, self._limit_s, self._until = log, limit_s, until
        with log.open("ab") as messages:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "densevit_lab.benchmark.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                env=os.environ | _environment(threads),
                text=True,
                encoding="utf-8",
            )

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            ChildError: if the child reports an error, ends, or takes too long.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": do, **request}) + "\n")
            stdin.flush()
        except OSError:
            raise self._ended() from None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            limit_s = min(self._limit_s, max(self._until - time.monotonic(), 0.0))
            if not selector.select(limit_s):
                self.close()
                if time.monotonic() >= self._until:
                    raise ChildError(OVER)
                raise ChildError(f"no answer to {do!r} in {limit_s:.0f} s; the process was ended")
        line = stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ChildError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not written any more has no reader
                    continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ended(self) -> ChildError:
        status = self._process.wait()
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] or ["no message"]
        how = "was killed, perhaps for lack of memory" if status == -9 else f"ended with status {status}"
        return ChildError(f"the child process {how} (its last words: {last[0]})")


def _environment(threads: int) -> dict[str, str]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {name: str(threads) for name in names} | {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
