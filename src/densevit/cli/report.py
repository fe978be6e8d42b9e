"""``densevit report``: write the report of a training run again."""

from pathlib import Path
from typing import Annotated

import typer

from densevit.cli import options as shared


def report(
    run: Annotated[Path, typer.Argument(help="Run folder of densevit train, finished or not.")],
    overwrite: shared.Overwrite = False,
) -> None:
    """Write report.html of a run folder: curves, metrics, confusion, the worst images, config and environment.

    Training writes it at every evaluation and at its end. Prints its path.
    """
    from densevit.training.run.report import REPORT, write_report

    shared.claim_outputs([run / REPORT], overwrite=overwrite)
    typer.echo(str(write_report(run)))
