"""``densevit train``: data in, a model out."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from densevit.training.config import TrainConfig


def train(
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
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from; default is the one that ships.")] = None,
    freeze: Annotated[
        str | None, typer.Option(help="encoder, or a number of blocks: freeze them, and cache their output.")
    ] = None,
    decoder: Annotated[
        list[str] | None, typer.Option(help="Decoder to train on the encoder of --init, such as setr_mla; repeatable.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Root of a data set with splits train and val, a folder or a zip archive.")
    ] = None,
    time: Annotated[
        str | None, typer.Option(help="Time for the whole run in laptop mode, such as 90s or 1h; 10m by default.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Kind of --data: folder, or a public data set as downloaded, such as cityscapes.")
    ] = "folder",
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

    Without --preset, --recipe or a --config with a model, laptop mode trains heads on a frozen encoder: it times this
    machine once, and chooses input size, views, steps and evaluations from the data and --time.

    Precedence: --recipe < --preset, --init, --freeze, --decoder and --data < --config < --set. The merged config is
    written to the run folder. The same command runs on many GPUs under torchrun. Ctrl-C, SIGTERM and SIGHUP save
    a state first; the exit status is then 130, 143 or 129. One run folder takes one run at a time.
    """
    from densevit.device import pick_device
    from densevit.errors import ConfigError
    from densevit.training.laptop import DEFAULT_TIME, parse_time, plan
    from densevit.training.launch import is_first
    from densevit.training.nonfinite_batches import replay as replay_batch
    from densevit.training.resolve_config import resolve_config
    from densevit.training.signals import Stopped
    from densevit.training.train import train

    if replay is not None:
        typer.echo("\n".join(replay_batch(replay, device=str(pick_device(device)))))
        return
    if time is not None and resume:
        raise ConfigError("--time is for a new run, but --resume continues one as it was planned; leave --time out")
    out = _run_folder(run, out, data or config, resume=resume)
    if resume and config is None:
        if (out / "config.yaml").exists():
            config = out / "config.yaml"
        elif not (preset or recipe or init or decoder or freeze or data):
            raise ConfigError(f"{out} holds no run, it has no config.yaml; name its folder, or begin it with --config")
    laptop = _is_laptop(config, preset=preset, recipe=recipe, init=init, freeze=freeze, decoders=decoder or ())
    if laptop:
        freeze = "encoder"
    elif time is not None:
        raise ConfigError("--time is for laptop mode, but the steps of this run are set otherwise; leave --time out")
    elif config is not None and (freeze or decoder):
        typer.echo(f"{config} has a model, so it is used as it is, and laptop mode plans nothing", err=True)
    elif not (init or preset or recipe) and (decoder or freeze):
        init = "default"
    chosen_device = str(pick_device(device))

    def plan_and_say(raw: dict[str, Any], decoders: Sequence[str]) -> dict[str, Any]:
        planned = plan(raw, decoders, parse_time(time or DEFAULT_TIME), device=chosen_device)
        typer.echo("\n".join(planned.lines), err=True)
        return planned.raw

    merged = resolve_config(
        config,
        overrides or [],
        preset_name=preset,
        data=data,
        dataset=dataset,
        recipe_name=recipe,
        init=init,
        freeze=freeze,
        decoders=decoder or (),
        features=out.parent / "features",
        plan=plan_and_say if laptop else None,
    )
    checked = no_check or (resume and (out / "states").is_dir())  # a run with states was checked when it began
    if not checked and is_first():
        _warn_of_data(merged)
    try:
        path = train(merged, out, resume=resume, device=chosen_device)
    except Stopped as stopped:
        typer.echo(f"densevit: {stopped}", err=True)
        raise typer.Exit(stopped.code) from None
    if is_first():
        typer.echo(str(path))


def _warn_of_data(config: "TrainConfig") -> None:
    """Print what the quick check of the data finds."""
    from densevit.doctor.examine import check_run

    for finding in check_run(config):
        typer.echo(f"warning: {finding.line()}", err=True)


def _is_laptop(
    config: Path | None,
    *,
    preset: str | None,
    recipe: str | None,
    init: str | None,
    freeze: str | None,
    decoders: Sequence[str],
) -> bool:
    """Whether heads are trained on a frozen encoder, with settings that are still to be planned.

    Raises:
        ConfigError: in one of several processes, which would not plan the same.
    """
    from densevit.config import read_yaml
    from densevit.errors import ConfigError
    from densevit.training.launch import read_launch

    if preset or recipe or freeze not in (None, "encoder"):
        return False
    if freeze is None and (init or decoders):
        return False
    if config is not None and {"model", "init", "encoder_weights", "freeze", "lora"} & read_yaml(config).keys():
        return False
    if read_launch().world > 1:
        raise ConfigError("laptop mode plans for one process; give --config with all settings, or unset WORLD_SIZE")
    return True


def _run_folder(run: Path | None, out: Path | None, origin: Path | None, *, resume: bool) -> Path:
    """The folder that is named, else the first free one in runs/, which is named after the data or the config.

    Raises:
        ConfigError: if two are named, or none where a run is to be resumed, where there is nothing to name it after,
            or where every process would have to find the same.
    """
    from densevit.errors import ConfigError
    from densevit.training.launch import read_launch

    if run is not None and not resume:
        raise ConfigError(f"{run} was given without an option; write --out {run}, or --resume {run} to continue a run")
    if run is not None and out not in (None, run):
        raise ConfigError(f"--resume {run} and --out {out} are two run folders; give one")
    if (named := out or run) is not None:
        return named
    if resume or read_launch().world > 1:
        raise ConfigError("no run folder was named; give --out DIR")
    if origin is None:
        raise ConfigError("neither data nor a run was named; give --data DIR, or --resume with the folder of a run")
    name = re.sub(r"[^\w.-]+", "-", origin.resolve().stem).strip("-.") or "run"
    number = next(n for n in range(1, 10**9) if not (Path("runs") / f"{name}-{n}").exists())
    free = Path("runs") / f"{name}-{number}"
    typer.echo(f"the run goes to {free}; --out names another folder", err=True)
    return free
