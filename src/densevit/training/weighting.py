"""How the losses of several heads become one."""

from typing import Literal

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from densevit.config import Config


class WeightingConfig(Config):
    """Weights of the heads' losses.

    Attributes:
        kind: "fixed", or "uncertainty": one learnt log variance per head (Kendall, Gal and Cipolla 2018).
        weights: per head, 1 where not given.
    """

    kind: Literal["fixed", "uncertainty"] = "fixed"
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)


class LossWeights(nn.Module):
    """Losses per head -> total."""

    def __init__(self, config: WeightingConfig, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.heads = heads
        self.weights = {head: config.weights.get(head, 1.0) for head in heads}
        self.log_variances = nn.Parameter(torch.zeros(len(heads))) if config.kind == "uncertainty" else None

    def forward(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum."""
        weighted = torch.stack([self.weights[head] * losses[head] for head in self.heads])
        if self.log_variances is None:
            return weighted.sum()
        return (weighted * (-self.log_variances).exp() + self.log_variances).sum()
