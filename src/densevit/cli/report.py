"""``densevit report``: write the report of a training run again."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="Run folder of densevit train, finished or not.")]) -> None:
    """Write report.html of a run folder: curves, metrics, confusion, the worst images, config and environment.

    Training writes it at every evaluation and at its end. Prints its path.
    """
    from densevit.training.run.report import write_report

    typer.echo(str(write_report(run)))
