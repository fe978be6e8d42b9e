"""The record of a run: one JSON object a line."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from densevit.io import append_line, to_json, write_bytes_atomic

_log = logging.getLogger("densevit.training")

Row = dict[str, Any]


class RunLog:
    """Appends to ``log.jsonl``, after dropping the lines of steps that a resumed run will repeat.

    Args:
        path: the file.
        start: iterations that are done already.
        on_write: called with event and iteration after every line.
    """

    def __init__(self, path: Path, *, start: int, on_write: Callable[[str, int], None] | None = None) -> None:
        self.path, self._on_write = path, on_write
        kept = [row for row in read_log(path) if row["iteration"] <= start]
        if path.exists():
            self._rewrite(kept)
        # ``seconds`` continues from the last kept line: it is the time of all sessions together.
        self._earlier_rows = kept
        self._began = time.monotonic() - (float(kept[-1].get("seconds", 0.0)) if kept else 0.0)

    @property
    def seconds(self) -> float:
        """Time of the run so far, without the time between its sessions."""
        return time.monotonic() - self._began

    def write(self, event: str, iteration: int, **values: Any) -> None:
        """Append one line; ``values`` must be JSON. Evaluations also go to ``logging``."""
        row = {"event": event, "iteration": iteration, "seconds": round(self.seconds, 2), **values}
        append_line(self.path, to_json(row))
        if event == "eval":
            _log.info("iteration %d: %s", iteration, in_words(values))
        if self._on_write is not None:
            self._on_write(event, iteration)

    def forget(self, iteration: int, *events: str) -> None:
        """Drop lines of earlier sessions that are about to be written again."""
        if any(row["iteration"] == iteration and row["event"] in events for row in self._earlier_rows):
            kept = (r for r in read_log(self.path) if r["iteration"] != iteration or r["event"] not in events)
            self._rewrite(list(kept))
            self._earlier_rows = []

    def _rewrite(self, rows: list[Row]) -> None:
        write_bytes_atomic(self.path, "".join(f"{to_json(row)}\n" for row in rows).encode(), internal=True)


def read_log(path: Path) -> list[Row]:
    """The rows of a ``log.jsonl``; lines that are cut short are skipped. Empty if there is no file."""
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("event"), str) and isinstance(row.get("iteration"), int):
            rows.append(row)
    return rows


def last_iterations(rows: list[Row]) -> dict[str, int]:
    """The last iteration among the rows of each event."""
    last: dict[str, int] = {}
    for row in rows:
        last[row["event"]] = max(last.get(row["event"], 0), row["iteration"])
    return last


def in_words(values: Row) -> str:
    """``name value, ...`` for the numbers and strings among the values, numbers to four digits."""
    plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {f'{v:.4g}' if isinstance(v, float) else v}" for name, v in plain.items())
