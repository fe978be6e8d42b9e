"""An exponential moving average of the weights (EMA), which is evaluated and saved in their place.

The average cannot hurt a short run: its decay rises with the number of updates, so that the random weights of the
start are soon forgotten, and the running statistics of batch norms are averaged like the weights that they belong to.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from densevit.model import DenseModel


def init_ema(model: nn.Module, decay: float | None) -> dict[str, Tensor]:
    """A copy of every trained parameter and of the norms' running statistics, by name; empty without a decay."""
    return {} if decay is None else {name: value.detach().clone() for name, value in averaged(model).items()}


def averaged(model: nn.Module) -> dict[str, Tensor]:
    """What the average covers: trained parameters, and float buffers that a state holds, such as running means."""
    kept = model.state_dict()
    values = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return values | {name: b for name, b in model.named_buffers() if name in kept and b.is_floating_point()}


def warmed_decay(decay: float, done: int) -> float:
    """The decay of the update after ``done`` earlier ones: (1 + n) / (10 + n) at first, as in TensorFlow and timm."""
    return min(decay, (1 + done) / (10 + done))


@torch.no_grad()
def update_ema(ema: dict[str, Tensor], model: nn.Module, decay: float | None, done: int) -> None:
    """Move the average towards the model's weights after step ``done``, counted from 0."""
    if decay is None:
        return
    current, share = dict(model.named_parameters()) | dict(model.named_buffers()), 1 - warmed_decay(decay, done)
    for name, average in ema.items():
        average.lerp_(current[name].detach(), share)


@contextmanager
def ema_weights(model: DenseModel, ema: dict[str, Tensor]) -> Iterator[DenseModel]:
    """The model in evaluation mode with the averaged weights; they are replaced by its own at the end of the block."""
    current = {name: value for name, value in averaged(model).items() if name in ema}
    trained = {name: value.detach().clone() for name, value in current.items()}
    _copy_into(current, ema)
    try:
        yield model.eval()
    finally:
        _copy_into(current, trained)


@torch.no_grad()
def _copy_into(current: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, tensor in current.items():
        tensor.copy_(values[name])
