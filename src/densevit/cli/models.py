"""``densevit models``: list the models that can be loaded by name."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from densevit.cli import options as shared


def models(
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the list to this JSON file.")] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """List the model that ships and the presets: family, encoder, parameters, licence, metrics."""
    from densevit.checkpoints.catalogue import catalogue
    from densevit.io import write_json

    shared.claim_outputs([json_file], overwrite=overwrite)
    rows = catalogue()
    if json_file is not None:
        write_json(json_file, rows)
    name = Column("name", no_wrap=True)  # so that it can be copied
    metrics = Column("metrics", no_wrap=True)
    table = Table(name, "family", "encoder", "parameters", "weights", "licence", metrics)
    for row in rows:
        parameters = f"{row['parameters'] / 1e6:.1f} M"
        weights = "shipped" if row["weights"] else "-"
        headlines = "\n".join(f"{head}: {metric} {value:.3f}" for head, metric, value in row["headlines"])
        table.add_row(row["name"], row["family"], row["encoder"], parameters, weights, row["licence"], headlines)
    Console(width=None if Console().is_terminal else 140).print(table)
