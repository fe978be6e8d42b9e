"""Read JSON and lists of names."""

import json
from pathlib import Path
from typing import Any

from densevit.errors import DataError
from densevit.io.decode import guarded, require_file

MAX_TEXT_BYTES = 2 * 2**30
"""Largest text file, since it is read into memory."""


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file; ``expected`` says in messages what it should hold.

    Raises:
        DataError: no such file, too large, not JSON.
    """
    text = _read_text(path, f"{expected} as JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {expected} is accepted; export it again") from None


def read_lines(path: Path, expected: str) -> list[str]:
    """Read the lines of a text file, stripped and without empty ones.

    Raises:
        DataError: no such file, too large, not text, or empty.
    """
    lines = [line.strip() for line in _read_text(path, f"{expected}, one per line,").splitlines()]
    if not (lines := [line for line in lines if line]):
        raise DataError(f"{path} has no lines; {expected}, one per line, is accepted; copy it again")
    return lines


def _read_text(path: Path, accepted: str) -> str:
    require_file(path)
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise DataError(f"{path} has {size:,} bytes; up to {MAX_TEXT_BYTES:,} are accepted; split it")
    with guarded(path, accepted):
        text = path.read_text(encoding="utf-8-sig")
    return text
