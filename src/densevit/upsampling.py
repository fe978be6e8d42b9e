"""Upsampling fused with what follows it, band by band, so that (K, H, W) floats never exist.

A band is a few rows of the upsampled logits, channels last. It equals those rows of a bilinear
``torch.nn.functional.interpolate`` up to rounding; memory is bounded by ``BAND_VALUES`` whatever the image.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from densevit.types import Size

BAND_VALUES = 8_000_000
"""Upper bound on the floats of a band (a single row may exceed it)."""


def bands(logits: Tensor, size: Size, *, align_corners: bool) -> Iterator[tuple[slice, Tensor]]:
    """Rows of bilinearly resized logits.

    Args:
        logits: (K, h, w) float.
        size: (H, W) to resize to.
        align_corners: as in ``interpolate``.

    Yields:
        The slice of rows and its logits (rows, W, K), float32.
    """
    height, width = size
    source = logits.float().permute(1, 2, 0).contiguous()  # (h, w, K)
    y0, y1, wy = _taps(source.shape[0], height, align_corners, source.device)
    x0, x1, wx = _taps(source.shape[1], width, align_corners, source.device)
    rows = max(1, BAND_VALUES // (width * source.shape[2]))
    for start in range(0, height, rows):
        band = slice(start, min(start + rows, height))
        lines = torch.lerp(source[y0[band]], source[y1[band]], wy[band, None, None])  # (rows, w, K)
        yield band, torch.lerp(lines[:, x0], lines[:, x1], wx[:, None])  # (rows, W, K)


def upsample_labels(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> the most likely class of every pixel, (H, W) uint8, or int32 beyond 256 classes."""
    dtype = torch.uint8 if logits.shape[0] <= 256 else torch.int32
    labels = torch.empty(size, dtype=dtype, device=logits.device)
    for rows, band in bands(logits, size, align_corners=align_corners):
        labels[rows] = band.argmax(dim=-1).to(dtype)
    return labels


def upsample_scores(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> softmax probability of the most likely class, (H, W) float32."""
    scores = torch.empty(size, device=logits.device)
    for rows, band in bands(logits, size, align_corners=align_corners):
        scores[rows] = (band.amax(dim=-1) - band.logsumexp(dim=-1)).exp()
    return scores


def upsample_entropy(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Logits (K, h, w) -> entropy of the softmax over its maximum log K, (H, W) float32 in [0, 1]; 0 for one class."""
    entropy = torch.zeros(size, device=logits.device)
    if logits.shape[0] == 1:
        return entropy
    for rows, band in bands(logits, size, align_corners=align_corners):
        log_p = band.log_softmax(dim=-1)
        entropy[rows] = -(log_p.exp() * log_p).sum(dim=-1) / math.log(logits.shape[0])
    return entropy.clamp_(0.0, 1.0)


def upsample_values(values: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """Values (K, h, w) -> (K, H, W) float32."""
    resized = torch.empty((values.shape[0], *size), device=values.device)
    for rows, band in bands(values, size, align_corners=align_corners):
        resized[:, rows] = band.permute(2, 0, 1)
    return resized


def _taps(old: int, new: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For every new position the two old ones around it and the weight of the second."""
    positions = torch.arange(new, device=device, dtype=torch.float64)
    if align_corners:
        positions = positions * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        positions = ((positions + 0.5) * (old / new) - 0.5).clamp_(min=0.0)
    low = positions.floor().long().clamp_(max=old - 1)
    return low, (low + 1).clamp_(max=old - 1), (positions - low).float()
