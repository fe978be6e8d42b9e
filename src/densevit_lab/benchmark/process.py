"""The parent's end of a worker process."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from densevit.errors import DensevitError

LIMIT_S = 3600.0
"""The longest time that an answer may take."""
TIME_IS_OVER = "left out: the time of this run was over"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerError(DensevitError):
    """A worker process failed: its message, or how it ended."""


class WorkerProcess(AbstractContextManager["WorkerProcess"]):
    """A fresh process that answers requests; see ``worker.py``. Its threads wait without spinning.

    What the libraries print goes to a log; after the deadline (of ``time.monotonic``) no answer is awaited.
    """

    def __init__(self, *, threads: int, log: Path, deadline: float = float("inf")) -> None:
        self._log = log
        self._deadline = deadline
        variables = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        variables |= {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        with log.open("ab") as messages:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "densevit_lab.benchmark.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=messages,
                env=os.environ | variables,
                text=True,
                encoding="utf-8",
            )

    def ask(self, command: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: if the worker reports an error, ends, or takes too long.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps({"do": command, **request}) + "\n")
            stdin.flush()
        except OSError:
            raise self._ended() from None
        limit_s = min(LIMIT_S, max(self._deadline - time.monotonic(), 0.0))
        if not select.select([stdout], [], [], limit_s)[0]:
            self.close()
            if time.monotonic() >= self._deadline:
                raise WorkerError(TIME_IS_OVER)
            raise WorkerError(f"no answer to {command!r} in {limit_s:.0f} s; the process was ended")
        line = stdout.readline()
        if not line:
            raise self._ended()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # an unsent request has no reader any more
                continue

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ended(self) -> WorkerError:
        status = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
        cause = "was killed, perhaps for lack of memory" if status == -9 else f"ended with status {status}"
        return WorkerError(f"the worker process {cause} (its last message: {lines[-1]})")


def run_densevit(arguments: Sequence[str]) -> None:
    """Run a command of densevit in a process of its own, as a user would.

    Raises:
        WorkerError: with the end of its message, if it fails or takes too long.
    """
    program = "import sys; from densevit.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise WorkerError(f"densevit {arguments[0]} took more than {LIMIT_S:.0f} s; it was ended") from None
    if done.returncode:
        text = " ".join(line.strip("│╭╮╰╯─ ") for line in done.stderr.splitlines()).strip()
        raise WorkerError(f"densevit {arguments[0]} failed: {text[-400:] or f'exit code {done.returncode}'}")
