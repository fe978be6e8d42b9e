"""``densevit models``: what ships, and the presets."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table


def models(
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the list here too.")] = None,
) -> None:
    """List the model that ships and the presets: family, encoder, parameters, licence, figures."""
    from densevit.checkpoints.catalogue import catalogue
    from densevit.io import write_json

    rows = catalogue()
    if json_file is not None:
        write_json(json_file, rows)
    name = Column("name", no_wrap=True)  # to be copied whole
    figures = Column("figures", no_wrap=True)
    table = Table(name, "family", "encoder", "parameters", "weights", "licence", figures)
    for row in rows:
        parameters = f"{row['parameters'] / 1e6:.1f} M"
        weights = "shipped" if row["weights"] else "-"
        table.add_row(row["name"], row["family"], row["encoder"], parameters, weights, row["licence"], _figures(row))
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)


def _figures(row: dict[str, Any]) -> str:
    return "\n".join(f"{head}: {name} {value:.3f}" for head, name, value in row["headlines"])
