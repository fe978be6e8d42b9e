"""Start a run from what a person gives: the one road of ``densevit train`` and ``densevit.train``."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densevit.data.base import DataConfig
from densevit.data.description import describe
from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit.training.config import TrainConfig
from densevit.training.launch import is_first
from densevit.training.resolve_config import resolve_config
from densevit.training.train import train


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What a run is asked to be; see ``resolve_config`` for what is not explained here.

    Attributes:
        out: run folder.
        data: a data set, or None if the config has it.
        keys: keys of the data set that replace its own, see ``describe``.
        resume: continue the run in ``out``, or begin it if there is none.
        check: looks at the data before the run begins, as the doctor's ``check_run``; gives findings.
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
    resume: bool = False
    device: str | None = None
    check: Callable[[TrainConfig], Iterable[Any]] | None = None


def start_run(request: RunRequest, say: Callable[[str], None]) -> Path:
    """Resolve the config, look at the data, train; returns the path of the model.

    Args:
        request: the run.
        say: shows a sentence to the person, in the first process only.

    Raises:
        ConfigError: something is missing, unknown or wrong.
        DataError: the data cannot be used.
        Stopped: after a signal, once the state is saved.
    """
    if (out := request.out) is None:
        raise ConfigError("no run folder was named; give --out DIR")
    config, init = request.config, request.init
    begins = request.preset or request.recipe or init or request.decoders or request.freeze
    if request.resume and config is None:
        if (out / "config.yaml").exists():
            config = out / "config.yaml"
        elif not begins:
            raise ConfigError(f"{out} holds no run, it has no config.yaml; name its folder, or begin it with --config")
    if config is None and not (init or request.preset or request.recipe) and (request.decoders or request.freeze):
        init = "default"
    merged = resolve_config(
        config,
        request.overrides,
        preset_name=request.preset,
        data=_described(request, say),
        recipe_name=request.recipe,
        init=init,
        freeze=request.freeze,
        decoders=request.decoders,
        features=out.parent / "features",
    )
    # A run with states was checked when it began.
    if request.check is not None and not (request.resume and (out / "states").is_dir()) and is_first():
        for finding in request.check(merged):
            say(f"warning: {finding.line()}")
    return train(merged, out, resume=request.resume, device=str(pick_device(request.device)))


def _described(request: RunRequest, say: Callable[[str], None]) -> DataConfig | None:
    """The data set of the request, whose remarks are shown."""
    if isinstance(request.data, DataConfig) or (request.data is None and not request.keys):
        return request.data
    described = describe(request.data, **request.keys)
    for remark in described.remarks if is_first() else ():
        say(f"data: {remark}")
    return described.config
