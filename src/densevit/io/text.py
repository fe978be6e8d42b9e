"""Read JSON and lists of names."""

import csv
import io
import logging
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from densevit.errors import DataError
from densevit.plain_data import parse_json, read_text
from densevit_runtime.io.decode import guarded, require_file

_log = logging.getLogger(__name__)


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file; ``expected`` says in messages what it should hold.

    Raises:
        DataError: no such file, too large, not JSON.
    """
    text = _read_text(path, f"{expected} as JSON")
    try:
        return parse_json(text)
    except ValueError as error:
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


def read_rows(path: Path, expected: str) -> tuple[str, list[list[str]]]:
    """Read the rows of a text table, and its delimiter: comma, semicolon or tab, whichever the first line has most of.

    Cells are stripped, and empty rows left out. A table that is not UTF-8 is read as Windows-1252, as spreadsheets of
    Western Europe write it.

    Raises:
        DataError: no such file, too large, not text, or quotes that do not end.
    """
    try:
        text = _read_text(path, expected)
    except DataError as error:
        if not isinstance(error.__cause__, UnicodeDecodeError):
            raise
        try:
            text = path.read_bytes().decode("cp1252")
        except UnicodeDecodeError:
            raise DataError(f"{path} is not UTF-8 text; {expected} is accepted; save it as CSV in UTF-8") from None
        _warn_once(f"{path} is not UTF-8, and is read as Windows-1252; save it in UTF-8 if names look wrong")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    head = next((line for line in text.split("\n") if line.strip()), "")
    if found := re.fullmatch(r"sep=([,;\t])", head.strip(" "), re.IGNORECASE):  # as spreadsheets write it
        text = text.replace(head, "", 1)
        head = found[1]
    outside = re.sub('"[^"]*"', "", head)
    delimiter = max(",;\t", key=outside.count)  # the first of those that are equal
    try:
        rows = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        ]
    except csv.Error as error:
        raise DataError(f"{path} is not a table ({error}); {expected} is accepted; export it again") from None
    return delimiter, [row for row in rows if any(row)]


@lru_cache(maxsize=1_000)
def _warn_once(message: str) -> None:
    _log.warning("%s", message)


def _read_text(path: Path, accepted: str) -> str:
    require_file(path)
    with guarded(path, accepted):
        try:
            text = read_text(path, "text_bytes")
        except UnicodeDecodeError:
            raise
        except ValueError as error:
            raise DataError(f"{path} cannot be read: {error}; {accepted} is accepted") from None
    return text
