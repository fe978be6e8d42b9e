"""Options that several commands share are one parameter of each, and options of their own on the command line."""

import inspect
from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from densevit.cli.option_groups import expand_groups


@dataclass(frozen=True, kw_only=True)
class Place:
    root: Annotated[str | None, typer.Option(help="Root.")] = None
    strict: Annotated[bool, typer.Option("--strict")] = False


def command(*, place: Place, count: int = 1) -> None:
    """A command."""
    typer.echo(f"{place} {count}")


def test_expand_groups__gives_every_field_an_option() -> None:
    app = typer.Typer()
    app.command()(expand_groups(command))

    assert CliRunner().invoke(app, ["--root", "a", "--strict", "--count", "3"]).output == (
        f"{Place(root='a', strict=True)} 3\n"
    )
    assert CliRunner().invoke(app, []).output == f"{Place()} 1\n"


def test_expand_groups__keeps_the_place_of_the_parameter_and_the_docstring() -> None:
    expanded = expand_groups(command)

    assert [*inspect.signature(expanded).parameters] == ["root", "strict", "count"]
    assert expanded.__doc__ == "A command."
