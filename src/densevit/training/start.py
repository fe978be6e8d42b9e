"""Start a run from what a person gives: the one road of ``densevit train`` and ``densevit.train``."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densevit.config import read_yaml
from densevit.data.base import DataConfig
from densevit.data.description import describe
from densevit.data.folder_config import FolderConfig
from densevit.data.sample import TARGET_FOLDERS
from densevit.device import pick_device
from densevit.doctor.examine import fast_check
from densevit.doctor.rules import Finding
from densevit.errors import ConfigError, DataError
from densevit.training.config import TrainConfig
from densevit.training.laptop import DEFAULT_TIME, plan
from densevit.training.launch import is_first, read_launch
from densevit.training.resolve_config import resolve_config
from densevit.training.train import train

_TIME = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is asked to be; see ``resolve_config`` for what is not explained here.

    Attributes:
        out: run folder; by default a new one in runs/.
        data: a data set, or None if the config has it.
        keys: keys of the data set that replace its own, see ``describe``.
        time: for the whole run in laptop mode, such as "90s" or "1h"; 10 minutes by default.
        resume: continue the run in ``out``, or begin it if there is none.
        check: whether the doctor looks at the data before the run begins.
    """

    out: Path | None
    config: Path | Mapping[str, Any] | None = None
    overrides: Sequence[str] | Mapping[str, Any] = ()
    preset: str | None = None
    recipe: str | None = None
    init: str | None = None
    freeze: str | None = None
    decoders: Sequence[str] = ()
    data: Path | DataConfig | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)
    time: str | None = None
    resume: bool = False
    device: str | None = None
    check: bool = True

    @property
    def begins(self) -> bool:
        """Whether a run can begin without a config."""
        return bool(self.preset or self.recipe or self.init or self.decoders or self.freeze or self.data or self.keys)


def start_run(request: RunRequest, say: Callable[[str], None]) -> Path:
    """Resolve the config, look at the data, train; returns the path of the model.

    Args:
        request: the run.
        say: shows a sentence to the person; it is called in the first process only.

    Raises:
        ConfigError: something is missing, unknown or wrong.
        DataError: the data cannot be used.
        Stopped: after a signal, once the state is saved.
    """
    say = say if is_first() else lambda text: None
    if request.time is not None and request.resume:
        raise ConfigError("--time is for a new run, but --resume continues one as it was planned; leave --time out")
    if (out := request.out) is None:
        out = _free_folder(request)
        say(f"the run goes to {out}; --out names another folder")
    config, init, freeze = request.config, request.init, request.freeze
    if request.resume and config is None:
        if (out / "config.yaml").exists():
            config = out / "config.yaml"
        elif not request.begins:
            raise ConfigError(f"{out} holds no run, it has no config.yaml; name its folder, or begin it with --config")
    keys = _model_keys(config)
    if laptop := _is_laptop(request, keys):
        freeze = "encoder"
    elif request.time is not None:
        raise ConfigError("--time is for laptop mode, but the steps of this run are set otherwise; leave --time out")
    elif freeze or request.decoders:
        if keys:
            name = config if isinstance(config, Path) else "the config"
            say(f"{name} sets {keys[0]}, so laptop mode plans nothing")
        if not (init or request.preset or request.recipe or {"model", "init", "encoder_weights"} & {*keys}):
            init = "default"
    device, budget_s = str(pick_device(request.device)), parse_time(request.time or DEFAULT_TIME)

    def check(config: TrainConfig) -> None:
        # A run with states was checked when it began. A plan chooses the crop after the check.
        if request.check and not (request.resume and (out / "states").is_dir()) and is_first():
            for finding in check_run(config, crop=not laptop):
                say(f"warning: {finding.line()}")

    def plan_and_say(raw: dict[str, Any], decoders: Sequence[str]) -> dict[str, Any]:
        planned = plan(raw, decoders, budget_s, device=device, check=check)
        for line in planned.lines:
            say(line)
        return planned.raw

    merged = resolve_config(
        config,
        request.overrides,
        preset_name=request.preset,
        data=_described(request, say),
        recipe_name=request.recipe,
        init=init,
        freeze=freeze,
        decoders=request.decoders,
        features=out.parent / "features",
        plan=plan_and_say if laptop else None,
    )
    if not laptop:
        check(merged)
    return train(merged, out, resume=request.resume, device=device)


def check_run(config: TrainConfig, *, crop: bool = True) -> list[Finding]:
    """Check the data of a run for a few seconds, before its first step.

    Args:
        config: the run.
        crop: whether photos are compared with the run's crops.

    Returns:
        Warnings, which do not stop the run.

    Raises:
        DataError: lists every error, since training would stop at it or learn something wrong.
    """
    findings: list[Finding] = []
    for source in config.sources:
        roles = {"train": source.train, "val": source.val}
        places = {role: place for role, place in roles.items() if isinstance(place, FolderConfig)}
        kinds = {TARGET_FOLDERS[config.tasks[head].target] for head in source.heads}
        size = (source.augment or config.augment).crop if crop else None
        findings += fast_check(places, kinds=sorted(kinds), crop=size)
    errors = [finding.line() for finding in findings if finding.severity == "error"]
    if errors:
        lines = "\n  ".join(errors)
        raise DataError(
            f"errors in the data, found before the first step: {len(errors)}\n  {lines}\n"
            "fix them (`densevit doctor` shows all), or train with --no-check"
        )
    return [finding for finding in findings if finding.severity == "warning"]


def _described(request: RunRequest, say: Callable[[str], None]) -> DataConfig | None:
    """The data set of the request, whose remarks are shown."""
    if isinstance(request.data, DataConfig) or (request.data is None and not request.keys):
        return request.data
    described = describe(request.data, **request.keys)
    for remark in described.remarks:
        say(f"data: {remark}")
    return described.config


def _model_keys(config: Path | Mapping[str, Any] | None) -> list[str]:
    """The keys of a config that say what is trained, so that laptop mode plans nothing."""
    given = {} if config is None else config if isinstance(config, Mapping) else read_yaml(config)
    return [key for key in ("model", "init", "encoder_weights", "freeze", "lora") if key in given]


def _is_laptop(request: RunRequest, keys: Sequence[str]) -> bool:
    """Whether heads are trained on a frozen encoder, with settings that are still to be planned.

    ``keys`` are those of ``_model_keys``.

    Raises:
        ConfigError: in one of several processes, which would not plan the same.
    """
    if keys or request.preset or request.recipe or request.freeze not in (None, "encoder"):
        return False
    if request.freeze is None and request.init:
        return False
    if read_launch().world > 1:
        raise ConfigError("laptop mode plans for one process; give --config with all settings, or unset WORLD_SIZE")
    return True


def _free_folder(request: RunRequest) -> Path:
    """The first free folder in runs/, named after the data or the config.

    Raises:
        ConfigError: if neither is given, a run is to be resumed, or every process would have to find the same folder.
    """
    if request.resume or read_launch().world > 1:
        raise ConfigError("no run folder was named; give --out DIR")
    data, places = request.data, [request.keys.get(key) for key in ("images", "pairs")]
    root = getattr(data, "root", None) if isinstance(data, DataConfig) else data
    origins = [origin for origin in (root, *places, request.config) if isinstance(origin, Path)]
    if not origins and data is None and request.config is None:
        raise ConfigError("neither data nor a run was named; give --data DIR, or --resume with the folder of a run")
    stem = origins[0].resolve().stem if origins else str(getattr(data, "kind", "run"))
    name = re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "run"
    number = next(n for n in range(1, 10**9) if not (Path("runs") / f"{name}-{n}").exists())
    return Path("runs") / f"{name}-{number}"


def parse_time(text: str) -> float:
    """``90s``, ``10m``, ``1h30m`` -> seconds.

    Raises:
        ConfigError: if it is anything else, or less than ten seconds.
    """
    found = _TIME.fullmatch(text.strip().replace(" ", ""))
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if not 10 <= seconds <= 1e6:
        raise ConfigError(f"--time is {text!r}; a time from ten seconds on is accepted, such as 90s, 10m or 1h30m")
    return seconds
