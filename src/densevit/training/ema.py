"""An exponential moving average of the weights (EMA), which is evaluated and saved in their place."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from densevit.model import DenseModel


def init_ema(model: nn.Module, decay: float | None) -> dict[str, Tensor]:
    """A copy of every trained parameter by name; empty without a decay."""
    if decay is None:
        return {}
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def update_ema(ema: dict[str, Tensor], model: nn.Module, decay: float | None) -> None:
    """Move the average towards the model's weights."""
    if decay is not None:
        parameters = dict(model.named_parameters())
        for name, average in ema.items():
            average.lerp_(parameters[name].detach(), 1 - decay)


@contextmanager
def ema_weights(model: DenseModel, ema: dict[str, Tensor]) -> Iterator[DenseModel]:
    """The model in evaluation mode with the averaged weights; they are replaced by its own at the end of the block."""
    parameters = {name: p for name, p in model.named_parameters() if name in ema}
    trained = {name: p.detach().clone() for name, p in parameters.items()}
    _copy_into(parameters, ema)
    try:
        yield model.eval()
    finally:
        _copy_into(parameters, trained)


@torch.no_grad()
def _copy_into(parameters: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(values[name])
