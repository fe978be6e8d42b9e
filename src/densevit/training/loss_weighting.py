"""The total of several heads' losses: with fixed weights, or with weights that are learnt."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from densevit.config import Config, nearest
from densevit.errors import ConfigError


class WeightingConfig(Config):
    """The weights of the heads' losses.

    Attributes:
        kind: "fixed" multiplies each loss by its weight; "uncertainty" learns the weights, see ``LossWeights``.
        weights: per head; 1 for heads that are not named. With "uncertainty" those at the start.
    """

    kind: Literal["fixed", "uncertainty"] = "fixed"
    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(default_factory=dict)


class LossWeights(nn.Module):
    """The losses of the heads -> their total.

    Fixed: sum of w L. Uncertainty: sum of exp(-s) L + s / 2 with one learnt s, a log variance, per head. Where the
    gradient of s is zero, exp(-s) = 1 / (2 L): the smaller a loss, the larger its weight, so losses of any unit and
    size count equally, and s / 2 keeps the weights from going to zero. Source: Kendall, Gal and Cipolla, "Multi-Task
    Learning Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", 2018, eq. 10 in the form for
    classification. Differs from it: regression has that form too. The paper's exp(-s) L / 2 + s / 2 only moves s by
    log 2 and leads to the same weight, while this one starts at the weights given.

    The optimiser takes the parameters without decay, which would pull the weights to 1.

    Attributes:
        log_variances: (heads,), only with "uncertainty".

    Raises:
        ConfigError: if the config names another head.
    """

    given: Tensor

    def __init__(self, config: WeightingConfig, heads: tuple[str, ...]) -> None:
        super().__init__()
        for name in config.weights:
            if name not in heads:
                raise ConfigError(f"weighting.weights names head {name!r}, which the model lacks{nearest(name, heads)}")
        self.heads = heads
        given = [config.weights.get(head, 1.0) for head in heads]
        self.fixed = config.kind == "fixed"
        if self.fixed:
            self.register_buffer("given", torch.tensor(given), persistent=False)
        else:
            self.log_variances = nn.Parameter(torch.tensor([-math.log(weight) for weight in given]))

    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Losses by head, those of this step -> a float32 scalar.

        A head without a loss, or with a loss of exactly 0 because no pixel is known, does not change its weight.
        """
        weights = self._weights()
        total = weights.new_zeros(())
        for head, loss in losses.items():
            index = self.heads.index(head)
            total = total + weights[index] * loss.float()
            if not self.fixed:
                total = total + self.log_variances[index] / 2 * (loss.detach() > 0)
        return total

    def weights(self) -> dict[str, float]:
        """The current factor on each head's loss."""
        return dict(zip(self.heads, self._weights().tolist(), strict=True))

    def _weights(self) -> Tensor:
        return self.given if self.fixed else torch.exp(-self.log_variances)
