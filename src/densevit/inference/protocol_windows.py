"""Sliding windows as the published programs place and blend them: pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.inference.separable_resize import Axis, Resize
from densevit.inference.tiled_logits import StitchedLogits, to_hold
from densevit.types import Size

Window = tuple[slice, slice]
"""Rows and columns."""

Starts = Callable[[int, int, int], list[int]]
"""The length of an image, the extent of a window and the stride -> where the windows start."""


@dataclass(frozen=True)
class Network:
    """A model as a published program runs it: images in, logits of the images' size out.

    Attributes:
        logits: normalised images (B, 3, h, w) -> logits (B, K, h', w') at the decoder's stride.
        resizes: sizes (h', w') and (h, w) -> the resizes of rows and of columns to the images' pixels.
        cropped: whether the resize goes beyond the images and is cropped to them.
        align_corners: of the last resize, from the image that was run to the photo.
    """

    logits: Callable[[Tensor], Tensor]
    resizes: Callable[[Size, Size], tuple[Resize, Resize]]
    cropped: bool = False
    align_corners: bool = False

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K, h, w) of normalised images (B, 3, h, w)."""
        logits = self.logits(images)
        height, width = images.shape[-2:]
        rows, columns = self.resizes((logits.shape[-2], logits.shape[-1]), (height, width))
        size, corners = (rows.new, columns.new), rows.align_corners
        if logits.shape[-2:] != size:
            logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=corners, antialias=False)
        return logits[..., :height, :width] if self.cropped else logits


def anchored_starts(length: int, extent: int, step: int) -> list[int]:
    """Windows at multiples of the step that end before the last one, which ends with the image (Segmenter)."""
    return [*range(0, length - extent, step), length - extent]


def window_slices(starts: Starts, size: Size, window: Size, stride: Size) -> list[Window]:
    """The windows of an image, by rows; ``clamped_starts`` makes an image below the window one smaller window."""
    rows, columns = (starts(*lengths) for lengths in zip(size, window, stride, strict=True))
    return [
        (slice(y, min(y + window[0], size[0])), slice(x, min(x + window[1], size[1]))) for y in rows for x in columns
    ]


def slide(network: Network, image: Tensor, windows: Sequence[Window]) -> StitchedLogits:
    """The logits of an image (1, 3, H, W): at every pixel the mean over the windows that contain it.

    Args:
        network: images to logits.
        image: normalised.
        windows: of one size, on a grid of rows and columns.
    """
    tops, lefts = sorted({rows.start for rows, _ in windows}), sorted({columns.start for _, columns in windows})
    extent = (windows[0][0].stop - windows[0][0].start, windows[0][1].stop - windows[0][1].start)
    held: dict[tuple[int, int], Tensor] = {}  # by row and column of windows
    for rows, columns in windows:
        logits = network.logits(image[..., rows, columns])[0]
        held[tops.index(rows.start), lefts.index(columns.start)] = to_hold(logits)
    first = held[0, 0]
    inner = network.resizes((first.shape[-2], first.shape[-1]), extent)
    axes = [
        Axis(length, tuple(starts), np.ones(side, np.float32), resize)
        for length, starts, side, resize in zip(image.shape[-2:], (tops, lefts), extent, inner, strict=True)
    ]
    num_held = first.numel() * len(held)
    return StitchedLogits(axes[0], axes[1], lambda i, j: held[i, j], first.shape[0], first.device, num_held)


def normalised(image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """An image (3, H, W) in [0, 1] as the encoder's input (1, 3, H, W), on the encoder's device."""
    return torch.sub(image[None].to(mean.device), mean).div_(std)
