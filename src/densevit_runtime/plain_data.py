"""Read JSON and text that anyone may have written: bounded in size, nesting, number of values and digits.

Errors are ``ValueError`` with a text that has "it" for the file; callers name the file and raise an error of their own.
"""

import codecs
import datetime
import json
import math
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from densevit_runtime.limits import limits, too_much

_SCALARS = (str, int, float, bool, type(None), datetime.date)
_LARGEST = 2**63


def read_text(path: Path, limit: str = "config_bytes") -> str:
    """The text of a regular file whose size is within the named limit.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is a device or a pipe, larger than the limit, or neither UTF-8 nor UTF-16 with its mark.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):  # opening a folder fails by itself
        raise ValueError("it is a device or a pipe, not a file; save it to a file first")
    if status.st_size > getattr(limits(), limit):
        raise ValueError(too_much(f"it has {status.st_size:,} bytes", limit))
    with path.open("rb") as file:
        start = file.read(4096)
        if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as spreadsheets write it
            return (start + file.read()).decode("utf-16")
        if b"\0" in start:  # such as a file of zeros, which needs no memory on disk
            raise ValueError("it has null characters and is not UTF-8 text")
        return (start + file.read()).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """Parse JSON; infinity, NaN, and half a surrogate pair, which cannot be written again, are refused.

    Raises:
        ValueError: if it is not such JSON.
    """
    try:
        data = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(data, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    return data


def parse_json_config(text: str) -> Any:
    """``parse_json`` for a config, whose number of values, nesting and numbers are bounded too.

    Raises:
        ValueError: as ``parse_json``, or if a bound is exceeded.
    """
    if len(text) > limits().config_bytes:
        raise ValueError(too_much(f"it has {len(text):,} bytes", "config_bytes"))
    data = parse_json(text)
    check_plain(data)
    return data


def check_plain(data: object) -> None:
    """Refuse data that are not plain, too deep or too many, or have numbers beyond 64 bits.

    Raises:
        ValueError: naming what exceeds a bound.
    """
    check_size(data, _items)


def check_size(root: object, children: Any) -> None:
    """Bound nesting and number of values; what is shared counts as often as it is used.

    Args:
        root: the data.
        children: gives the values inside a value, or None for one that has none.

    Raises:
        ValueError: if a bound is exceeded, or a value contains itself.
    """
    nesting, nodes = limits().nesting, limits().nodes
    done: dict[int, tuple[int, int]] = {}  # identity -> number of values, depth
    inside = {id(root)}
    # Without recursion, since what is shared can be nested deeper than Python's stack.
    frames: list[list[Any]] = [[root, iter(children(root) or ()), 1, 0]]
    while frames:
        frame = frames[-1]
        for child in frame[1]:
            if id(child) in done:
                values, depth = done[id(child)]
            elif (below := children(child)) is None:
                values, depth = 1, 0
            elif id(child) in inside:
                raise ValueError("a value contains itself")
            else:
                inside.add(id(child))
                frames.append([child, iter(below), 1, 0])
                break
            frame[2] += values
            frame[3] = max(frame[3], depth)
            if frame[2] > nodes:
                raise ValueError(too_much("it has more values, with repeated ones counted each time", "nodes"))
        else:
            value, _, values, depth = frames.pop()
            inside.discard(id(value))
            done[id(value)] = values, depth + 1
            if frames:
                frames[-1][2] += values
                frames[-1][3] = max(frames[-1][3], depth + 1)
            if depth >= nesting or (frames and frames[-1][2] > nodes):
                what = (
                    "is nested deeper" if depth >= nesting else "has more values, with repeated ones counted each time"
                )
                raise ValueError(too_much(f"it {what}", "nesting" if depth >= nesting else "nodes"))


def _items(value: Any) -> Iterable[Any] | None:
    if isinstance(value, dict):
        return [item for pair in value.items() for item in pair]
    if isinstance(value, list | tuple):
        return value
    check_scalar(value)
    return None


def check_scalar(value: object) -> None:
    """Refuse a value that is not plain, or that no file can hold.

    Raises:
        ValueError: naming the value.
    """
    if not isinstance(value, _SCALARS):
        raise ValueError(f"a value is {type(value).__name__}; texts, numbers, true, false, dates and null are accepted")
    if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise ValueError(f"a number has {value.bit_length()} bits; whole numbers of up to 64 bits are accepted")
    if isinstance(value, str) and ("\0" in value or not _encodable(value)):
        raise ValueError(f"the text {value[:40]!a} has null characters or is not Unicode")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(name: str) -> float:
    raise ValueError(f"a number is {name}; finite numbers are accepted")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is out of range; finite numbers are accepted")
    return value
