"""Upsampling and decoding in plain torch, on any device: a band of upsampled rows at a time, channels last.

A band equals those rows of a bilinear ``torch.nn.functional.interpolate`` up to rounding; ``BAND_VALUES`` bounds the
memory for any image.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from densevit.types import Size
from densevit.upsampling.neighbours import lerp_infinite, neighbours

BAND_VALUES = 8_000_000
"""Upper bound on the floats of a band (a single row may exceed it)."""


def bands(logits: Tensor, size: Size, *, align_corners: bool) -> Iterator[tuple[slice, Tensor]]:
    """Bilinearly resized logits, band by band.

    Args:
        logits: (K, h, w) float.
        size: (H, W) to resize to.
        align_corners: as in ``interpolate``.

    Yields:
        The slice of rows and its logits (rows, W, K), float32.
    """
    height, width = size
    source = logits.float().permute(1, 2, 0).contiguous()  # (h, w, K)
    y0, y1, wy = neighbours(source.shape[0], height, align_corners, source.device)
    x0, x1, wx = neighbours(source.shape[1], width, align_corners, source.device)
    rows = max(1, BAND_VALUES // (width * source.shape[2]))
    lerp = lerp_infinite if source.isinf().any() else torch.lerp
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        lines = lerp(source[y0[band]], source[y1[band]], wy[band, None, None])  # (rows, w, K)
        yield band, lerp(lines[:, x0], lines[:, x1], wx[:, None])  # (rows, W, K)


def decode(
    logits: Tensor, *, align_corners: bool, labels: Tensor, scores: Tensor | None, entropy: Tensor | None
) -> None:
    """Fill labels (H, W), and scores and entropy (H, W) where given, from logits (K, h, w).

    As in torch, NaN is larger than any logit, and where the largest is not finite, score and entropy are NaN.
    """
    for rows, band in bands(logits, (labels.shape[0], labels.shape[1]), align_corners=align_corners):
        labels[rows] = band.argmax(dim=-1).to(labels.dtype)
        if scores is not None:
            scores[rows] = (band.amax(dim=-1) - band.logsumexp(dim=-1)).exp()
        if entropy is not None:
            # A class of minus infinity adds 0 to the entropy, not 0 * -inf.
            log_p = band.log_softmax(dim=-1).clamp(min=torch.finfo(torch.float32).min)
            entropy[rows] = -(log_p.exp() * log_p).sum(dim=-1) / math.log(max(band.shape[-1], 2))
