"""``densevit benchmark``: our speed and memory, also against other programs."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from densevit.cli import options as shared

if TYPE_CHECKING:
    from densevit_lab.benchmark.measure import Plan
    from densevit_lab.benchmark.record import Record


def benchmark(
    suite: Annotated[str, typer.Option(help="peers, self, decode, training, int8 or gpu.")] = "peers",
    cases: Annotated[str, typer.Option(help='Pattern of case names, such as "setr-*".')] = "*",
    quick: Annotated[bool, typer.Option("--quick", help="Few cases and samples; ends within five minutes.")] = False,
    engine: Annotated[list[str] | None, typer.Option(help="Another engine besides eager torch; repeatable.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Another number of threads besides one; repeatable.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Most samples of each program.")] = 15,
    keep_freed_memory: Annotated[
        Literal["neither", "both", "ours"],
        typer.Option(help="Programs that keep freed memory, as our command line does: neither, both or ours."),
    ] = "neither",
    device: Annotated[str | None, typer.Option(help="For --suite gpu: cuda, or cpu for a trial.")] = None,
    data: Annotated[Path, typer.Option(help="For --suite int8: the folder that has camvid and nyuv2.")] = Path("data"),
    heads: Annotated[
        Path, typer.Option(help="For --suite int8: run folder of two heads on CamVid; trained there if it has none.")
    ] = Path("runs/int8-heads"),
    photos: Annotated[
        int | None, typer.Option(min=1, help="For --suite int8: most photos for each metric; all of val by default.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every sample here.")] = None,
    into_file: Annotated[
        Path | None, typer.Option("--into", help="Add the cases to this record, or replace them in it, one by one.")
    ] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="Show this record, and measure nothing.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write a page with the tables here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Write a picture here (.png or .svg).")] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Measure time, memory and the share of the machine's peak, on the same photo with the same weights.

    With ``--into`` a suite can be measured in parts: the record is written after every case, and keeps the cases of
    earlier runs on the same machine.
    """
    from densevit.io import write_bytes_atomic, write_json
    from densevit_lab.benchmark.measure import Plan
    from densevit_lab.benchmark.plot import write_plot
    from densevit_lab.benchmark.record import TORCH, read_record
    from densevit_lab.benchmark.report import page

    outputs = (json_file, into_file, markdown_file, plot_file)
    shared.claim_outputs(outputs, [from_file], overwrite=overwrite)
    if from_file is not None:
        record = read_record(from_file)
    else:
        plan = Plan(
            rounds=rounds,
            memory=min(rounds, 3),
            threads=tuple(dict.fromkeys((1, *(threads or ())))),
            keep_freed_memory=keep_freed_memory,
            engines=tuple(dict.fromkeys((TORCH, *(engine or ())))),
            photos=photos,
        )
        places: dict[str, Any] = {"device": device, "data": data, "heads": heads}
        record = _measure(suite, cases, plan.as_quick() if quick else plan, places, into_file)
    if json_file is not None:
        write_json(json_file, record.plain())
    if markdown_file is not None:
        plot = None if plot_file is None else os.path.relpath(plot_file, markdown_file.parent)
        write_bytes_atomic(markdown_file, page(record, plot=plot).encode())
    if plot_file is not None:
        write_plot(record, plot_file)
    _show(record)


def _measure(suite: str, pattern: str, plan: "Plan", places: dict[str, Any], into_file: Path | None) -> "Record":
    """Run a suite; with a file, it holds the merged record after every case."""
    from densevit.io import write_json
    from densevit_lab.benchmark.record import merge_records, read_record
    from densevit_lab.benchmark.suites import case_names, run_suite

    console = Console(stderr=True)
    old = read_record(into_file) if into_file is not None and into_file.exists() else None
    order = case_names(suite)

    def merged(record: "Record") -> "Record":
        return record if old is None else merge_records(old, record, order=order)

    def keep(record: "Record") -> None:
        whole = merged(record)  # also before the first case: a record of another machine is refused at once
        if into_file is not None and record.cases:
            write_json(into_file, whole.plain())

    say = partial(console.print, markup=False, highlight=False)
    return merged(run_suite(suite, plan, say, pattern=pattern, keep=keep, **places))


def _show(record: "Record") -> None:
    from densevit_lab.benchmark.report import closing_lines, measured_table

    console = Console(width=None if Console().is_terminal else 220)  # a file has no width at which to fold
    head, rows = measured_table(record)
    table = Table(*head, title="measured")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)
    for line in closing_lines(record):
        console.print(line, markup=False, highlight=False)
