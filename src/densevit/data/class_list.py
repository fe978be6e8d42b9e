"""The class list of a data set in plain folders: classes.json, or the keys of the config."""

from pathlib import Path
from typing import Any

from densevit.data.polygons import shown, whole
from densevit.data.sample import ClassTable, Rgb
from densevit.errors import DataError
from densevit.io import read_json
from densevit.limits import limits, too_much

_EXAMPLE = 'it must look like {"classes": ["road", "sky"], "ignore_index": 255}'


def default_ignore(end: int) -> int:
    """The value of pixels without a class where classes have numbers below ``end``: 255, or 65535 if that is one."""
    return 255 if end <= 255 else 65535


def is_text(name: str) -> bool:
    """Whether a name can be written to files; JSON can also hold halves of characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def read_class_list(path: Path, palette: tuple[Rgb, ...] | None = None, offset: int = 0) -> ClassTable:
    """Read a classes.json; ``palette`` replaces the one in it, and masks count from ``offset``.

    It holds ``classes`` (names), optionally ``ignore_index`` and ``palette`` (a colour for each), and for each
    coarser view ``classesN`` (names) with ``to_N`` (the new index of every class).

    Raises:
        DataError: if the file is not such a mapping.
    """
    if path.is_file() and path.stat().st_size > limits().config_bytes:
        raise DataError(too_much(f"{path} has {path.stat().st_size} bytes", "config_bytes"))
    data = read_json(path, "a class list")
    try:
        if not isinstance(data, dict):
            raise ValueError(f"it holds a {type(data).__name__}, not a mapping")
        names = _names(data, "classes")
        ignore = whole(data["ignore_index"]) if "ignore_index" in data else default_ignore(len(names) + offset)
        views = {
            key: (_names(data, key), _numbers(data, f"to_{key.removeprefix('classes')}"))
            for key in data
            if key.startswith("classes") and key != "classes"
        }
        colours = _colours(data.get("palette", []))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is not a class list ({error}); {_EXAMPLE}") from None
    if abs(ignore) > limits().class_id:
        raise DataError(too_much(f"{path} has the ignore_index {shown(ignore)}", "class_id"))
    if len(names) > limits().classes:
        raise DataError(too_much(f"{path} has {len(names)} classes", "classes"))
    for key, (view, mapping) in views.items():
        if len(mapping) != len(names) or not {*mapping} <= {*range(len(view)), ignore}:
            raise DataError(f"{path}: to_{key.removeprefix('classes')} must give one index of {key} for each class")
    return with_palette(ClassTable(names, ignore, views), palette or colours, str(path))


def with_palette(table: ClassTable, palette: tuple[Rgb, ...] | None, source: str) -> ClassTable:
    """The table with a colour for each class.

    Raises:
        DataError: there are not as many colours as classes, or two are equal.
    """
    if not palette:
        return table
    try:
        check_palette(palette)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None
    if len(palette) != len(table.names):
        raise DataError(
            f"{source} has {len(palette)} colours in palette for {len(table.names)} classes; one for each is accepted, "
            "in their order; a class with several colours is several classes, which merge makes one"
        )
    return ClassTable(table.names, table.ignore_index, table.views, palette)


def check_palette(palette: tuple[Rgb, ...]) -> None:
    """Raise ValueError if a colour is beyond 0..255, or occurs twice."""
    if any(not 0 <= part <= 255 for colour in palette for part in colour):
        raise ValueError("palette has a colour beyond 0..255; red, green and blue of 0 to 255 are accepted")
    if len(set(palette)) != len(palette):
        twice = next(colour for colour in palette if palette.count(colour) > 1)
        raise ValueError(f"palette has the colour {twice} twice; each class needs a different one")


def _listed(data: dict[str, Any], key: str, what: str) -> list[Any]:
    if key not in data:
        raise ValueError(f"{key} is missing")
    if not isinstance(data[key], list):
        raise ValueError(f"{key} is a {type(data[key]).__name__}, not a list of {what}")
    return data[key]


def _names(data: dict[str, Any], key: str) -> tuple[str, ...]:
    names = _listed(data, key, "names")
    for name in names:
        if not isinstance(name, str) or not is_text(name):
            raise ValueError(f"{key} has {name!r:.40}, which is no name")
    if not names:
        raise ValueError(f"{key} is empty")
    return tuple(names)


def _numbers(data: dict[str, Any], key: str) -> tuple[int, ...]:
    return tuple(whole(number) for number in _listed(data, key, "whole numbers"))


def _colours(value: Any) -> tuple[Rgb, ...]:
    if not isinstance(value, list) or not all(isinstance(colour, list) and len(colour) == 3 for colour in value):
        raise ValueError("palette is not a list of [red, green, blue]")
    return tuple((whole(red), whole(green), whole(blue)) for red, green, blue in value)
