"""The command line: ``densevit COMMAND``. Commands import torch when they run, never for ``--help``."""

import io
import logging
import os
import sys
from typing import Any

import typer

from densevit import __version__
from densevit.cli.benchmark import benchmark
from densevit.cli.convert import convert
from densevit.cli.doctor import doctor
from densevit.cli.evaluate import evaluate
from densevit.cli.export import export
from densevit.cli.merge import merge
from densevit.cli.models import BareJson, models
from densevit.cli.option_groups import expand_groups
from densevit.cli.parity import parity
from densevit.cli.predict import predict
from densevit.cli.push import push
from densevit.cli.quantize import quantize
from densevit.cli.report import report
from densevit.cli.terminal import printable, set_up_logging
from densevit.cli.train import train
from densevit.cli.tune import tune
from densevit.device import keep_freed_memory
from densevit.errors import DensevitError
from densevit_runtime.boundary import (
    FAULT,
    Carried,
    carrying_interruptions,
    ended_by_signals,
    open_standard_streams,
    report_fault,
)

app = typer.Typer(
    name="densevit",
    help="Dense prediction with plain Vision Transformers: SETR, Segmenter and DPT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    predict,
    train,
    report,
    evaluate,
    doctor,
    merge,
    models,
    convert,
    push,
    export,
    quantize,
    parity,
    tune,
    benchmark,
):
    app.command(cls=BareJson if command is models else None)(carrying_interruptions(expand_groups(command)))

# Typer's exception for wrong usage, click's or a copy of it: the base of the base of BadParameter.
_WRONG_USAGE: type[Exception] = typer.BadParameter.__bases__[0].__bases__[0]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"densevit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
    ),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of errors."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Only print warnings and errors."),
) -> None:
    set_up_logging(quiet=quiet)
    keep_freed_memory()
    for client in ("httpx", "httpx2"):  # they log each request
        logging.getLogger(client).setLevel(logging.WARNING)
    if debug:
        os.environ["DENSEVIT_DEBUG"] = "1"


def _out_of_memory(error: BaseException) -> bool:
    if not isinstance(error, MemoryError | RuntimeError):
        return False
    from densevit.inference.batching import out_of_memory

    return out_of_memory(error)


def main() -> None:
    """Run the command line.

    Exit codes: 0; 1 as a command says; 2 for what the user can fix; 70 for a fault of densevit; 128 + a signal.
    """
    open_standard_streams()
    with ended_by_signals():
        sys.exit(_run())


def _run() -> int:
    """The exit code of the command; messages go to standard error."""
    try:
        return app(standalone_mode=False) or 0
    except _WRONG_USAGE as error:
        wrong: Any = error
        text = io.StringIO()
        wrong.show(text)
        typer.echo(printable(text.getvalue(), lines=True), err=True, nl=False)
        return int(wrong.exit_code)
    except Carried as error:
        return _failed(error.__cause__ or error)
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error)


def _failed(error: BaseException) -> int:
    """Say what has ended the command; the exit code."""
    if isinstance(error, KeyboardInterrupt):
        code, message = getattr(error, "code", 130), str(error) or "interrupted"
    elif os.environ.get("DENSEVIT_DEBUG"):
        raise error
    elif isinstance(error, DensevitError):
        code, message = 2, str(error)
    elif _out_of_memory(error):
        code, message = (
            2,
            (
                "not enough memory for this image and model; use a smaller image or model, "
                "--window 512, --speed short_side=384, or a machine with more memory"
            ),
        )
    else:
        code, message = FAULT, report_fault(error)
    typer.echo(printable(f"densevit: {message}", lines=True), err=True)
    return code


if __name__ == "__main__":
    main()
