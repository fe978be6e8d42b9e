"""What the data mean, in one file that all commands use: dataset.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevit.data.base import DataConfig


@dataclass(frozen=True, slots=True)
class Described:
    """A data set as a command understands it, to be shown before work begins.

    Attributes:
        config: without a split.
        remarks: sentences on what was found, assumed and passed over, each assumption with the key that changes it.
        source: the dataset.yaml, or None where the layout was recognised.
    """

    config: DataConfig
    remarks: tuple[str, ...] = ()
    source: Path | None = None


def describe(path: Path | None, **given: Any) -> Described:
    """Read a dataset.yaml, or recognise the layout of a folder or zip archive; keys of ``given`` replace its own.

    Raises:
        DataError: nothing is recognised, or several layouts are possible; the message lists them with their options.
        ConfigError: the file is no description, or a key is unknown.
    """
    raise NotImplementedError


def write_description(config: DataConfig, path: Path) -> None:
    """Write a dataset.yaml; paths in its folder become relative to it."""
    raise NotImplementedError


def differences(one: DataConfig, other: DataConfig) -> list[str]:
    """What differs between two descriptions, apart from where the files are, in sentences."""
    raise NotImplementedError
