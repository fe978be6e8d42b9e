"""The record of a run: one JSON object a line, and the same in words through ``logging``."""

import json
import logging
import platform
import time
from pathlib import Path
from typing import Any

import torch

from densevit.io import to_json

_log = logging.getLogger("densevit.training")


class RunLog:
    """Appends to ``log.jsonl``; lines of steps that a resumed run will repeat are dropped first."""

    def __init__(self, path: Path, *, start: int) -> None:
        self.path = path
        self.began = time.monotonic()
        self.start = start
        if path.exists():
            rows = [line for line in path.read_text(encoding="utf-8").splitlines() if _before(line, start)]
            path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def write(self, event: str, iteration: int, **values: Any) -> None:
        """One line; ``values`` must be JSON."""
        row = {"event": event, "iteration": iteration, "seconds": round(time.monotonic() - self.began, 2), **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")
        _log.info("%s %d: %s", event, iteration, ", ".join(f"{k} {_short(v)}" for k, v in values.items()))


def environment() -> dict[str, Any]:
    """What a reader needs to compare two runs."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _before(line: str, iteration: int) -> bool:
    try:
        return int(json.loads(line)["iteration"]) <= iteration
    except (ValueError, KeyError, TypeError):  # a line cut short by a kill
        return False


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
