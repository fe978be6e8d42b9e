"""The options that say where data are and what they mean, the same for all commands that read data."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densevit.cli.terminal import printable

if TYPE_CHECKING:
    from densevit.data.description import Described

_BELOW = "a folder, or a template below --data"

Data = Annotated[Path | None, typer.Option("--data", help="Data set: a folder, a zip archive, or a dataset.yaml.")]
Kind = Annotated[
    str | None,
    typer.Option("--dataset", help="Kind of --data: folder, or a public data set as downloaded, such as cityscapes."),
]
Images = Annotated[
    Path | None, typer.Option("--images", help="Photos: a folder, or a template, such as '{folder}/{name}_image.png'.")
]
Masks = Annotated[Path | None, typer.Option("--masks", help=f"Masks: {_BELOW}, or a file of COCO annotations.")]
Depth = Annotated[Path | None, typer.Option("--depth", help=f"Depth maps: {_BELOW}.")]
Values = Annotated[Path | None, typer.Option("--values", help=f"Value maps (.npy) for regression: {_BELOW}.")]
PairsFile = Annotated[
    Path | None, typer.Option("--pairs", help="CSV file: columns image and any of mask, depth, values and split.")
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        "--split-by", help="Regular expression of the part of a name that keeps photos in one split, such as a patient."
    ),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", help="Classes of the masks: names separated by commas, their number, or a classes.json."),
]
Background = Annotated[
    str | None, typer.Option("--background", help="Class of pixels that no shape of COCO or labelme covers.")
]
ReduceZeroLabel = Annotated[
    bool, typer.Option("--reduce-zero-label", help="Masks count from 1 and 0 is no class, as in ADE20K.")
]


def data_keys(**options: Any) -> dict[str, Any]:
    """The keys of ``describe`` that the options above stand for, by their names here, without those not given.

    Raises:
        DataError: if ``classes`` names a file that is not a class list.
    """
    keys = {key: value for key, value in options.items() if value is not None and value is not False}
    if "split_by" in keys:
        keys["splits"] = {"by": keys.pop("split_by")}
    if "classes" in keys:
        keys |= _class_keys(keys["classes"], offset=int("reduce_zero_label" in keys))
    return keys


def _class_keys(text: str, *, offset: int) -> dict[str, Any]:
    from densevit.data.class_list import read_class_list

    if text.lower().endswith(".json"):
        table = read_class_list(Path(text), offset=offset)
        palette = {"palette": table.palette} if table.palette else {}
        return {"classes": table.names, "ignore_index": table.ignore_index, **palette}
    return {"classes": int(text) if text.isdecimal() else tuple(name.strip() for name in text.split(","))}


def paths_read(data: Path | None, keys: dict[str, Any]) -> list[Path]:
    """The files and folders that the options name, which no output may replace."""
    return [path for path in (data, *keys.values()) if isinstance(path, Path)]


def describe_data(data: Path | None, keys: dict[str, Any]) -> "Described":
    """What the options say about the data; the remarks are printed.

    Raises:
        DataError: nothing is recognised, or several layouts are possible.
        ConfigError: no data was named, or a key is wrong.
    """
    from densevit.data.description import describe

    described = describe(data, **keys)
    show_remarks(described.remarks)
    return described


def show_remarks(remarks: Iterable[str]) -> None:
    """Print sentences on the data to stderr, before work begins."""
    for remark in remarks:
        typer.echo(f"data: {printable(remark)}", err=True)
