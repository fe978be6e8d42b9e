"""What is differentiated: photos and targets of one micro-batch in, losses out."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from densevit.errors import ConfigError
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit.training.batches import Batch
from densevit.training.config import TrainConfig
from densevit.training.distillation import Teacher
from densevit.training.feature_cache import to_taps

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Shares = tuple[dict[str, Tensor], ...]
"""Per source and head, what part of the step's loss a micro-batch's loss makes."""


class Learner(nn.Module):
    """The model and what it is trained for, as one module: batches in, losses out.

    Args:
        model: encoder and heads.
        tasks: of all heads.
        config: the run.
        world: over how many processes a step is spread.

    Attributes:
        model: the same.
        teacher: whose answers are learnt too; no module, so it is neither trained nor saved.
    """

    def __init__(self, model: DenseModel, tasks: dict[str, Task], config: TrainConfig, *, world: int = 1) -> None:
        super().__init__()
        self.model = model
        self.tasks, self.config = tasks, config
        self.teacher = None if config.teacher is None else Teacher(config.teacher, model, tasks, model.mean.device)
        self._photo_share = 1 / (config.accumulate * world)
        self._encode, self._decode = model.encode, model.decode
        if config.compile:
            self._encode, self._decode = torch.compile(model.encode), torch.compile(model.decode)

    def forward(self, batches: Sequence[Batch], shares: Shares, weights: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """One batch per source -> the total to differentiate, and the losses per head.

        Args:
            batches: of this process, on any device.
            shares: their parts of the step's loss.
            weights: of the heads in the total.

        Returns:
            The total, (), and this micro-batch's part of the loss of every head, (heads,), float32.
        """
        losses = {head: self.model.mean.new_zeros(()) for head in self.tasks}
        for source, batch, share in zip(self.config.sources, batches, shares, strict=True):
            told, taught = self.losses(batch)
            for head, loss in told.items():
                losses[head] = losses[head] + source.weight * share[head] * loss
            for head, loss in taught.items():
                losses[head] = losses[head] + source.weight * self._photo_share * loss
        total = torch.stack([weights[head] * loss for head, loss in losses.items()]).sum()
        return total, torch.stack([loss.detach() for loss in losses.values()])

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of the heads that a batch has targets for, in float32: against these, and against the teacher."""
        inputs = batch.inputs.to(self.model.mean.device)
        dtype = DTYPES[self.config.precision]
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
            cached = self.config.features is not None
            depth = self.config.frozen_depth
            taps = to_taps(inputs, self.model, batch.grid, depth) if cached else self._encode(inputs)
            outputs = self._decode(taps, tuple(batch.targets))
            taught = {} if self.teacher is None else self.teacher.losses(inputs, outputs)
        told = {
            head: self.tasks[head].loss(
                outputs[head], target.to(inputs.device), align_corners=self.model.decoder(head).align_corners
            )
            for head, target in batch.targets.items()
        }
        return told, taught

    def counts(self, batches: Sequence[Batch]) -> Tensor:
        """What the losses of a micro-batch divide by, (sum of the sources' heads,), float64 on the CPU."""
        counts = [self.tasks[head].count(target) for batch in batches for head, target in batch.targets.items()]
        return torch.stack([count.double().cpu() for count in counts])

    def shares(self, counts: Tensor, totals: Tensor) -> Shares:
        """Counts of a micro-batch and those of the whole step, (sum of the sources' heads,) -> its shares."""
        parts = iter((counts / totals.where(totals > 0, 1)).float().unbind())
        return tuple({head: next(parts).to(self.model.mean.device) for head in s.heads} for s in self.config.sources)


def compiler_missing(error: Exception) -> ConfigError | None:
    """What to do when ``compile`` fails, or None if the error has nothing to do with compiling."""
    if not isinstance(error, TorchDynamoException) and "inductor" not in type(error).__module__:
        return None
    return ConfigError(
        f"compile is on but the model cannot be compiled ({str(error).strip().splitlines()[0][:200]}); it needs a C++ "
        "compiler on the CPU and Triton on a GPU; install it, or set compile: false"
    )
