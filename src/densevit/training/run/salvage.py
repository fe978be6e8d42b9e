"""What is good in the files of a run folder that may be damaged; what is not is noted, for the report to name."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from densevit.limits import limits

LEVELS = 16
"""Largest nesting of what a run writes, with room to spare."""
_LONGEST_INTEGER = 18


def read_text(path: Path, notes: list[str]) -> str:
    """The text of a file; empty if there is none or it cannot be read."""
    if not path.exists():
        return ""
    try:
        if not path.is_file() or path.stat().st_size > limits().config_bytes:
            raise OSError("it is no file, or too large")
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        notes.append(f"{path.name} ({error})")
        return ""


def parse_mapping(text: str, name: str, parse: Callable[[str], Any], notes: list[str]) -> dict[str, Any]:
    """The mapping in the text of the file ``name``; empty if there is none."""
    if not text:
        return {}
    try:
        data = parse(text)
        if not isinstance(data, dict) or not is_shallow(data):
            raise ValueError(f"it holds {type(data).__name__}, or is nested too deep")
    except Exception as error:  # PyYAML raises anything, from AttributeError to RecursionError
        first_line = (str(error).splitlines() or [""])[0]
        notes.append(f"{name} ({type(error).__name__}: {first_line[:200]})")
        return {}
    return {str(key): value for key, value in data.items()}


def parse_json(text: str) -> Any:
    """Parse JSON; integers that are too long for a count become floats.

    Raises:
        ValueError: if it is not JSON, nested too deep, or has half characters, which cannot be written again.
    """
    try:
        data = json.loads(text, parse_int=lambda t: int(t) if len(t) <= _LONGEST_INTEGER else float(t))
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return data


def is_shallow(value: Any, levels: int = LEVELS) -> bool:
    """Whether lists and mappings are nested at most so deep."""
    level = [value]
    for _ in range(levels + 1):
        containers = {id(one): one for one in level if isinstance(one, dict | list)}  # anchors of YAML are shared
        level = [one for each in containers.values() for one in (each.values() if isinstance(each, dict) else each)]
        if not containers:
            return True
    return False


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return {str(key): one for key, one in value.items()} if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in the value, if it is a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    return float(value) if is_count(value) or (isinstance(value, float) and math.isfinite(value)) else None


def is_count(value: Any) -> TypeGuard[int]:
    """Whether the value is an integer of at most 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def counts(value: Any, size: int | None = None) -> list[list[int]] | None:
    """The value if it is a square table of counts, of ``size`` rows if given; else None."""
    if not isinstance(value, list) or not value or (size is not None and len(value) != size):
        return None
    for row in value:
        if not isinstance(row, list) or len(row) != len(value) or not all(is_count(one) and one >= 0 for one in row):
            return None
    return value


def colour(palette: Any, index: int) -> tuple[int, int, int]:
    """Red, green and blue of a class; grey if the palette lacks them."""
    entry = palette[index] if isinstance(palette, list | tuple) and index < len(palette) else None
    if isinstance(entry, list | tuple) and len(entry) >= 3 and all(is_count(c) and 0 <= c <= 255 for c in entry[:3]):
        return entry[0], entry[1], entry[2]
    return 200, 200, 200
