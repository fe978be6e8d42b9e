"""The options that say where data are and what they mean, the same for all commands that read data."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densevit.cli.options import head_names
from densevit.cli.terminal import printable

if TYPE_CHECKING:
    from densevit.evaluation.run_data import Model, Selected

_BELOW = "a folder, or a template below --data"


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The place of data and what they mean; see ``describe`` for the keys."""

    data: Annotated[Path | None, typer.Option(help="Data set: a folder, a zip archive, or a dataset.yaml.")] = None
    images: Annotated[
        Path | None, typer.Option(help="Photos: a folder, or a template, such as '{folder}/{name}_image.png'.")
    ] = None
    masks: Annotated[Path | None, typer.Option(help=f"Masks: {_BELOW}, or a file of COCO annotations.")] = None
    depth: Annotated[Path | None, typer.Option(help=f"Depth maps: {_BELOW}.")] = None
    values: Annotated[Path | None, typer.Option(help=f"Value maps (.npy) for regression: {_BELOW}.")] = None
    pairs: Annotated[
        Path | None, typer.Option(help="CSV file: columns image and any of mask, depth, values and split.")
    ] = None
    split_by: Annotated[
        str | None,
        typer.Option(
            help="Regular expression of the part of a name that keeps photos in one split, such as a patient."
        ),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(help="Classes of the masks: names separated by commas, their number, or a classes.json."),
    ] = None
    background: Annotated[str | None, typer.Option(help="Class of pixels that no shape of COCO or labelme covers.")] = (
        None
    )
    reduce_zero_label: Annotated[
        bool, typer.Option("--reduce-zero-label", help="Masks count from 1 and 0 is no class, as in ADE20K.")
    ] = False

    kind: Annotated[
        str | None,
        typer.Option(
            "--dataset", help="Kind of --data: folder, or a public data set as downloaded, such as cityscapes."
        ),
    ] = None

    def keys(self, **more: Any) -> dict[str, Any]:
        """The keys of ``describe`` that the options stand for, and ``more`` of them, without those not given.

        Raises:
            DataError: if ``classes`` names a file that is not a class list.
        """
        options = {key: value for key, value in vars(self).items() if key != "data"} | more
        keys = {key: value for key, value in options.items() if value is not None and value is not False}
        if "split_by" in keys:
            keys["splits"] = {"by": keys.pop("split_by")}
        if self.classes is not None:
            keys |= _class_keys(self.classes, offset=int(self.reduce_zero_label))
        return keys

    def paths(self) -> list[Path]:
        """The files and folders that the options name, which no output may replace."""
        return [value for value in vars(self).values() if isinstance(value, Path)]


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """The split and the heads to measure."""

    split: Annotated[
        str | None,
        typer.Option(help="Split to measure on; by default the one on which the model's run was evaluated."),
    ] = None
    task: Annotated[
        str | None,
        typer.Option(help="What to measure: segmentation, depth or regression; by default what the model does."),
    ] = None
    head: Annotated[
        list[str] | None, typer.Option(help="Head to measure; by default the one whose task and classes fit.")
    ] = None
    decoder: Annotated[list[str] | None, typer.Option(hidden=True)] = None

    def heads(self) -> list[str]:
        """The heads that are named."""
        return head_names(self.head, self.decoder) or []

    def select(self, model: "Model", data: Path | None, keys: dict[str, Any]) -> list["Selected"]:
        """Each head and its data; remarks on them are printed. Errors are those of ``run_data.select``."""
        from densevit.evaluation.run_data import select

        heads: list[str] | list[None] = self.heads() or [None]
        chosen = [select(model, self.task, head, data, self.split, keys) for head in heads]
        show_remarks(dict.fromkeys(message for selected in chosen for message in selected.messages))
        return chosen


def _class_keys(text: str, *, offset: int) -> dict[str, Any]:
    from densevit.data.class_list import read_class_list

    if text.lower().endswith(".json"):
        table = read_class_list(Path(text), offset=offset)
        palette = {"palette": table.palette} if table.palette else {}
        return {"classes": table.names, "ignore_index": table.ignore_index, **palette}
    return {"classes": int(text) if text.isdecimal() else tuple(name.strip() for name in text.split(","))}


def show_remarks(remarks: Iterable[str]) -> None:
    """Print sentences on the data to stderr, before work begins."""
    for remark in remarks:
        typer.echo(f"data: {printable(remark)}", err=True)
