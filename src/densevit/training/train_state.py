"""What a run is between two steps, and how it is put on the disk and taken up again."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from densevit.config import to_yaml
from densevit.errors import CheckpointError, ConfigError
from densevit.io import make_folder
from densevit.training.checkpoint import load_state, restore_rng, save_state, states_in
from densevit.training.config import TrainConfig
from densevit.training.distributed import Group
from densevit.training.learner import Learner
from densevit.training.loss_weighting import LossWeights
from densevit.training.run.recorder import Figures
from densevit.training.sharded_checkpoint import Spread, load_sharded, save_sharded

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class TrainState:
    """Everything that the next step depends on; batches and random numbers follow from ``done``.

    Attributes:
        learner: holds the model with its weights and statistics.
        weighting: weights of the heads' losses, which may be learnt; the same in all processes.
        optimiser: its moments.
        scaler: of the loss in fp16.
        average: running mean of the weights.
        done: finished steps.
        moved: the number of steps after which the weights last changed.
        bad: how many of the last steps, in a row, were skipped.
        unseen: an evaluation after these steps was due but has been interrupted.
        figures: of the last evaluation.
    """

    learner: Learner
    weighting: LossWeights
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: dict[str, Tensor]
    done: int = 0
    moved: int = 0
    bad: int = 0
    unseen: bool = False
    figures: Figures = field(default_factory=dict)

    def _spread(self) -> Spread:
        return Spread(self.learner, self.weighting, self.optimiser, self.average)

    def save(self, folder: Path, config: TrainConfig, group: Group) -> None:
        """Write the state; all processes must call it."""
        facts = {
            "moved": self.moved,
            "bad": self.bad,
            "unseen": self.unseen,
            "figures": self.figures,
            "scaler": self.scaler.state_dict(),
            "world": group.world,
        }
        if config.shard:
            save_sharded(folder, self.done, self._spread(), facts, keep=config.keep_states, group=group)
        elif group.first:
            parts = {
                "weighting": self.weighting.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average,
                **facts,
            }
            save_state(folder, self.done, self.learner.model, parts, keep=config.keep_states)

    def load(self, folder: Path, config: TrainConfig, group: Group) -> None:
        """Take up the latest state that can be read, if there is one.

        Raises:
            CheckpointError: if none of the states can be read, or they are those of another run.
        """
        kinds = {path.suffix for path in group.on_first(lambda: states_in(folder))}
        if kinds and kinds != {".dcp" if config.shard else ".pt"}:
            raise CheckpointError(
                f"the states in {folder} were written with shard: {str(not config.shard).lower()}; resume with that, "
                "or train into a new folder"
            )
        if config.shard:
            state = load_sharded(folder, self._spread(), group=group)
        else:
            # One process judges which state is whole, the others read that one.
            latest = group.on_first(lambda: _latest(folder))
            state = None if latest is None else load_state(folder, before=latest)
        if state is None:
            return
        try:
            if not config.shard:
                self.learner.model.load_state_dict(state["model"], strict=False)
                self.weighting.load_state_dict(state["weighting"])
                self.optimiser.load_state_dict(state["optimiser"])
                for name in self.average.keys() & state["average"].keys():
                    self.average[name].copy_(state["average"][name])
                restore_rng(state)
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, ValueError, KeyError) as error:  # torch's words for shapes and groups that differ
            raise CheckpointError(
                f"the states in {folder} are those of another model or optimiser; resume with the config of the run, "
                "or train into a new folder"
            ) from error
        self.done, self.moved, self.bad = int(state["iteration"]), int(state["moved"]), int(state["bad"])
        self.unseen = bool(state["unseen"])
        self.figures = state["figures"]
        if state["world"] != group.world:
            _log.info("the run had %d processes and now has %d; batches stay the same", state["world"], group.world)


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
