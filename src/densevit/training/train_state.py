"""Everything that changes between two training steps, and how it is saved and restored."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.config import to_yaml
from densevit.data.description import description_file
from densevit.errors import CheckpointError, ConfigError, DataError
from densevit.evaluation.evaluate import nothing_known
from densevit.io import make_folder
from densevit.training.batches import Batch
from densevit.training.checkpoint import (
    KEEP,
    check_names,
    load_state,
    other_model_error,
    save_state,
    states_in,
    trained_weights,
)
from densevit.training.config import TrainConfig
from densevit.training.distributed import Group
from densevit.training.ema import averaged
from densevit.training.learner import Learner
from densevit.training.loss_weighting import LossWeights
from densevit.training.run.recorder import HeadMetrics
from densevit.training.seeds import restore_random_state
from densevit.training.sharded_checkpoint import create_slots, load_sharded, save_sharded
from densevit_runtime.io.decode import reason
from densevit_runtime.io.outputs import may_replace

_WRITTEN = ("environment.json", "log.jsonl", "report.html", "best.safetensors", "model.safetensors")
"""Files that a run writes after its config.yaml, and replaces; the descriptions of its data are others."""
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
        best_score: of the evaluations so far; see ``score_of``.
        stale: how many evaluations in a row have just not been better than the best.
        untaught: heads for which no target pixel of this session has counted so far.
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
    best_score: float | None = None
    stale: int = 0
    untaught: set[str] = field(default_factory=set)

    def save(
        self, folder: Path, config: TrainConfig, group: Group, *, on_written: Callable[[Path], None] | None = None
    ) -> None:
        """Write the state; all processes must call it. ``on_written`` gets its path before it has its final name."""
        # The keys are those of the first version, so that its states can be resumed.
        progress = {
            "moved": self.last_update,
            "bad": self.bad_steps,
            "unseen": self.eval_pending,
            "figures": self.metrics,
            "scaler": self.scaler.state_dict(),
            "world": group.world,
        }
        if config.patience is not None:
            progress |= {"best": self.best_score, "stale": self.stale}
        keep = config.keep_states or KEEP
        if config.shard:
            save_sharded(folder, self.done, self._tensors(), progress, keep=keep, group=group, on_written=on_written)
        elif group.first:
            parts = {
                "weighting": self.weighting.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.ema,
                **progress,
            }
            save_state(folder, self.done, self.learner.model, parts, keep=keep, on_written=on_written)

    def load(self, folder: Path, config: TrainConfig, group: Group) -> None:
        """Restore the latest state that can be read, if there is one.

        Raises:
            CheckpointError: if none of the states can be read, or they are those of another run.
        """
        suffixes = {path.suffix for path in group.on_first(lambda: states_in(folder))}
        if not suffixes:
            return
        if suffixes != {".dcp" if config.shard else ".pt"}:
            raise CheckpointError(
                f"the states in {folder} were written with shard: {str(not config.shard).lower()}; resume with that, "
                "or train into a new folder"
            )
        if config.shard:
            create_slots(self.optimiser)
            tensors = self._tensors()
            state = load_sharded(folder, tensors, group=group)
        else:
            # One process finds the latest state that is undamaged; the others read the same one.
            latest = group.on_first(lambda: (load_state(folder) or {}).get("iteration"))
            tensors = state = load_state(folder, before=latest) or {}
        try:
            # Weights of a sharded state have the names that they have in the learner.
            holder = self.learner if config.shard else self.learner.model
            check_names(holder, tensors["model"])
            holder.load_state_dict(tensors["model"], strict=False)
            self.weighting.load_state_dict(tensors["weighting"])
            if not config.shard:
                self.optimiser.load_state_dict(state["optimiser"])
                restore_random_state(state)
            current = averaged(self.learner.model)
            for name, average in self.ema.items():
                if name not in tensors["average"]:  # a state without an average, or of before buffers had one
                    average.copy_(current[name].detach())
                elif not config.shard:  # sharded averages are loaded in place
                    average.copy_(tensors["average"][name])
            self.scaler.load_state_dict(state["scaler"])
            self.done = int(state["iteration"])
            self.last_update = int(state["moved"])
            self.bad_steps = int(state["bad"])
            self.eval_pending = bool(state["unseen"])
            self.metrics = {head: dict(values) for head, values in state["figures"].items()}
            world = int(state["world"])
            self.best_score, self.stale = state.get("best"), int(state.get("stale", 0))
        # torch raises these where names, shapes, groups or types differ
        except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise other_model_error(folder) from error
        if self.done:
            self.untaught = set()  # checked before the state was written, unless a signal came first
        if world != group.world:
            _log.info("the run had %d processes and now has %d; batches stay the same", world, group.world)

    def evaluated(self, metrics: HeadMetrics, score: float | None) -> None:
        """Note the results of an evaluation, and whether it is better than all before."""
        self.eval_pending, self.metrics = False, metrics
        gained = score is not None and (self.best_score is None or score > self.best_score)
        self.best_score, self.stale = (score, 0) if gained else (self.best_score, self.stale + 1)

    def see_targets(self, batches: Sequence[Sequence[Batch]]) -> None:
        """Note the heads that learn from a step's batches, whose targets are still on the CPU."""
        for head in tuple(self.untaught):
            targets = [batch.targets[head] for micro_batch in batches for batch in micro_batch if head in batch.targets]
            if any(map(self.learner.tasks[head].knows, targets)):
                self.untaught.remove(head)

    def check_taught(self, group: Group) -> None:
        """Refuse to go on if a head has learnt from no target pixel in any process; all processes must call it.

        Raises:
            DataError: naming the head.
        """
        self.untaught = set.intersection(*group.gather(self.untaught))
        if self.untaught:
            head = min(self.untaught)
            raise DataError(nothing_known(head, self.learner.tasks[head], f"the first {self.done} steps"))

    def _tensors(self) -> dict[str, Any]:
        """The tensors themselves, not copies, by name; a sharded state is restored by loading into them."""
        named = (*self.learner.named_parameters(), *self.weighting.named_parameters("weighting"))
        names = {id(parameter): name for name, parameter in named}
        slots = {
            f"{names[id(parameter)]}/{slot}": value
            for parameter, values in self.optimiser.state.items()
            for slot, value in values.items()
            if isinstance(value, Tensor)
        }
        weights = trained_weights(self.learner)
        weighting = dict(self.weighting.state_dict())
        return {"model": weights, "weighting": weighting, "optimiser": slots, "average": dict(self.ema)}


def claim_folder(config: TrainConfig, out: Path, *, resume: bool) -> None:
    """Make the folder of a run.

    Raises:
        ConfigError: if it holds a run that is not to be resumed, files of others with the names of a run's, or models
            that were changed.
    """
    path = out / "config.yaml"
    if path.exists() and not resume:
        raise ConfigError(f"{out} already holds a run; pass --resume to continue it, or another --out")
    written = (*(description_file(number) for number in range(len(config.sources))), *_WRITTEN)
    foreign = [name for name in written if not path.exists() and (out / name).exists()]
    if foreign:
        raise ConfigError(
            f"{out} holds {', '.join(foreign)} but no config.yaml, so it is not the folder of a run, which would "
            "replace them; choose another --out"
        )
    changed = [name for name in ("best.safetensors", "model.safetensors") if not may_replace(out / name)]
    if changed:
        raise ConfigError(
            f"{out} holds {', '.join(changed)}, which somebody changed after the run wrote it, and which the run would "
            "replace; move it away and resume again"
        )
    try:
        earlier = path.read_text(encoding="utf-8", errors="replace") if path.exists() else None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({reason(error)}); train into a new folder") from None
    if earlier not in (None, to_yaml(config)):
        _log.warning("the config differs from that of the run in %s; the new one is used from here on", out)
    make_folder(out)
