"""The colour of each class, for masks that hold colours."""

import json
from pathlib import Path
from typing import Any

from densevit.data import ClassTable, FolderConfig
from densevit.doctor.semantics import palette_of
from densevit.errors import DataError

_ACCEPTED = (
    'a JSON mapping of class names to colours is accepted, {"road": [128, 64, 128], "ignore": "#000000"}, or a list of '
    "colours in the order of the classes"
)


def read_colours(path: Path | None, config: FolderConfig, classes: ClassTable | None) -> dict[int, int]:
    """Class number by colour 0xRRGGBB: of a file, else of ``palette`` in config or classes.json; empty without.

    Raises:
        DataError: if the named file holds no colour map, or colours of unknown classes.
    """
    if classes is None:
        if path is not None:
            raise DataError(f"{path} gives colours, but the classes have no names; list them in classes.json")
        return {}
    if path is not None:
        return _parse(_load(path), classes, str(path))
    if own := palette_of(config):
        return own
    table = config.root / "classes.json" if config.root is not None else None
    if table is None or not table.is_file():
        return {}
    data = _load(table)
    return _parse(data["palette"], classes, str(table)) if isinstance(data, dict) and "palette" in data else {}


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); {_ACCEPTED}; mend it") from None


def _parse(data: Any, classes: ClassTable, source: str) -> dict[int, int]:
    if isinstance(data, list):
        data = dict(zip(classes.names, data, strict=False))
    if not isinstance(data, dict):
        raise DataError(f"{source} holds {type(data).__name__}; {_ACCEPTED}; write one")
    numbers = {name: index for index, name in enumerate(classes.names)}
    found: dict[int, int] = {}
    for name, value in data.items():
        if name not in numbers and name != "ignore":
            raise DataError(
                f"{source} gives a colour to {name!r}, which is no class; {_ACCEPTED}; name it as classes.json does"
            )
        colour = _colour(value)
        number = numbers.get(name, classes.ignore_index)
        if colour is None or found.setdefault(colour, number) != number:
            what = "no colour" if colour is None else "the colour of another class"
            raise DataError(f"{source} gives {name!r} {value!r}, which is {what}; {_ACCEPTED}; mend it")
    return found


def _colour(value: Any) -> int | None:
    """0xRRGGBB of ``[r, g, b]`` or ``"#rrggbb"``."""
    if isinstance(value, str):
        digits = value.removeprefix("#")
        try:
            return int(digits, 16) if len(digits) == 6 else None
        except ValueError:
            return None
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        red, green, blue = value
        return red << 16 | green << 8 | blue
    return None
