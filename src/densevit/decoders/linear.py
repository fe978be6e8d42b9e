"""A linear decoder on one tap or several, for classes, values, or metric depth as the mean of bins.

Source: Oquab et al. 2023, "DINOv2: Learning Robust Visual Features without Supervision", section 7.4, whose frozen
encoders are measured with such heads; the bins are those of AdaBins (Bhat et al. 2021).
"""

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from densevit.config import Config, PositiveWidth
from densevit.decoders.base import Decoder, DecoderConfig
from densevit.errors import ConfigError
from densevit.kernels.linear import Linear
from densevit.layers import upsample
from densevit.types import DenseOutput, Taps

EVEN_SHARE = 0.1
"""Added to every bin's score, so that no pixel has scores of zero only."""


class DepthBins(Config):
    """Depths between which a pixel's depth is a weighted mean; the weights are the bins' scores after ReLU.

    Attributes:
        num_bins: evenly spaced depths.
        min_depth_m, max_depth_m: the first and the last of them, in metres.
    """

    num_bins: PositiveWidth = 256
    min_depth_m: float = Field(default=1e-3, ge=0)
    max_depth_m: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError(f"min_depth_m {self.min_depth_m} must be below max_depth_m {self.max_depth_m}")
        return self

    def mean(self, scores: Tensor) -> Tensor:
        """Scores (B, num_bins, h, w) -> depth in metres (B, 1, h, w), in float32."""
        depths = torch.linspace(self.min_depth_m, self.max_depth_m, self.num_bins, device=scores.device)
        weights = F.relu(scores.float()) + EVEN_SHARE
        return torch.einsum("bkhw,k->bhw", weights / weights.sum(dim=1, keepdim=True), depths)[:, None]


class LinearConfig(DecoderConfig):
    """One linear layer on the tokens of all taps.

    Attributes:
        class_token: whether each tap's class token is joined to all of its patch tokens.
        up_scale: bilinear upsampling of the scores before the bins are averaged.
        bins: makes depth of the scores; without them the scores are the logits.
    """

    kind: Literal["linear"] = "linear"
    class_token: bool = False
    up_scale: PositiveWidth = 1
    bins: DepthBins | None = None

    @property
    def num_readout_tokens(self) -> int:
        """The class token, if it is read."""
        return int(self.class_token)


class LinearDecoder(Decoder):
    """The tokens of all taps side by side, one linear layer, upsampling.

    Differs from the paper: the authors upsample before the layer, with which bilinear upsampling commutes, and their
    segmentation heads have a batch norm before it, which is part of the layer here.
    """

    def __init__(self, config: LinearConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        self.class_token, self.up_scale, self.bins = config.class_token, config.up_scale, config.bins
        if self.bins is not None and out_channels != 1:
            raise ConfigError(
                f"decoder linear with bins gives one depth for each pixel, but {out_channels} channels are wanted; "
                "leave out bins"
            )
        width = embed_dim * num_taps * (1 + int(config.class_token))
        self.head = Linear(width, out_channels if self.bins is None else self.bins.num_bins)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits or depth at the patch's stride over ``up_scale``; there are no auxiliary heads."""
        parts = []
        for tokens, prefix in zip(taps.tokens, taps.prefix, strict=True):
            parts += [tokens, prefix[:, :1].expand_as(tokens)] if self.class_token else [tokens]
        scores = self.head(torch.cat(parts, dim=-1)).transpose(1, 2).unflatten(2, taps.grid)  # (B, K, h, w)
        scores = upsample(scores, self.up_scale)
        return DenseOutput(scores if self.bins is None else self.bins.mean(scores))
