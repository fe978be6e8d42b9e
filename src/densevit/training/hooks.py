"""Points of the training loop at which other code can run."""

from collections.abc import Sequence
from pathlib import Path

from densevit.training.batches import Batch


class TrainHooks:
    """Callbacks of ``train``; a subclass overrides the ones it needs.

    They serve callbacks of a program that embeds the loop, and tests of runs that are killed. Every process calls
    them, except ``on_log`` and ``on_state_written``, which only run where a file is written. What a hook raises ends
    the run like any other error.
    """

    def before_step(self, iteration: int, batches: Sequence[Sequence[Batch]]) -> None:
        """A step is about to run.

        Args:
            iteration: finished steps.
            batches: per micro-batch one batch per source, of this process; may be changed in place.
        """

    def on_eval_progress(self, done: int, total: int) -> None:
        """``done`` of ``total`` images of an evaluation are measured."""

    def on_log(self, event: str, iteration: int) -> None:
        """A line has been written to ``log.jsonl``."""

    def on_state_written(self, iteration: int, path: Path) -> None:
        """A state is on the disk under the temporary name ``path``; what happens next is its renaming."""

    def before_finish(self) -> None:
        """All steps are done and the last state is saved; the finished model is about to be written."""
