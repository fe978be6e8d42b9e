"""Patch embedding, and conversion of its weights to another patch size or number of input channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.types import Size


class PatchEmbed(nn.Module):
    """Projects non-overlapping p x p patches linearly to the embedding width."""

    def __init__(self, in_channels: int, embed_dim: int, patch_size: Size, *, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=patch_size, stride=patch_size, bias=bias)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(B, channels, H, W) -> map (B, C, h, w), and no stem maps."""
        return self.proj(images), ()


def resample_patch_weight(weight: Tensor, new: Size) -> Tensor:
    """Convert (C, channels, p, p) patch weights to another patch size.

    By the pseudo-inverse of the bilinear resize, the new weights have on a resized patch the inner product that the old
    ones have on the original. Source: FlexiViT (Beyer et al. 2023), section 3.4.
    """
    old = (weight.shape[-2], weight.shape[-1])
    if old == new:
        return weight
    basis = torch.eye(old[0] * old[1]).unflatten(1, (1, *old))  # (p_old ** 2, 1, p_old, p_old)
    resized = F.interpolate(basis, size=new, mode="bilinear", align_corners=False, antialias=False)
    matrix = resized.flatten(1).double()  # (p_old ** 2, p_new ** 2)
    flat = weight.flatten(2).double() @ torch.linalg.pinv(matrix).T
    return flat.unflatten(2, new).to(weight.dtype)


def adapt_input_channels(weight: Tensor, in_channels: int) -> Tensor:
    """Convert (C, 3, p, p) patch weights to another number of channels, preserving the scale of the response.

    The old channels are repeated cyclically and scaled by old / new; a single new channel is their sum. If new is one
    or a multiple of old, the response to grey input is preserved exactly.
    """
    old = weight.shape[1]
    if old == in_channels:
        return weight
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = torch.cat([weight] * -(-in_channels // old), dim=1)[:, :in_channels]
    return repeated * (old / in_channels)
