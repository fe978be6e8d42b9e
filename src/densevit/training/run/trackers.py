"""Experiment trackers: thin adapters of TensorBoard, wandb, mlflow and trackio, each imported when it is used.

A tracker that fails is dropped with a warning; it never stops the training.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFacts:
    """A run as trackers need to know it.

    Attributes:
        out: the run folder.
        name: display name.
        identity: unique, and the same when the run is resumed.
        config: of the run, as plain data.
        start: iterations that are done already.
    """

    out: Path
    project: str
    name: str
    identity: str
    config: dict[str, Any]
    start: int


@dataclass(frozen=True)
class Tracker:
    """An adapter: what it does with values and images of an iteration, and at the end of a session.

    Attributes:
        numbers: logs values by name, after so many steps.
        picture: logs an image (H, W, 3) under a name, after so many steps.
        close: ends the session; its argument says whether the run is complete.
    """

    numbers: Callable[[int, dict[str, float]], object]
    picture: Callable[[int, str, NDArray[np.uint8]], object]
    close: Callable[[bool], object]


def tensorboard(run: RunFacts) -> Tracker:
    """Event files in ``tensorboard/`` of the run folder."""
    from torch.utils.tensorboard.writer import SummaryWriter

    # Hides what an earlier session wrote for steps that are now repeated.
    writer = SummaryWriter(run.out / "tensorboard", purge_step=run.start + 1)

    def numbers(iteration: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, iteration)
        writer.flush()

    return Tracker(
        numbers,
        lambda step, name, picture: writer.add_image(name, picture, step, dataformats="HWC"),
        lambda finished: writer.close(),
    )


def wandb(run: RunFacts) -> Tracker:
    """Weights & Biases; account, mode and address come from its variables ``WANDB_*``."""
    import wandb

    session = wandb.init(
        project=run.project, name=run.name, id=run.identity, dir=str(run.out), config=run.config, resume="allow"
    )
    return Tracker(
        lambda step, values: session.log(values, step=step),
        lambda step, name, picture: session.log({name: wandb.Image(picture)}, step=step),
        lambda finished: session.finish(exit_code=0 if finished else 1),
    )


def mlflow(run: RunFacts) -> Tracker:
    """mlflow; the server or folder comes from ``MLFLOW_TRACKING_URI``."""
    import mlflow

    mlflow.set_experiment(run.project)
    query = f"tags.densevit_run = '{run.identity}'"
    earlier = mlflow.search_runs(filter_string=query, max_results=1, output_format="list")
    if earlier:
        mlflow.start_run(run_id=earlier[0].info.run_id)
    else:
        mlflow.start_run(run_name=run.name, tags={"densevit_run": run.identity})
        mlflow.log_dict(run.config, "config.json")
    return Tracker(
        lambda step, values: mlflow.log_metrics({_plain_name(k): v for k, v in values.items()}, step=step),
        lambda step, name, picture: mlflow.log_image(picture, f"pictures/{_plain_name(name)}/{step:08d}.png"),
        lambda finished: mlflow.end_run("FINISHED" if finished else "KILLED"),
    )


def trackio(run: RunFacts) -> Tracker:
    """trackio; its folder or Space comes from its variables ``TRACKIO_*``."""
    import trackio

    trackio.init(project=run.project, name=run.name, config=run.config, resume="allow", embed=False)
    return Tracker(
        lambda step, values: trackio.log(values, step=step),
        lambda step, name, picture: trackio.log({name: trackio.Image(picture)}, step=step),
        lambda finished: trackio.finish(),
    )


TRACKERS: dict[str, Callable[[RunFacts], Tracker]] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
    "trackio": trackio,
}
"""By the name in configs, which is also the name of the package and of the extra that installs it."""


class Trackers:
    """All trackers of a run.

    Args:
        tracked: per event, "step" and "eval", the last iteration that an earlier session has sent. A resumed run
            repeats the same values, which are not sent twice.
        kept: the same, for what is not repeated; TensorBoard forgets everything later.

    Raises:
        ConfigError: the package of a tracker is not installed.
    """

    def __init__(
        self, names: tuple[str, ...], facts: RunFacts, *, tracked: Mapping[str, int], kept: Mapping[str, int]
    ) -> None:
        self._open: dict[str, Tracker] = {}
        self._tracked = {name: kept if name == "tensorboard" else tracked for name in names}
        for name in names:
            try:
                self._open[name] = TRACKERS[name](facts)
            except ImportError as error:
                raise ConfigError(
                    f"tracker {name!r} needs the package {name}, which cannot be imported ({error}); install "
                    f"densevit[{name}], or remove it from trackers"
                ) from error
            except Exception as error:
                self._drop(name, error)

    def numbers(self, event: str, iteration: int, values: Mapping[str, float | None]) -> None:
        """Log the values of an event that are finite."""
        finite = {name: float(value) for name, value in values.items() if value is not None and np.isfinite(value)}
        if finite:
            self._each(event, iteration, lambda tracker: tracker.numbers(iteration, finite))

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Log an image (H, W, 3) of an evaluation."""
        self._each("eval", iteration, lambda tracker: tracker.picture(iteration, name, picture))

    def close(self, *, finished: bool) -> None:
        """End the session."""
        self._each("end", None, lambda tracker: tracker.close(finished))
        self._open.clear()

    def _each(self, event: str, iteration: int | None, call: Callable[[Tracker], object]) -> None:
        for name, tracker in list(self._open.items()):
            if iteration is not None and iteration <= self._tracked[name].get(event, 0):
                continue
            try:
                call(tracker)
            except Exception as error:
                self._drop(name, error)

    def _drop(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        lines = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        _log.warning("tracker %s failed (%s); the run continues without it", name, reason)


def _plain_name(name: str) -> str:
    """The name with everything but letters, digits and ``_-. /`` replaced by ``_``."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_-. /" else "_" for c in name)
