"""The last convolutions of a decoder on an upsampled map, a band of rows at a time.

The upsampled map and its convolution are a decoder's largest tensors: F channels where the logits have K. Band by band
they never exist as a whole.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.layers import ConvBnRelu, resize, upsample
from densevit.types import Size
from densevit.upsampling.neighbours import neighbours

RowsOf = Callable[[int, int], Tensor]
"""Rows start..stop - 1 of a map of the upsampled size: (B, C, stop - start, W)."""


def upsample_and_classify(
    x: Tensor,
    factor: int,
    conv: ConvBnRelu,
    classifier: nn.Conv2d,
    *,
    align_corners: bool,
    band_rows: int,
    added: RowsOf | None = None,
) -> Tensor:
    """``classifier(conv(upsample(x, factor) + added))`` in evaluation, up to rounding.

    (B, C, h, w) -> (B, K, h * factor, w * factor), ``band_rows`` upsampled rows at a time; ``conv`` keeps the size of a
    map, ``classifier`` is 1x1.
    """
    height, width = size = (x.shape[-2] * factor, x.shape[-1] * factor)
    if torch.compiler.is_compiling():  # compilers and exporters plan memory themselves
        upsampled = resize(x, size, align_corners=align_corners)
        whole: Tensor = classifier(conv(upsampled if added is None else upsampled + added(0, height)))
        return whole
    shape = (x.shape[0], classifier.out_channels, height, width)
    logits = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    prepared = conv.ready()
    upsampled_rows = _aligned_rows(x, size) if align_corners else _centred_rows(x, factor)
    for top in range(0, height, band_rows):
        bottom = min(top + band_rows, height)
        # The convolution reads a margin of rows above and below, which is zero outside the map.
        start, stop = max(top - conv.margin, 0), min(bottom + conv.margin, height)
        padding = (0, 0, start - (top - conv.margin), bottom + conv.margin - stop)
        rows = upsampled_rows(start, stop)
        band = F.pad(rows if added is None else rows + added(start, stop), padding)
        logits[:, :, top:bottom] = classifier(prepared(band, inner_rows=True))
    return logits


def _centred_rows(x: Tensor, factor: int) -> RowsOf:
    """With align_corners=False and a whole factor, a slice of x upsamples to rows of the whole, bit for bit."""

    def lower_neighbour(row: int) -> int:
        return max((2 * row + 1 - factor) // (2 * factor), 0)  # floor((row + 0.5) / factor - 0.5)

    def rows(start: int, stop: int) -> Tensor:
        first, last = lower_neighbour(start), lower_neighbour(stop - 1) + 1
        band = upsample(x[:, :, first : last + 1], factor)
        return band[:, :, start - first * factor : stop - first * factor]

    return rows


def _aligned_rows(x: Tensor, size: Size) -> RowsOf:
    """With align_corners=True the scale depends on the whole height, so rows are interpolated by hand."""
    low, high, share = neighbours(x.shape[-2], size[0], True, x.device)

    def rows(start: int, stop: int) -> Tensor:
        weight = share[start:stop, None].to(x.dtype)
        lines = torch.lerp(x[:, :, low[start:stop]], x[:, :, high[start:stop]], weight)  # (B, C, rows, w)
        return resize(lines, (stop - start, size[1]), align_corners=True)  # (B, C, rows, W)

    return rows
