"""Sliding windows: where they lie, and the average of what a network says in them. Pure functions."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from densevit.types import Size

Network = Callable[[Tensor], Tensor]
"""Normalised images (B, 3, h, w) -> logits (B, K, h, w) of the same size."""

Window = tuple[slice, slice]
"""Rows and columns."""


def clamped_windows(size: Size, window: Size, stride: Size) -> list[Window]:
    """Windows at multiples of the stride, the last of each row and column pushed back inside (mmsegmentation, SETR).

    An image smaller than a window is one smaller window.
    """
    starts = []
    for length, extent, step in zip(size, window, stride, strict=True):
        count = max(length - extent + step - 1, 0) // step + 1
        starts.append([max(min(index * step + extent, length) - extent, 0) for index in range(count)])
    return _windows(starts[0], starts[1], size, window)


def anchored_windows(size: Size, window: Size, stride: Size) -> list[Window]:
    """Windows at multiples of the stride as long as they end before the last, which ends with the image (Segmenter).

    The image is at least as large as a window.
    """
    starts = [
        [*range(0, length - extent, step), length - extent]
        for length, extent, step in zip(size, window, stride, strict=True)
    ]
    return _windows(starts[0], starts[1], size, window)


def _windows(rows: list[int], columns: list[int], size: Size, window: Size) -> list[Window]:
    return [
        (slice(y, min(y + window[0], size[0])), slice(x, min(x + window[1], size[1]))) for y in rows for x in columns
    ]


def slide(network: Network, images: Tensor, windows: Sequence[Window]) -> Tensor:
    """Logits (B, K, H, W) of images (B, 3, H, W): the mean over the windows that see a pixel."""
    total: Tensor | None = None
    visits = images.new_zeros(images.shape[-2:])
    for rows, columns in windows:
        logits = network(images[..., rows, columns])
        if total is None:
            total = logits.new_zeros((*logits.shape[:2], *images.shape[-2:]))
        total[..., rows, columns] += logits
        visits[rows, columns] += 1
    assert total is not None
    return torch.div(total, visits, out=total)
