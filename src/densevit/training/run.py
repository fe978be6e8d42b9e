"""The run folder, beside the states: what was done, what came out of it, and the finished model."""

from pathlib import Path
from typing import Any

from torch import Tensor

from densevit.checkpoints.native import Bundle, save_bundle
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.log import RunLog, environment
from densevit.training.recipe import TrainConfig

Figures = dict[str, dict[str, Any]]


class Run:
    """What the loop tells, written to the folder ``out``: log.jsonl and model.safetensors.

    Args:
        config: the run.
        out: its folder.
        start: iterations that are done already.
        parameters: of the model.
    """

    def __init__(self, config: TrainConfig, out: Path, *, start: int, parameters: int) -> None:
        self.config, self.out = config, out
        self.figures: Figures = {}
        self.log = RunLog(out / "log.jsonl", start=start)
        if start == 0:
            self.log.write("start", 0, environment=environment(), parameters=parameters)

    def step(self, done: int, losses: dict[str, Tensor], *, lr: float) -> None:
        """Note a step, the ``done``-th of the run, by its losses per head."""
        if done % self.config.log_every == 0 or done == 1:
            self.log.write("step", done, lr=lr, **{f"loss/{head}": round(x.item(), 5) for head, x in losses.items()})

    def evaluated(self, done: int, figures: Figures, model: DenseModel, tasks: dict[str, Task]) -> None:
        """Note figures per head; ``model`` has the weights that they belong to."""
        self.figures = figures
        for head, values in figures.items():
            self.log.write("eval", done, head=head, **values)

    def finish(self, model: DenseModel, tasks: dict[str, Task]) -> Path:
        """Write the finished model with its last figures; returns where."""
        config = self.config
        card = config.card.model_copy(update={"metrics": {**config.card.metrics, **self.figures}})
        path = self.out / "model.safetensors"
        save_bundle(Bundle(model, tasks, config.fit, card), path, config.storage)
        return path
