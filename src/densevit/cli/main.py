"""The command line: ``densevit COMMAND``. Commands import torch when they run, never for ``--help``."""

import logging
import os
import sys

import typer

from densevit.cli.benchmark import benchmark
from densevit.cli.convert import convert
from densevit.cli.doctor import doctor
from densevit.cli.evaluate import evaluate
from densevit.cli.merge import merge
from densevit.cli.models import models
from densevit.cli.parity import parity
from densevit.cli.predict import predict
from densevit.cli.report import report
from densevit.cli.terminal import set_up_logging
from densevit.cli.train import train
from densevit.cli.tune import tune
from densevit.device import keep_freed_memory
from densevit.errors import DensevitError

app = typer.Typer(
    name="densevit",
    help="Dense prediction with plain Vision Transformers: SETR, Segmenter and DPT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (predict, train, report, evaluate, doctor, merge, models, convert, parity, tune, benchmark):
    app.command()(command)


@app.callback()
def _options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of errors."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only print warnings and errors."),
) -> None:
    set_up_logging(quiet=quiet)
    keep_freed_memory()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if debug:
        os.environ["DENSEVIT_DEBUG"] = "1"


def main() -> None:
    """Run the command line; a user's mistake ends with its message and exit code 2."""
    try:
        app()
    except DensevitError as error:
        if os.environ.get("DENSEVIT_DEBUG"):
            raise
        typer.echo(f"densevit: {error}", err=True)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        from densevit.inference.batching import out_of_memory

        if os.environ.get("DENSEVIT_DEBUG") or not out_of_memory(error):
            raise
        typer.echo(
            "densevit: not enough memory for this image and model; use a smaller image or model, "
            "--window 512, --speed short_side=384, or a machine with more memory",
            err=True,
        )
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        typer.echo(f"densevit: {str(interruption) or 'interrupted'}", err=True)
        sys.exit(getattr(interruption, "code", 130))


if __name__ == "__main__":
    main()
