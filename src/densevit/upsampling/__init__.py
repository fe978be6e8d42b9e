"""Bilinear upsampling fused with arg max, softmax or loss, so that (K, H, W) floats never exist.

Three implementations: a C kernel on the CPU (``native``, if there is a compiler), a Triton kernel on CUDA (``cuda``),
and bands of rows in plain torch anywhere (``plain``). They agree up to rounding, so labels may differ where two classes
tie.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.types import Size
from densevit.upsampling import cuda, native, plain
from densevit.upsampling.loss import upsample_cross_entropy
from densevit.upsampling.plain import bands

__all__ = [
    "Decoded",
    "bands",
    "upsample_cross_entropy",
    "upsample_decoded",
    "upsample_entropy",
    "upsample_labels",
    "upsample_scores",
    "upsample_values",
]


class Decoded(NamedTuple):
    """Per-pixel results of upsampled logits.

    Attributes:
        labels: (H, W) uint8, or int32 beyond 256 classes: the most likely class, the first one of a tie.
        scores: (H, W) float32: softmax probability of the label.
        entropy: (H, W) float32 in [0, 1]: entropy of the softmax over its maximum log K; 0 for one class.
    """

    labels: Tensor
    scores: Tensor | None
    entropy: Tensor | None


def upsample_decoded(
    logits: Tensor, size: Size, *, align_corners: bool, scores: bool = False, entropy: bool = False
) -> Decoded:
    """Logits (K, h, w) -> labels, and on request scores and entropy, of size (H, W), in one pass.

    As in torch, NaN is larger than any logit; a score is NaN where any logit is NaN or the largest is infinite.

    Raises:
        ShapeError: if logits and size are not of this form, or a size is 0.
    """
    if logits.ndim != 3 or not logits.is_floating_point() or not logits.numel() or len(size) != 2 or min(size) < 1:
        raise ShapeError(
            f"logits are {logits.dtype} {tuple(logits.shape)}, to be resized to {tuple(size)}, but floats (K, h, w) "
            "and (H, W) are needed, no size 0; take the batch dimension away"
        )
    dtype = torch.uint8 if logits.shape[0] <= 256 else torch.int32
    out = Decoded(
        torch.empty(size, dtype=dtype, device=logits.device),
        torch.empty(size, dtype=torch.float32, device=logits.device) if scores else None,
        torch.empty(size, dtype=torch.float32, device=logits.device) if entropy else None,
    )
    kernel = {"cpu": native.decode, "cuda": cuda.decode}.get(logits.device.type)
    if kernel is None or not kernel(logits, align_corners=align_corners, **out._asdict()):
        plain.decode(logits, align_corners=align_corners, **out._asdict())
    if out.entropy is not None:
        out.entropy.clamp_(0.0, 1.0)
    return out


def upsample_labels(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> the most likely class of every pixel, (H, W) uint8, or int32 beyond 256 classes."""
    return upsample_decoded(logits, size, align_corners=align_corners).labels


def upsample_scores(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> softmax probability of the most likely class, (H, W) float32."""
    scores = upsample_decoded(logits, size, align_corners=align_corners, scores=True).scores
    assert scores is not None
    return scores


def upsample_entropy(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> entropy of the softmax over its maximum log K, (H, W) float32 in [0, 1]; 0 for one class."""
    entropy = upsample_decoded(logits, size, align_corners=align_corners, entropy=True).entropy
    assert entropy is not None
    return entropy


def upsample_values(values: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Values (K, h, w) -> (K, H, W) float32."""
    resized = torch.empty((values.shape[0], *size), dtype=torch.float32, device=values.device)
    for rows, band in bands(values, size, align_corners=align_corners):
        resized[:, rows] = band.permute(2, 0, 1)
    return resized
