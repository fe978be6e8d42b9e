"""The module that is differentiated: images and targets of one micro-batch in, losses out."""

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
"""Per source and head, the share of a micro-batch's loss in the loss of the whole step."""


class Learner(nn.Module):
    """The model and its losses as one module: batches in, losses out.

    A teacher is not registered as a module, so it is neither trained nor saved. ``world`` is the number of processes
    that share a step.
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
        """One batch per source, with their shares in the step -> the total to differentiate, and the losses per head.

        ``weights`` are those of the heads' losses in the total. Returns the total, (), and this micro-batch's share in
        the loss of every head, (heads,), float32.
        """
        losses = {head: self.model.mean.new_zeros(()) for head in self.tasks}
        for source, batch, share in zip(self.config.sources, batches, shares, strict=True):
            target_losses, teacher_losses = self.losses(batch)
            for head, loss in target_losses.items():
                losses[head] = losses[head] + source.weight * share[head] * loss
            for head, loss in teacher_losses.items():
                losses[head] = losses[head] + source.weight * self._photo_share * loss
        total = torch.stack([weights[head] * loss for head, loss in losses.items()]).sum()
        return total, torch.stack([loss.detach() for loss in losses.values()])

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Per head that the batch has targets for, in float32: losses against the targets, and against the teacher."""
        inputs = batch.inputs.to(self.model.mean.device)
        dtype = DTYPES[self.config.precision]
        with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
            cached = self.config.features is not None
            depth = self.config.frozen_depth
            images = None if batch.images is None else batch.images.to(inputs.device)
            taps = to_taps(inputs, self.model, batch.grid, depth, images) if cached else self._encode(inputs)
            outputs = self._decode(taps, tuple(batch.targets))
            teacher_losses = {} if self.teacher is None else self.teacher.losses(inputs, outputs)
        target_losses = {
            head: self.tasks[head].loss(
                outputs[head], target.to(inputs.device), align_corners=self.model.decoder(head).align_corners
            )
            for head, target in batch.targets.items()
        }
        return target_losses, teacher_losses

    def counts(self, batches: Sequence[Batch]) -> Tensor:
        """The denominators of a micro-batch's losses, (sum of the sources' heads,), float64 on the CPU."""
        counts = [self.tasks[head].count(target) for batch in batches for head, target in batch.targets.items()]
        return torch.stack([count.double().cpu() for count in counts])

    def shares(self, counts: Tensor, totals: Tensor) -> Shares:
        """Counts of a micro-batch and of the whole step, each (sum of the sources' heads,) -> its shares."""
        quotients = iter((counts / totals.where(totals > 0, 1)).float().unbind())
        device = self.model.mean.device
        return tuple({head: next(quotients).to(device) for head in source.heads} for source in self.config.sources)


def compiler_missing(error: Exception) -> ConfigError | None:
    """The error to raise when ``compile`` failed; None if ``error`` has nothing to do with compiling."""
    if not isinstance(error, TorchDynamoException) and "inductor" not in type(error).__module__:
        return None
    return ConfigError(
        f"compile is on but the model cannot be compiled ({str(error).strip().splitlines()[0][:200]}); it needs a C++ "
        "compiler on the CPU and Triton on a GPU; install it, or set compile: false"
    )
