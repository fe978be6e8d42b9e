"""A running mean of the weights (EMA), which is then evaluated and saved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from densevit.model import DenseModel


def start_average(model: nn.Module, decay: float | None) -> dict[str, Tensor]:
    """A copy of every trained parameter by name; empty without a decay."""
    if decay is None:
        return {}
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def update_average(average: dict[str, Tensor], model: nn.Module, decay: float | None) -> None:
    """Move the mean towards the model's weights."""
    if decay is not None:
        for name, parameter in model.named_parameters():
            if name in average:
                average[name].lerp_(parameter.detach(), 1 - decay)


@contextmanager
def averaged(model: DenseModel, average: dict[str, Tensor]) -> Iterator[DenseModel]:
    """Within the block the model, in evaluation mode, has the averaged weights; afterwards its own again."""
    parameters = {name: p for name, p in model.named_parameters() if name in average}
    own = {name: p.detach().clone() for name, p in parameters.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(average[name])
    try:
        yield model.eval()
    finally:
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(own[name])
