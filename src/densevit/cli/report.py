"""``densevit report``: the page of a training run, written again."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of densevit train, finished or not.")],
) -> None:
    """Write report.html of a run folder: curves, figures, confusion, the worst images, config and environment.

    Training writes it by itself at every evaluation and at its end. Prints where it is.
    """
    from densevit.training.run.report import write_report

    typer.echo(str(write_report(run)))
