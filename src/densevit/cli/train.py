"""``densevit train``: data in, a model out."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    out: Annotated[Path, typer.Option(help="Run folder: config, log, states, model.safetensors.")],
    config: Annotated[Path | None, typer.Option(help="YAML file; the one of a run folder is valid too.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE laid over the config; repeatable.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Model to train, see densevit models.")] = None,
    data: Annotated[Path | None, typer.Option(help="Root of a folder data set with splits train and val.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = None,
) -> None:
    """Train a model, evaluate it and save it.

    Precedence: --preset and --data < --config < --set. The merged config is written to the run folder.
    """
    from densevit.inference.predictor import pick_device
    from densevit.training.complete import read_recipe
    from densevit.training.train import train

    if resume and config is None and (out / "config.yaml").exists():
        config = out / "config.yaml"
    recipe = read_recipe(config, overrides or [], preset_name=preset, data=data)
    path = train(recipe, out, resume=resume, device=str(pick_device(device)))
    typer.echo(str(path))
