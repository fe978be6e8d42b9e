"""Everything that changes between two training steps, and how it is saved and restored."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.config import to_yaml
from densevit.errors import CheckpointError, ConfigError
from densevit.io import make_folder
from densevit.training.checkpoint import load_state, save_state, states_in
from densevit.training.config import TrainConfig
from densevit.training.distributed import Group
from densevit.training.learner import Learner
from densevit.training.loss_weighting import LossWeights
from densevit.training.run.recorder import HeadMetrics
from densevit.training.seeds import restore_random_state
from densevit.training.sharded_checkpoint import TrainedTensors, load_sharded, other_model_error, save_sharded

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """Everything that the next step depends on; batches and random numbers follow from ``done``.

    Attributes:
        learner: holds the model with its weights and statistics.
        weighting: weights of the heads' losses, which may be learnt; the same in all processes.
        optimiser: with its moments.
        scaler: of the loss in fp16.
        ema: running average of the weights.
        done: finished steps.
        last_update: the number of steps after which the weights last changed.
        bad_steps: how many steps in a row have just been skipped because something was not finite.
        eval_pending: the evaluation that is due after these steps has not been finished.
        metrics: results of the last evaluation.
    """

    learner: Learner
    weighting: LossWeights
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: dict[str, Tensor]
    done: int = 0
    last_update: int = 0
    bad_steps: int = 0
    eval_pending: bool = False
    metrics: HeadMetrics = field(default_factory=dict)

    def save(
        self, folder: Path, config: TrainConfig, group: Group, *, on_written: Callable[[Path], None] | None = None
    ) -> None:
        """Write the state; all processes must call it.

        Args:
            folder: of the states.
            config: the run.
            group: its processes.
            on_written: called with the temporary path of the state before it gets its name.
        """
        # The keys are those of the first version, so that its states can be resumed.
        facts = {
            "moved": self.last_update,
            "bad": self.bad_steps,
            "unseen": self.eval_pending,
            "figures": self.metrics,
            "scaler": self.scaler.state_dict(),
            "world": group.world,
        }
        keep = config.keep_states
        if config.shard:
            save_sharded(folder, self.done, self._tensors(), facts, keep=keep, group=group, on_written=on_written)
        elif group.first:
            parts = {
                "weighting": self.weighting.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.ema,
                **facts,
            }
            save_state(folder, self.done, self.learner.model, parts, keep=keep, on_written=on_written)

    def load(self, folder: Path, config: TrainConfig, group: Group) -> None:
        """Restore the latest state that can be read, if there is one.

        Raises:
            CheckpointError: if none of the states can be read, or they are those of another run.
        """
        suffixes = {path.suffix for path in group.on_first(lambda: states_in(folder))}
        if suffixes and suffixes != {".dcp" if config.shard else ".pt"}:
            raise CheckpointError(
                f"the states in {folder} were written with shard: {str(not config.shard).lower()}; resume with that, "
                "or train into a new folder"
            )
        if config.shard:
            state = load_sharded(folder, self._tensors(), group=group)
        else:
            # One process finds the latest state that is undamaged; the others read the same one.
            latest = group.on_first(lambda: _latest(folder))
            state = None if latest is None else load_state(folder, before=latest)
        if state is None:
            return
        try:
            if not config.shard:
                self._restore_tensors(state)
                restore_random_state(state)
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:  # torch raises these where shapes or groups differ
            raise other_model_error(folder) from error
        self.done = int(state["iteration"])
        self.last_update = int(state["moved"])
        self.bad_steps = int(state["bad"])
        self.eval_pending = bool(state["unseen"])
        self.metrics = state["figures"]
        if state["world"] != group.world:
            _log.info("the run had %d processes and now has %d; batches stay the same", state["world"], group.world)

    def _tensors(self) -> TrainedTensors:
        return TrainedTensors(self.learner, self.weighting, self.optimiser, self.ema)

    def _restore_tensors(self, state: dict[str, Any]) -> None:
        self.learner.model.load_state_dict(state["model"], strict=False)
        self.weighting.load_state_dict(state["weighting"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in self.ema.keys() & state["average"].keys():
            self.ema[name].copy_(state["average"][name])


def _latest(folder: Path) -> int | None:
    state = load_state(folder)
    return None if state is None else int(state["iteration"])


def claim_folder(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Make the folder of a run.

    Raises:
        ConfigError: if it holds a run that is not to be resumed.
    """
    path = out / "config.yaml"
    if path.exists() and not resume:
        raise ConfigError(f"{out} already holds a run; pass --resume to continue it, or another --out")
    if path.exists() and path.read_text(encoding="utf-8") != to_yaml(config):
        _log.warning("the config differs from that of the run in %s; the new one is used from here on", out)
    make_folder(out)
