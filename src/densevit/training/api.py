"""``densevit.train``: a run as a function call."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevit.checkpoints.native import read_header
from densevit.data import Dataset, as_config
from densevit.data.base import DataConfig
from densevit.decoders import DECODERS
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
    check: bool = True,
) -> TrainResult:
    """Train a model, evaluate it and save it, as ``densevit train`` does.

    Args:
        data: a folder, zip archive or dataset.yaml; the keys of a data set, or its config; or a function that gives a
            ``densevit.data.Dataset``, with the parameter ``split`` if it has splits. None if ``config`` has it.
        out: run folder: config, log, states, model.safetensors; by default a new one in runs/.
        preset: model to train, one of ``list_models()``.
        recipe: training of a published model, such as "setr-pup-ade20k".
        init: model to start from, as for ``load``; without ``preset``, ``decoders`` and ``freeze`` all of it learns the
            classes of the data.
        decoders: decoders to train on the encoder of ``init``: kinds such as "setr_mla", or functions of ``embed_dim``,
            ``num_taps`` and ``out_channels`` that give a module. One head each, named after it.
        freeze: "encoder", or a number of blocks: they stay as they are, and their output is cached.
        time: for the whole run, such as "90s" or "1h", where its steps are planned from the data: without ``preset``
            and ``recipe``, and without ``init`` unless ``freeze="encoder"``. 10 minutes by default.
        config: YAML file of a run, or its content.
        overrides: values that override the config, by key or path: ``{"optim.lr": 1e-3, "iterations": 500}``.
        resume: continue the run in ``out`` from its last state; begin it if there is none.
        device: by default a GPU if there is one.
        check: look at the data before the run begins; what is found is logged as warnings.

    Returns:
        The path of the model, and its metrics.

    Raises:
        ConfigError: something is missing, unknown or wrong, or ``out`` holds another run.
        DataError: the data cannot be used.
        CheckpointError: a file with weights cannot be used.
        densevit.training.signals.Stopped: after Ctrl-C, once the state is saved.
    """
    given = [decoders] if isinstance(decoders, str) or callable(decoders) else list(decoders)
    request = RunRequest(
        out=None if out is None else Path(out),
        config=Path(config) if isinstance(config, str) else config,
        overrides=overrides or {},
        preset=preset,
        recipe=recipe,
        init=None if init is None else str(init),
        freeze=None if freeze is None else str(freeze),
        decoders=[decoder if isinstance(decoder, str) else DECODERS.add_by_name(decoder) for decoder in given],
        data=Path(data) if isinstance(data, str | Path) else None if data is None else as_config(data),
        time=time,
        resume=resume,
        device=device,
        check=check,
    )
    path = start_run(request, _say)
    return TrainResult(path, dict(read_header(path).card.metrics))


def _say(text: str) -> None:
    _log.log(logging.WARNING if text.startswith("warning: ") else logging.INFO, "%s", text.removeprefix("warning: "))
