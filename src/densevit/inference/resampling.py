"""Resizing of photos exactly as the published programs' libraries do it."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.io import resize_bicubic
from densevit.types import Size

_ONE = 2048
"""Weights of the fixed-point arithmetic have 11 bits."""


def opencv_linear(image: NDArray[np.uint8], size: Size) -> Tensor:
    """Bilinear resize of uint8 (H, W, 3) as OpenCV's INTER_LINEAR does it, in integers: bit for bit.

    Returns:
        (3, H', W') float32 in [0, 1].
    """
    if image.shape[:2] != size:
        rows, columns = _taps(image.shape[0], size[0], border=True), _taps(image.shape[1], size[1], border=False)
        image = np.concatenate([_blend(band, rows, columns) for band in np.split(image, 3, axis=2)], axis=2)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255.0)


_Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


def _taps(old: int, new: int, *, border: bool) -> _Taps:
    """For every new position the two old ones around it and their weights in 2048ths.

    At the border both are the same pixel; along rows OpenCV still splits its weight, which matters for the rounding.
    """
    position = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.int64)
    fraction = position - low.astype(np.float32)
    if not border:
        fraction[(low < 0) | (low >= old - 1)] = 0
    second = np.rint(fraction * np.float32(_ONE)).astype(np.int32)
    first = np.rint((np.float32(1) - fraction) * np.float32(_ONE)).astype(np.int32)
    return low.clip(0, old - 1), (low + 1).clip(0, old - 1), first, second


def _blend(band: NDArray[np.uint8], rows: _Taps, columns: _Taps) -> NDArray[np.uint8]:
    """One channel (H, W, 1) -> (H', W', 1): columns first, each product cut to 16 bits before they are added."""
    x0, x1, a0, a1 = columns
    y0, y1, b0, b1 = rows
    lines = (band[:, x0].astype(np.int32) * a0[:, None] + band[:, x1].astype(np.int32) * a1[:, None]) >> 4
    upper, lower = (b0[:, None, None] * lines[y0]) >> 16, (b1[:, None, None] * lines[y1]) >> 16
    return ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)


def opencv_cubic(image: NDArray[np.uint8], size: Size) -> Tensor:
    """Bicubic resize of uint8 (H, W, 3), taken to [0, 1] before, as OpenCV's INTER_CUBIC does it on floats.

    Returns:
        (3, H', W') float32, which may overshoot [0, 1].
    """
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1).double().div_(255.0)
    if exact.shape[-2:] != size:
        exact = F.interpolate(exact[None], size=size, mode="bicubic", align_corners=False, antialias=False)[0]
    return exact.float()


def pillow_cubic(image: NDArray[np.uint8], size: Size) -> Tensor:
    """Bicubic resize of uint8 (H, W, 3) as Pillow does it: antialiased, rounded to 8 bits.

    Returns:
        (3, H', W') float32 in [0, 1].
    """
    resized = image if image.shape[:2] == size else resize_bicubic(image, size)
    return torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1).float().div_(255.0)
