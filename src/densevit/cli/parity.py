"""``densevit parity``: our outputs against those that reference programs wrote down."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of fixtures: NAME.json, NAME.safetensors.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every comparison here.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table here.")] = None,
) -> None:
    """Run the raw weights of reference models through importer and protocol, and compare every tensor written down.

    The exit code is 1 if one is not reproduced.
    """
    from densevit.io import write_bytes_atomic, write_json
    from densevit_lab.parity.check import check_folder
    from densevit_lab.parity.report import markdown, merge

    rows = check_folder(folder)
    merged = merge(rows)
    if json_file is not None:
        write_json(json_file, [row.plain() for row in rows])
    if markdown_file is not None:
        write_bytes_atomic(markdown_file, markdown(merged).encode())
    table = Table("source", "variant", "case", "tensors", "relative error", "tolerance", "verdict")
    for row in merged:
        error = row.problem or f"{row.error:.1e}"
        verdict = "pass" if row.passed else "[red]FAIL[/red]"
        table.add_row(row.source, row.variant, row.case, str(row.count), escape(error), f"{row.tolerance:.0e}", verdict)
    console = Console()
    if not console.is_terminal:  # in a file there is no edge to fold at
        console = Console(width=200)
    console.print(table)
    failed = sum(not row.passed for row in rows)
    typer.echo(f"{len(rows) - failed} of {len(rows)} comparisons passed, {failed} failed")
    if failed:
        raise typer.Exit(1)
