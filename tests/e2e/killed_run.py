"""A training run in a process of its own that kills itself at a certain moment.

``python -m tests.e2e.killed_run CONFIG OUT WORKERS MOMENT`` with a key of ``MOMENTS``.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from densevit.training.batches import Batch
from densevit.training.config import TrainConfig
from densevit.training.hooks import TrainHooks
from densevit.training.resolve_config import complete
from densevit.training.train import train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class InAState(TrainHooks):
    """Half of the state of iteration 6 is on the disk."""

    def on_state_written(self, iteration: int, path: Path) -> None:
        if iteration == 6:
            os.truncate(path, path.stat().st_size // 2)
            die()


class InAnEvaluation(TrainHooks):
    """The metrics of the first of two heads are in the log."""

    def on_log(self, event: str, iteration: int) -> None:
        if (event, iteration) == ("eval", 10):
            die()


class AfterTheLastState(TrainHooks):
    """The finished model is about to be written."""

    def before_finish(self) -> None:
        die()


class SlowSteps(TrainHooks):
    """Lives, but every step takes a minute."""

    def before_step(self, iteration: int, batches: Sequence[Sequence[Batch]]) -> None:
        print("step", flush=True)
        time.sleep(60)


class SecondOfTwo(TrainHooks):
    """The second process dies in the step after the first has saved a state, unless torchrun has restarted it."""

    def before_step(self, iteration: int, batches: Sequence[Sequence[Batch]]) -> None:
        if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" and iteration == 3:
            while not list((Path(out) / "states").glob("state-*.pt")):
                time.sleep(0.01)
            die()


MOMENTS = {hooks.__name__: hooks for hooks in (InAState, InAnEvaluation, AfterTheLastState, SlowSteps, SecondOfTwo)}

if __name__ == "__main__":
    # Jobs in a shell's background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO)
    config, out, workers, moment = sys.argv[1:]
    raw = {**yaml.safe_load(Path(config).read_text()), "workers": int(workers)}
    train(TrainConfig.parse(complete(raw)), Path(out), resume=True, hooks=MOMENTS[moment]())
