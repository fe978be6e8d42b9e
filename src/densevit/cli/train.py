"""``densevit train``: data in, a model out."""

from pathlib import Path
from typing import Annotated

import typer

from densevit.cli.data_options import DataOptions


def train(
    *,
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder to --resume; or give --out.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder: config, log, states, model; by default a new one in runs/.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file; the one of a run folder is valid too.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE that overrides the config; repeatable.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Model to train, see densevit models.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Training of a published model, such as setr-pup-ade20k.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Model to fine-tune: a published name, a checkpoint, or default, which ships.")
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="encoder, or a number of blocks: freeze them, and cache their output.")
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(help="Decoder to train on the encoder of --init, such as setr_mla; repeatable.")
    ] = None,
    source: DataOptions,
    time: Annotated[
        str | None, typer.Option(help="Time for the whole run in laptop mode, such as 90s or 1h; 10m by default.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run from its last state; begin it if there is none.")
    ] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Only run a non-finite batch again: a .safetensors file in bad/ of a run.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Skip the check of the data, which is that of densevit doctor --fast.")
    ] = False,
) -> None:
    """Train a model, evaluate it and save it.

    Without --preset, --recipe, --init or a --config with a model, laptop mode trains heads on a frozen encoder: it
    times this machine once, and chooses input size, views, steps and evaluations from the data and --time. With --init,
    --freeze encoder does the same for another encoder, and without it the whole model learns the classes of the data.

    Precedence: --recipe < --preset, --init, --freeze, --decoder and --data < --config < --set. The merged config is
    written to the run folder. The same command runs on many GPUs under torchrun. Ctrl-C, SIGTERM and SIGHUP save
    a state first; the exit status is then 130, 143 or 129. One run folder takes one run at a time.
    """
    from densevit.cli.terminal import printable
    from densevit.device import pick_device
    from densevit.errors import ConfigError
    from densevit.training.launch import is_first
    from densevit.training.nonfinite_batches import replay as replay_batch
    from densevit.training.signals import Stopped
    from densevit.training.start import RunRequest, start_run

    if replay is not None:
        typer.echo("\n".join(replay_batch(replay, device=str(pick_device(device)))))
        return
    if run is not None and not resume:
        raise ConfigError(f"{run} was given without an option; write --out {run}, or --resume {run} to continue a run")
    if run is not None and out not in (None, run):
        raise ConfigError(f"--resume {run} and --out {out} are two run folders; give one")
    request = RunRequest(
        out=out or run,
        config=config,
        overrides=overrides or [],
        preset=preset,
        recipe=recipe,
        init=init,
        freeze=freeze,
        decoders=decoder or (),
        data=source.data,
        keys=source.keys(),
        time=time,
        resume=resume,
        device=device,
        check=not no_check,
    )
    try:
        path = start_run(request, lambda text: typer.echo(printable(text), err=True))
    except Stopped as stopped:
        typer.echo(f"densevit: {stopped}", err=True)
        raise typer.Exit(stopped.code) from None
    if is_first():
        typer.echo(str(path))
