"""Segmenter: a linear decoder, and the mask transformer.

Source: Strudel et al. 2021, "Segmenter: Transformer for Semantic Segmentation", sections 3.2 and 3.3. Both read the
last tap after the encoder's final norm.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from densevit.blocks import Block
from densevit.decoders.base import Decoder, DecoderConfig
from densevit.errors import ConfigError
from densevit.kernels.linear import Linear
from densevit.types import DenseOutput, Taps


class SegmenterLinearConfig(DecoderConfig):
    """Segmenter with a point-wise linear decoder, which has no options."""

    kind: Literal["segmenter_linear"] = "segmenter_linear"


class SegmenterLinear(Decoder):
    """One linear layer on the last tap's tokens.

    Differs from the paper: nothing. Differs from mmseg: there it is a 1x1 convolution.
    """

    last_tap_only = True

    def __init__(self, config: SegmenterLinearConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        self.head = Linear(embed_dim, out_channels)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at the stride of the patch; there are no auxiliary heads."""
        return DenseOutput(self.head(taps.tokens[-1]).transpose(1, 2).unflatten(2, taps.grid))  # (B, K, h, w)


class SegmenterMaskConfig(DecoderConfig):
    """Segmenter with the mask transformer.

    Attributes:
        depth: number of transformer blocks.
        num_heads: attention heads; by default embed_dim / 64, at least one.
        norm_eps: epsilon of every LayerNorm of the decoder.
        dropout: rate in the decoder's blocks.
        drop_path: rate at the decoder's last block.
    """

    kind: Literal["segmenter_mask"] = "segmenter_mask"
    depth: int = Field(default=2, ge=0)
    num_heads: int | None = Field(default=None, gt=0)
    norm_eps: float = Field(default=1e-5, gt=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    def num_parts(self, num_taps: int) -> int:
        """The transformer blocks and the projections."""
        return self.depth + 1


class SegmenterMask(Decoder):
    """Class tokens pass through transformer blocks with the patch tokens; the cosines of both are the masks.

    Differs from the paper: both are projected and l2-normalised first, and a LayerNorm over the class axis follows, as
    in the authors' code. Differs from mmseg: nothing.
    """

    last_tap_only = True

    def __init__(self, config: SegmenterMaskConfig, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        num_heads = config.num_heads or max(embed_dim // 64, 1)
        if embed_dim % num_heads:
            raise ConfigError(
                f"segmenter_mask has {num_heads} heads but embed_dim {embed_dim} is no multiple of that; set num_heads"
            )
        self.proj_dec = Linear(embed_dim, embed_dim)
        self.class_tokens = nn.Parameter(torch.zeros(1, out_channels, embed_dim))
        self.blocks = nn.ModuleList(
            Block(
                embed_dim,
                num_heads,
                mlp_hidden_dim=4 * embed_dim,
                norm_eps=config.norm_eps,
                dropout=config.dropout,
                drop_path=config.drop_path * i / max(config.depth - 1, 1),
            )
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=config.norm_eps)
        self.proj_patch = Linear(embed_dim, embed_dim, bias=False)
        self.proj_classes = Linear(embed_dim, embed_dim, bias=False)
        self.mask_norm = nn.LayerNorm(out_channels, eps=config.norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with a deviation of 0.02; for the two projections a normal with embed_dim ** -0.5."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.class_tokens, std=0.02)
        for projection in (self.proj_patch, self.proj_classes):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Logits at the stride of the patch; there are no auxiliary heads."""
        x = self.proj_dec(taps.tokens[-1])  # (B, N, C)
        num_patches = x.shape[1]
        x = torch.cat((x, self.class_tokens.expand(x.shape[0], -1, -1)), dim=1)  # (B, N + K, C)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        patches = F.normalize(self.proj_patch(x[:, :num_patches]), dim=-1)  # (B, N, C)
        classes = F.normalize(self.proj_classes(x[:, num_patches:]), dim=-1)  # (B, K, C)
        masks = self.mask_norm(patches @ classes.transpose(1, 2))  # (B, N, K)
        return DenseOutput(masks.transpose(1, 2).unflatten(2, taps.grid))  # (B, K, h, w)
