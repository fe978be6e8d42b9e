"""``densevit doctor``: find what is wrong with a data set before training on it."""

import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from densevit.cli import options as shared
from densevit.cli.data_options import DataOptions
from densevit.cli.terminal import printable

if TYPE_CHECKING:
    from densevit.data import DataConfig
    from densevit.doctor.examine import Diagnosis

_COLOURS = {"error": "bold red", "warning": "bold yellow", "note": "bold blue"}


def doctor(
    *,
    root: Annotated[
        Path | None, typer.Argument(metavar="DATA", help="Data set: a folder, a zip archive, or a dataset.yaml.")
    ] = None,
    source: DataOptions,
    split: Annotated[list[str] | None, typer.Option(help="Check only this split; repeatable.")] = None,
    ignore_index: Annotated[int | None, typer.Option(help="Value of pixels without a class, instead of 255.")] = None,
    depth_unit_m: Annotated[
        float | None, typer.Option(help="Metres per unit of an integer depth map, instead of 0.001.")
    ] = None,
    colours: Annotated[Path | None, typer.Option(help="JSON file: the colour of each class in RGB masks.")] = None,
    crop: Annotated[str | None, typer.Option(help="augment.crop of the planned run: HEIGHTxWIDTH or a side.")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Open only this many photos of each split.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Check what train checks first: 24 photos per split.")] = False,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; by default one per core, at most 8.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the diagnosis to this JSON file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with pictures to this file.")] = None,
    write: Annotated[
        Path | None, typer.Option(help="Write what the data mean to this dataset.yaml, for --data of all commands.")
    ] = None,
    write_fixed: Annotated[Path | None, typer.Option(help="Write a corrected copy to this new folder.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    overwrite: shared.Overwrite = False,
) -> None:
    """Recognise a data set, and check its files, sizes, classes, masks, depth, copies and leaks.

    Nothing is changed in place. The exit code is 0 without errors, 1 with errors in the data, 2 if there is no data to
    check.
    """
    from densevit.data import FolderConfig
    from densevit.doctor.examine import FAST_PHOTOS, examine
    from densevit.io import write_bytes_atomic, write_json

    place = _one_of(root, source.data)
    keys = source.keys(ignore_index=ignore_index, depth_unit_m=depth_unit_m)
    read = [*source.paths(), root, colours]
    shared.claim_outputs([json_file, html_file, write], read, overwrite=overwrite)
    config, recognised = _describe(place, keys, draw=write is not None)
    _print([f"data: {remark}" for remark in recognised])
    if not isinstance(config, FolderConfig):
        lines = [f"not looked at: the files, since the kind {config.kind} has its own reader; training checks them"]
        lines += [f"not written: {path}" for path in (json_file, html_file, write_fixed) if path is not None]
        _print([*lines, *_write_description(config, write)])
        return
    if fast:
        sample = min(sample or FAST_PHOTOS, FAST_PHOTOS)
    scope: dict[str, Any] = {"only": split or (), "sample": sample, "crop": _crop(crop), "colours": colours}
    cores = min(8, os.cpu_count() or 1) if workers is None else workers
    console = Console(stderr=True)
    with _progress(console, "reading") as progress:
        diagnosis = examine(config, **scope, workers=cores, progress=progress)
    name = str(place or source.images or source.pairs)
    _show(diagnosis, name)
    if json_file is not None:
        from densevit.doctor.report import as_record

        write_json(json_file, as_record(diagnosis, name, recognised))
    if html_file is not None:
        from densevit.doctor.page import page

        write_bytes_atomic(html_file, page(diagnosis, name, recognised).encode())
    _print(_write_description(config, write))
    if write_fixed is not None:
        _write_copy(diagnosis, write_fixed, console)
    counts = diagnosis.count()
    if counts["error"] or (strict and counts["warning"]):
        raise typer.Exit(1)


def _write_description(config: "DataConfig", path: Path | None) -> list[str]:
    from densevit.data.description import write_description

    if path is None:
        return []
    write_description(config, path)
    return [f"description: {path}", f"next: densevit train --data {shlex.quote(str(path))}"]


def _one_of(root: Path | None, data: Path | None) -> Path | None:
    from densevit.errors import ConfigError

    if root is not None and data is not None:
        raise ConfigError(f"doctor got the data set {root} and --data {data}; one of them is accepted")
    return root if root is not None else data


def _describe(place: Path | None, keys: dict[str, Any], *, draw: bool) -> "tuple[DataConfig, tuple[str, ...]]":
    """The data set, and what was recognised; ``draw`` gives splits to data that have none."""
    from densevit.data import FolderConfig
    from densevit.data.description import describe
    from densevit.data.split_roles import with_default_draw, with_drawn_names

    described = describe(place, **keys)
    config, remarks = described.config, [*described.remarks]
    if draw and isinstance(config, FolderConfig):
        config, drawn_remarks = with_default_draw(config)
        remarks += drawn_remarks
    return with_drawn_names(config), tuple(remarks)


def _crop(text: str | None) -> tuple[int, int] | None:
    from densevit.errors import ConfigError

    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(
            f"--crop got {text!r}; HEIGHTxWIDTH in pixels or one side is accepted, such as 480x640 or 512"
        )
    return int(parts[0]), int(parts[-1])


@contextmanager
def _progress(console: Console, text: str) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(text, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _write_copy(diagnosis: "Diagnosis", out: Path, console: Console) -> None:
    from densevit.doctor.fix import write_fixed

    with _progress(console, "writing") as progress:
        copy = write_fixed(diagnosis, out, progress=progress)
    lines = [f"corrected copy: {out}, {copy.copied} files unchanged"]
    for title, by_code in (("fixed", copy.fixed), ("left out", copy.left_out)):
        lines += [f"  {title}: {len(files)} files, {code}" for code, files in sorted(by_code.items())]
    if unfixed := copy.unfixed(diagnosis):
        lines.append(f"  not fixed, since no safe way is known: {', '.join(unfixed)}")
    _print(lines)


def _print(lines: Iterable[str]) -> None:
    console = Console()
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def _show(diagnosis: "Diagnosis", name: str) -> None:
    from densevit.doctor import report

    console = Console(width=None if Console().is_terminal else 160)  # a file has no edge at which to wrap
    for title, head, rows in report.tables(diagnosis, name):
        table = Table(*head, title=printable(title), title_justify="left")
        for row in rows:
            table.add_row(*(escape(printable(cell)) for cell in row))
        console.print(table)
    for finding in diagnosis.findings:
        where = f" in {finding.split}" if finding.split else ""
        colour = _COLOURS[finding.severity]
        console.print(f"[{colour}]{finding.severity} {finding.code}[/]{escape(printable(where))}", highlight=False)
        for line in report.lines(finding, diagnosis.context):
            console.print(f"  {escape(printable(line))}", highlight=False, soft_wrap=True)
    closing = "; ".join([report.headline(diagnosis), *report.remarks(diagnosis)])
    _print([closing, *(f"not looked at: {line}" for line in report.unread(diagnosis))])
