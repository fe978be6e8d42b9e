"""Descriptions that do not depend on where the files are: for checkpoints, and for copies of a data set."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densevit.data import DataConfig, parse_data
from densevit.data.templates import is_template
from densevit.io import place


def portable(config: DataConfig) -> dict[str, Any]:
    """The config as plain data that do not tell whose machine it was: of the root, the name remains.

    Other paths become relative to the root, or without one to the folder that has all of them. Keys without a value
    are left out.
    """
    data = {key: value for key, value in config.plain().items() if value not in (None, {}, [])}
    root: Path | None = getattr(config, "root", None)
    paths = {name: value for name, value in config if isinstance(value, Path) and name != "root"}
    plain = {name: value for name, value in paths.items() if not is_template(value)}
    if root is not None:
        data["root"] = root.absolute().name.removesuffix("!")
        base = str(root.absolute())
        plain = {name: root / value if (root / value).exists() else value for name, value in plain.items()}
    elif plain:
        base = os.path.commonpath([value.absolute().parent for value in plain.values()])
    for name, value in plain.items():
        whole = value.absolute()
        data[name] = whole.relative_to(base).as_posix() if whole.is_relative_to(base) else whole.name
    return data


def relocated(data: Mapping[str, Any], root: Path) -> DataConfig:
    """The config of what ``portable`` gave, with its files below another root.

    Raises:
        ValueError: if the data are no config of a data set.
    """
    config = parse_data(data)
    found = {
        name: place(root) if name == "root" else place(place(root) / value)
        for name, value in config
        if isinstance(value, Path) and not is_template(value)
    }
    return config.model_copy(update=found)
