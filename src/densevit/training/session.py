"""What the steps and evaluations of one call of ``train`` share, and how it evaluates and ends."""

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import nn

from densevit.evaluation.inspection import EvaluationRecorder
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import SourceBatches
from densevit.training.checkpoint import forget_old
from densevit.training.config import TrainConfig
from densevit.training.datasets import validate
from densevit.training.distributed import Group, gather_full_weights
from densevit.training.ema import ema_weights
from densevit.training.feature_cache import FeatureCache
from densevit.training.hooks import TrainHooks
from densevit.training.run.recorder import RunRecorder, score_of
from densevit.training.signals import Interrupted, StopRequest
from densevit.training.train_state import TrainState

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """Everything that the steps and evaluations of one call of ``train`` use; only ``state`` changes between steps."""

    config: TrainConfig
    out: Path
    group: Group
    stop_request: StopRequest
    hooks: TrainHooks
    tasks: dict[str, Task]
    cache: FeatureCache | None
    sources: list[SourceBatches]
    network: nn.Module  # the learner, wrapped so that processes share gradients
    state: TrainState
    recorder: RunRecorder | None = None  # only the first process writes to the run folder

    @property
    def model(self) -> DenseModel:
        """The model that is trained."""
        return self.state.learner.model


def evaluate_now(run: Session) -> None:
    """Evaluate the model that would be saved now; it stays pending in the state until all of it is done."""
    config, group, state = run.config, run.group, run.state
    state.eval_pending = True
    with eval_model_of(run) as eval_model:
        recorder = EvaluationRecorder(config.pictures)
        metrics = validate(
            eval_model,
            run.tasks,
            config,
            run.cache,
            part=(group.rank, group.world),
            add=group.sum if group.world > 1 else None,
            progress=partial(_on_progress, run),
            recorder=recorder,
        )
        for other in group.gather(recorder)[1:]:
            recorder.merge(other)
        if run.recorder is not None:
            run.recorder.evaluated(state.done, metrics, eval_model, run.tasks, recorder)
    state.evaluated(metrics, score_of(metrics, run.tasks))


def _on_progress(run: Session, done: int, total: int) -> None:
    run.hooks.on_eval_progress(done, total)
    if run.stop_request.signal and run.group.world == 1:  # one of several processes cannot leave an evaluation
        raise Interrupted


def eval_model_of(run: Session) -> AbstractContextManager[DenseModel]:
    """The model that is evaluated and saved: whole, with averaged weights if the run has them."""
    if run.config.shard:
        return gather_full_weights(run.model, run.state.ema, run.group)
    return ema_weights(run.model, run.state.ema)


def is_stale(run: Session) -> bool:
    """Whether the run ends before its last step, because its evaluations no longer gain."""
    patience, state = run.config.patience, run.state
    stale = patience is not None and state.stale >= patience
    if stale and run.group.first:
        _log.info(
            "%d evaluations in a row were no better than the best, so the run ends after %d of %d steps; raise "
            "patience to go on",
            state.stale,
            state.done,
            run.config.iterations,
        )
    return stale


def finish(run: Session) -> Path:
    """Write the finished model; returns its path in every process."""
    run.hooks.before_finish()
    with eval_model_of(run) as eval_model:
        path = run.group.on_first(lambda: run.recorder.finish(eval_model, run.tasks) if run.recorder else run.out)
    if run.config.keep_states is None:  # the last state is all that a longer run needs
        run.group.on_first(lambda: forget_old(run.out / "states", 1))
    return path
