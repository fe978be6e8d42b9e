"""Masks whose colours stand for classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from densevit.data import ClassTable, FolderConfig
from densevit.doctor.facts import MaskFacts, SampleFacts
from densevit.doctor.layout import Split
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
        return {_packed(*colour): index for index, colour in enumerate(classes.palette if classes else ())}
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
        colour = _parse(value)
        if colour is None:
            raise DataError(f'{path} gives {name!r} {value!r}, which is no colour; use [r, g, b] or "#rrggbb"')
        if colours.setdefault(colour, numbers[name]) != numbers[name]:
            raise DataError(f"{path} gives {name!r} {value!r}, which is the colour of another class; change one")
    return colours


def with_class_numbers(
    samples: list[SampleFacts], splits: list[Split], classes: ClassTable | None
) -> list[SampleFacts]:
    """Turn the colours of masks into class numbers as the data set's reader does, where it has a palette."""
    if classes is None or not classes.palette:
        return samples
    configs = {split.name: split.config for split in splits}
    return [
        replace(sample, masks=_as_numbers(sample.masks, configs[sample.split], classes))
        if isinstance(sample.masks, MaskFacts)
        else sample
        for sample in samples
    ]


def _as_numbers(mask: MaskFacts, config: FolderConfig, classes: ClassTable) -> MaskFacts:
    if not mask.colours:
        return mask
    numbers = read_colours(None, classes)
    unknown = None if config.unknown_colours == "refuse" else classes.ignore_index
    labels = [numbers.get(colour, unknown) for colour in mask.values.tolist()]
    if None in labels:
        return mask
    values, places = np.unique(np.array(labels, np.int64), return_inverse=True)
    counts = np.bincount(places, weights=mask.counts, minlength=len(values)).astype(np.int64)
    return replace(mask, values=values, counts=counts, num_values=len(values), colours=False, mode="palette")


def _parse(value: Any) -> int | None:
    """``[r, g, b]`` or ``"#rrggbb"`` as 0xRRGGBB."""
    if isinstance(value, str):
        digits = value.removeprefix("#")
        try:
            return int(digits, 16) if len(digits) == 6 else None
        except ValueError:
            return None
    if isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return _packed(*value)
    return None


def _packed(red: int, green: int, blue: int) -> int:
    return red << 16 | green << 8 | blue
