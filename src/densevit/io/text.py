"""JSON and lists of names."""

import json
from pathlib import Path
from typing import Any

from densevit.errors import DataError
from densevit.io.decode import guarded, require_file

MAX_TEXT_BYTES = 2 * 2**30
"""Largest text file that is read; it is kept in memory."""


def read_json(path: Path, what: str) -> Any:
    """The content of a JSON file; ``what`` names what it should be, in messages.

    Raises:
        DataError: no such file, too large, not JSON.
    """
    text = _read_text(path, f"{what} as JSON is accepted")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); {what} is accepted; export it again") from None


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file without empty ones and the space around them.

    Raises:
        DataError: no such file, too large, not text, or empty.
    """
    lines = [line.strip() for line in _read_text(path, f"{what}, one a line, is accepted").splitlines()]
    if not (lines := [line for line in lines if line]):
        raise DataError(f"{path} has no lines; {what}, one a line, is accepted; copy it again")
    return lines


def _read_text(path: Path, accepted: str) -> str:
    require_file(path, accepted)
    if (size := path.stat().st_size) > MAX_TEXT_BYTES:
        raise DataError(f"{path} has {size:,} bytes; up to {MAX_TEXT_BYTES:,} are accepted; split it")
    with guarded(path, accepted):
        text = path.read_text(encoding="utf-8-sig")
    return text
