"""The record of a run: one JSON object a line."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

from densevit.io import append_line, to_json, write_bytes_atomic
from densevit.training.run.salvage import is_count, is_shallow, number, parse_json

_log = logging.getLogger("densevit.training")

Row = dict[str, Any]
_TIMES = ("seconds", "evaluation_seconds")
_LONGEST_LINE = 10_000_000


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


def read_log(path: Path, notes: list[str] | None = None) -> list[Row]:
    """The rows of a ``log.jsonl``; empty if there is no file.

    Lines that are damaged or cut short are skipped, and times that are no numbers are dropped; ``notes`` gets a line
    that counts them.
    """
    rows, skipped, repaired = [], 0, 0
    for line in _lines(path):
        try:
            row = parse_json(line)
        except ValueError:
            row = None
        if not _is_row(row):
            skipped += 1
            continue
        odd = [name for name in _TIMES if name in row and ((value := number(row[name])) is None or value < 0)]
        repaired += bool(odd)
        rows.append({name: value for name, value in row.items() if name not in odd})
    if notes is not None and (skipped or repaired):
        notes.append(f"{path.name} ({skipped} lines that cannot be read, {repaired} lines without a valid time)")
    return rows


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                if line.strip():
                    yield line.decode("utf-8", "replace")


def _is_row(row: Any) -> TypeGuard[Row]:
    if not isinstance(row, dict) or not isinstance(row.get("event"), str) or not is_shallow(row):
        return False
    iteration = row.get("iteration")
    return is_count(iteration) and iteration >= 0


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
