"""``densevit models``: list the models that have a name."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from typer.core import TyperCommand

from densevit.cli import options as shared

STANDARD_OUTPUT = Path("-")


class BareJson(TyperCommand):
    """A command whose ``--json`` may stand without a file, and then means standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put "-" behind a ``--json`` that no file follows."""
        given = list(args)
        for place, word in enumerate(args):
            if word == "--json" and (place + 1 == len(args) or args[place + 1].startswith("--")):
                given[place] = f"--json={STANDARD_OUTPUT}"
        return super().parse_args(ctx, given)


def models(
    task: Annotated[str | None, typer.Option(help="Only models for this task: segmentation or depth.")] = None,
    family: Annotated[
        str | None, typer.Option(help="Only this family: SETR, Segmenter, DPT, DINOv2 or Depth Anything.")
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(help="Only weights with this licence, such as MIT; permissive for any that allows any use."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Only models whose weights take at most this in float32, such as 500MB.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="shipped with densevit, published by others, or none for an architecture without weights."),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="Write all that is known to this JSON file; without a file, print it."),
    ] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """List the models that have a name: tasks, encoder, size, licence, metrics, and whether they have weights."""
    from densevit.checkpoints.catalogue import catalogue
    from densevit.io import write_json

    printed = json_file == STANDARD_OUTPUT
    shared.claim_outputs([None if printed else json_file], overwrite=overwrite)
    rows = catalogue(task=task, family=family, licence=licence, max_size=max_size, weights=weights)
    if json_file is not None and not printed:
        write_json(json_file, rows)
    if printed:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        Console(width=None if Console().is_terminal else 160).print(_table(rows))


def _table(rows: list[dict[str, Any]]) -> Table:
    name = Column("name", no_wrap=True)  # so that it can be copied
    metrics = Column("metrics", no_wrap=True)
    table = Table(name, "family", "task", "encoder", "parameters", "weights", "licence", metrics)
    for row in rows:
        parameters = f"{row['parameters'] / 1e6:.1f} M"
        measured = "\n".join(f"{metric} {value:.3f}" for metric, value in list(row["metrics"].items())[:SHOWN])
        facts = (", ".join(row["tasks"]), row["encoder"], parameters, row["weights"], row["licence"] or "-")
        table.add_row(row["name"], row["family"], *facts, measured)
    if not rows:
        table.caption = "no model passes all of these filters"
    return table


SHOWN = 3
"""Metrics of a model in the table; ``--json`` has all."""
