"""Programs that follow runs: TensorBoard, wandb, mlflow and trackio, each by a thin adapter that is imported lazily.

An adapter takes numbers and pictures by iteration. One that fails is left alone after one warning: a training never
stops because of who watches it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from densevit.errors import ConfigError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run.

    Attributes:
        out: the run folder.
        project: under which the run is filed.
        name: of the run.
        identity: a word of its own, the same when the run is resumed.
        config: of the run, as plain data.
        start: iterations that are done already.
    """

    out: Path
    project: str
    name: str
    identity: str
    config: dict[str, Any]
    start: int


class Tracker(Protocol):
    """What an adapter does."""

    def numbers(self, iteration: int, values: dict[str, float], /) -> None:
        """Figures by name, as they were after ``iteration`` steps."""
        ...

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8], /) -> None:
        """A picture (H, W, 3)."""
        ...

    def close(self, *, finished: bool) -> None:
        """The session ends; ``finished`` if the run came to its end."""
        ...


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder."""

    def __init__(self, facts: RunFacts) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # What an earlier session wrote of the steps that now come again is then not shown.
        self.writer = SummaryWriter(facts.out / "tensorboard", purge_step=facts.start + 1)

    def numbers(self, iteration: int, values: dict[str, float], /) -> None:
        """As scalars, which other processes can read at once."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)
        self.writer.flush()

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8], /) -> None:
        """As an image."""
        self.writer.add_image(name, picture, iteration, dataformats="HWC")

    def close(self, *, finished: bool) -> None:
        """Close the file."""
        self.writer.close()


class Wandb:
    """Weights & Biases; account, mode and address as its own variables (``WANDB_*``) say."""

    def __init__(self, facts: RunFacts) -> None:
        import wandb

        self.wandb = wandb
        self.run = wandb.init(
            project=facts.project,
            name=facts.name,
            id=facts.identity,
            dir=str(facts.out),
            config=facts.config,
            resume="allow",
        )

    def numbers(self, iteration: int, values: dict[str, float], /) -> None:
        """As history."""
        self.run.log(values, step=iteration)

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8], /) -> None:
        """As an image of the history."""
        self.run.log({name: self.wandb.Image(picture)}, step=iteration)

    def close(self, *, finished: bool) -> None:
        """Send what is left."""
        self.run.finish(exit_code=0 if finished else 1)


class Mlflow:
    """mlflow; the server or folder as ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, facts: RunFacts) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.set_experiment(facts.project)
        wanted = f"tags.densevit_run = '{facts.identity}'"
        earlier = mlflow.search_runs(filter_string=wanted, max_results=1, output_format="list")
        if earlier:
            mlflow.start_run(run_id=earlier[0].info.run_id)
        else:
            mlflow.start_run(run_name=facts.name, tags={"densevit_run": facts.identity})
            mlflow.log_dict(facts.config, "config.json")

    def numbers(self, iteration: int, values: dict[str, float], /) -> None:
        """As metrics; mlflow takes few kinds of letters in names."""
        self.mlflow.log_metrics({_plain_name(name): value for name, value in values.items()}, step=iteration)

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8], /) -> None:
        """As an artefact."""
        self.mlflow.log_image(picture, f"pictures/{_plain_name(name)}/{iteration:08d}.png")

    def close(self, *, finished: bool) -> None:
        """End the run."""
        self.mlflow.end_run("FINISHED" if finished else "KILLED")


class Trackio:
    """trackio; its folder or Space as its own variables (``TRACKIO_*``) say."""

    def __init__(self, facts: RunFacts) -> None:
        import trackio

        self.trackio = trackio
        trackio.init(project=facts.project, name=facts.name, config=facts.config, resume="allow", embed=False)

    def numbers(self, iteration: int, values: dict[str, float], /) -> None:
        """As metrics."""
        self.trackio.log(values, step=iteration)

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8], /) -> None:
        """As an image among the metrics."""
        self.trackio.log({name: self.trackio.Image(picture)}, step=iteration)

    def close(self, *, finished: bool) -> None:
        """Write what is left."""
        self.trackio.finish()


TRACKERS: dict[str, Callable[[RunFacts], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
"""The key stands in configs, and is the extra and the package that is needed."""


class Trackers:
    """The trackers of a run together.

    Args:
        names: of ``TRACKERS``.
        facts: of the run.
        told: per event, "step" and "eval", the last iteration that an earlier session of the run has told of. What
            comes again is the same again, and is not sent a second time.
        kept: the same, of what is not made again; TensorBoard forgets all beyond.

    Raises:
        ConfigError: the package of a tracker is not installed.
    """

    def __init__(
        self, names: tuple[str, ...], facts: RunFacts, *, told: Mapping[str, int], kept: Mapping[str, int]
    ) -> None:
        self._open: dict[str, Tracker] = {}
        self._told = {name: kept if name == "tensorboard" else told for name in names}
        for name in names:
            try:
                self._open[name] = TRACKERS[name](facts)
            except ImportError as error:
                raise ConfigError(
                    f"tracker {name!r} needs the package {name}, which cannot be imported ({error}); install "
                    f"densevit[{name}], or take it out of trackers"
                ) from error
            except Exception as error:
                self._leave(name, error)

    def numbers(self, event: str, iteration: int, values: Mapping[str, float | None]) -> None:
        """Tell figures of an event; those that are not known or not finite are left out."""
        known = {name: float(value) for name, value in values.items() if value is not None and np.isfinite(value)}
        if known:
            self._each(event, iteration, lambda tracker: tracker.numbers(iteration, known))

    def picture(self, iteration: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Show a picture (H, W, 3) of an evaluation."""
        self._each("eval", iteration, lambda tracker: tracker.picture(iteration, name, picture))

    def close(self, *, finished: bool) -> None:
        """End the session."""
        self._each("end", None, lambda tracker: tracker.close(finished=finished))
        self._open.clear()

    def _each(self, event: str, iteration: int | None, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            if iteration is not None and iteration <= self._told[name].get(event, 0):
                continue
            try:
                call(tracker)
            except Exception as error:
                self._leave(name, error)

    def _leave(self, name: str, error: Exception) -> None:
        self._open.pop(name, None)
        words = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
        _log.warning("tracker %s failed (%s); the run goes on without it", name, reason)


def _plain_name(name: str) -> str:
    """Letters, digits and ``_-. /`` alone, others as ``_``."""
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_-. /" else "_" for c in name)
