"""Masks whose colours stand for classes."""

from pathlib import Path
from typing import Any

from densevit.data import ClassTable
from densevit.errors import DataError
from densevit.io import read_json

_ACCEPTED = (
    'a mapping of class names to colours, {"road": [128, 64, 128], "ignore": "#000000"}, or a list of colours in the '
    "order of the classes"
)


def read_colours(path: Path | None, classes: ClassTable | None) -> dict[int, int]:
    """Class number by colour 0xRRGGBB, from a file, else from the palette of the data set; empty without either.

    Raises:
        DataError: the file has no colour map, or colours of unknown classes.
    """
    if path is None:
        palette = classes.palette if classes is not None else ()
        return {int.from_bytes(rgb): index for index, rgb in enumerate(palette)}
    if classes is None:
        raise DataError(f"{path} gives colours, but the classes have no names; list them in classes.json")
    data = read_json(path, _ACCEPTED)
    if isinstance(data, list):
        data = dict(zip(classes.names, data, strict=False))
    if not isinstance(data, dict):
        raise DataError(f"{path} holds {type(data).__name__}; {_ACCEPTED} is accepted")
    numbers = {"ignore": classes.ignore_index} | {name: index for index, name in enumerate(classes.names)}
    colours: dict[int, int] = {}
    for name, value in data.items():
        if name not in numbers:
            raise DataError(f"{path} gives a colour to {name!r}, which is no class; use the names in classes.json")
        colour = _packed(value)
        if colour is None:
            raise DataError(f'{path} gives {name!r} {value!r}, which is no colour; use [r, g, b] or "#rrggbb"')
        if colours.setdefault(colour, numbers[name]) != numbers[name]:
            raise DataError(f"{path} gives {name!r} {value!r}, which is the colour of another class; change one")
    return colours


def _packed(colour: Any) -> int | None:
    """``[r, g, b]`` or ``"#rrggbb"`` as 0xRRGGBB; None for anything else."""
    try:
        rgb = bytes.fromhex(colour.removeprefix("#")) if isinstance(colour, str) else bytes([*colour])
    except (TypeError, ValueError):
        return None
    return int.from_bytes(rgb) if len(rgb) == 3 else None
