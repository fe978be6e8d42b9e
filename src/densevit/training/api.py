"""A run as a function call."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevit.checkpoints.native import read_header
from densevit.data import DATASETS, Dataset, parse_data
from densevit.data.base import DataConfig
from densevit.decoders import DECODERS
from densevit.errors import ConfigError
from densevit.training.config import TrainConfig
from densevit.training.start import RunRequest, start_run

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A run that has ended.

    Attributes:
        path: of the model, for ``densevit.load``.
        metrics: of its last evaluation, by head; empty if the data have no split val.
    """

    path: Path
    metrics: dict[str, Any]


def train(
    data: str | Path | Mapping[str, Any] | DataConfig | Callable[..., Dataset] | None = None,
    out: str | Path | None = None,
    *,
    preset: str | None = None,
    recipe: str | None = None,
    init: str | Path | None = None,
    decoders: str | Callable[..., Any] | Sequence[str | Callable[..., Any]] = (),
    freeze: str | int | None = None,
    time: str | None = None,
    config: str | Path | Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    device: str | None = None,
    check: Callable[[TrainConfig], Iterable[Any]] | None = None,
) -> TrainResult:
    """The call behind ``densevit.train``, which explains the arguments; ``check`` is that of ``RunRequest``."""
    given = [decoders] if isinstance(decoders, str) or callable(decoders) else list(decoders)
    request = RunRequest(
        out=None if out is None else Path(out),
        config=Path(config) if isinstance(config, str) else config,
        overrides=overrides or {},
        preset=preset,
        recipe=recipe,
        init=None if init is None else str(init),
        freeze=None if freeze is None else str(freeze),
        decoders=[decoder if isinstance(decoder, str) else _named(decoder, DECODERS) for decoder in given],
        data=_data(data),
        time=time,
        resume=resume,
        device=device,
        check=check,
    )
    path = start_run(request, _say)
    return TrainResult(path, dict(read_header(path).card.metrics))


def _data(data: Any) -> Path | DataConfig | None:
    if data is None or isinstance(data, DataConfig):
        return data
    if isinstance(data, str | Path):
        return Path(data)
    if not isinstance(data, Mapping) and not callable(data):
        raise ConfigError(
            f"data is of type {type(data).__name__}; a path, keys or config of a data set, or a function that gives "
            "one, is accepted; write a function of split that returns it"
        )
    try:
        return parse_data(data if isinstance(data, Mapping) else {"kind": _named(data, DATASETS)})
    except ValueError as error:
        raise ConfigError(f"data: {error}") from None


def _named(plugin: Callable[..., Any], table: Any) -> str:
    """Add a function to a table under its own name."""
    name = getattr(plugin, "__name__", type(plugin).__name__)
    table.add(name, plugin)
    return name


def _say(text: str) -> None:
    _log.log(logging.WARNING if text.startswith("warning: ") else logging.INFO, "%s", text.removeprefix("warning: "))
