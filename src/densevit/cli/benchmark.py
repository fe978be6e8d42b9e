"""``densevit benchmark``: our speed and memory, against other programs or alone."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from densevit_lab.benchmark.record import Record
    from densevit_lab.benchmark.suites import Options


def benchmark(
    suite: Annotated[str, typer.Option(help="peers, self, decode, training or gpu.")] = "peers",
    cases: Annotated[str, typer.Option(help='Pattern of case names, such as "setr-*".')] = "*",
    quick: Annotated[bool, typer.Option("--quick", help="Few cases and samples; ends within five minutes.")] = False,
    engine: Annotated[list[str] | None, typer.Option(help="Engine beside eager torch; may be given again.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads to measure with beside one; may be given again.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Most samples of each side.")] = 15,
    keep_freed_memory: Annotated[
        Literal["neither", "both", "ours"],
        typer.Option(help="Sides with glibc's thresholds of our command line: neither, both or ours."),
    ] = "neither",
    device: Annotated[str | None, typer.Option(help="Of --suite gpu: cuda, or cpu for a trial.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every sample here.")] = None,
    into_file: Annotated[
        Path | None, typer.Option("--into", help="Add the cases to this record, or replace them there, one by one.")
    ] = None,
    from_file: Annotated[Path | None, typer.Option("--from", help="Show this record, and measure nothing.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write a page with the tables here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Write a picture here (.png or .svg).")] = None,
) -> None:
    """Measure time, memory and the share of the machine's peak, on the same photo with the same weights.

    A bar that is not met does not change the exit code. With ``--into`` a suite can be measured in parts: the record is
    written after every case, and holds those of earlier runs on the same machine.
    """
    from densevit.io import write_bytes_atomic, write_json
    from densevit_lab.benchmark.plot import write_plot
    from densevit_lab.benchmark.record import read_record
    from densevit_lab.benchmark.report import page
    from densevit_lab.benchmark.suites import Options

    if from_file is not None:
        record = read_record(from_file)
    else:
        options = Options(
            pattern=cases,
            quick=quick,
            engines=tuple(engine or ()),
            threads=tuple(threads or ()),
            rounds=rounds,
            keep_freed_memory=keep_freed_memory,
            device=device,
        )
        record = _measure(suite, options, into_file)
    if json_file is not None:
        write_json(json_file, record.plain())
    if markdown_file is not None:
        plot = None if plot_file is None else os.path.relpath(plot_file, markdown_file.parent)
        write_bytes_atomic(markdown_file, page(record, plot=plot).encode())
    if plot_file is not None:
        write_plot(record, plot_file)
    _show(record)


def _measure(suite: str, options: "Options", into_file: Path | None) -> "Record":
    """Run a suite; with a file, its record joined with what the file holds is kept there after every case."""
    from densevit.io import write_json
    from densevit_lab.benchmark.record import joined, read_record
    from densevit_lab.benchmark.suites import open_suite, run_suite

    console = Console(stderr=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    if into_file is None:
        return run_suite(suite, options, say)
    old = read_record(into_file) if into_file.exists() else None
    order = tuple(open_suite(suite, options, say).cases)

    def join(record: "Record") -> "Record":
        return record if old is None else joined(old, record, order=order)

    def keep(record: "Record") -> None:
        whole = join(record)  # before the first case, too: a record of another machine is refused at once
        if record.cases:
            write_json(into_file, whole.plain())

    return join(run_suite(suite, options, say, keep))


def _show(record: "Record") -> None:
    from densevit_lab.benchmark import report

    console = Console()
    if not console.is_terminal:  # in a file there is no edge to fold at
        console = Console(width=220)
    for title, head, rows in report.tables(record):
        table = Table(*head, title=title)
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
    for line in report.closing(record):
        console.print(line, markup=False, highlight=False)
