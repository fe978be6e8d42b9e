"""``densevit parity``: our outputs against recorded outputs of the reference programs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from densevit.cli import options as shared


def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of fixtures: NAME.json, NAME.safetensors.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every comparison here.")] = None,
    markdown_file: Annotated[Path | None, typer.Option("--markdown", help="Write the table here.")] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Import the raw weights of reference models, run their protocols, and compare every recorded tensor.

    The exit code is 1 if a tensor is not reproduced.
    """
    from densevit.io import write_bytes_atomic, write_json
    from densevit_lab.parity.check import check_folder
    from densevit_lab.parity.report import HEAD, markdown, merge

    shared.claim_outputs([json_file, markdown_file], [folder], overwrite=overwrite)
    rows = check_folder(folder)
    merged = merge(rows)
    if json_file is not None:
        write_json(json_file, [row.plain() for row in rows])
    if markdown_file is not None:
        write_bytes_atomic(markdown_file, markdown(merged).encode())
    table = Table(*HEAD)
    for row in merged:
        table.add_row(*map(escape, row.cells()), style=None if row.passed else "red")
    console = Console(width=None if Console().is_terminal else 200)  # a file has no width at which to fold
    console.print(table)
    failed = sum(not row.passed for row in rows)
    typer.echo(f"{len(rows) - failed} of {len(rows)} comparisons passed, {failed} failed")
    if failed:
        raise typer.Exit(1)
