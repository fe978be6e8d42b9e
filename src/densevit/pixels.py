"""Pixels as tensors: uint8 arrays to floats in [0, 1], the input size for a photo, and resizing."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.types import Size

LARGE_PHOTO = 16_000_000
"""Pixels from which a photo is shrunk before it becomes floats."""


def to_tensor(image: NDArray[Any]) -> Tensor:
    """uint8, uint16 or float32 in [0, 1], (H, W, C) -> float32 (C, H, W) in [0, 1]."""
    if image.dtype == np.uint16:  # which older torch cannot convert
        image = image.astype(np.float32) / 65535
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    return pixels.float() if pixels.is_floating_point() else pixels.float().div_(255.0)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Antialiased bilinear resize of (3, H, W), clamped to [0, 1]."""
    if image.shape[-2:] == size:
        return image
    resized = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.clamp_(0.0, 1.0)


def fit_photo(image: NDArray[Any], size: Size) -> Tensor:
    """A photo (H, W, C) as the encoder's input (C, *size), float32 in [0, 1].

    Photos of 8 bits beyond ``LARGE_PHOTO`` pixels are resized in 8 bits, which moves values by up to 1/255 and saves
    the twelve bytes a pixel of a float copy.
    """
    if image.shape[0] * image.shape[1] <= LARGE_PHOTO or image.dtype != np.uint8:
        return resize_image(to_tensor(image), size)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.contiguous().float().div_(255.0)


def resize_nearest(values: Tensor, size: Size) -> Tensor:
    """Resize labels or depth (..., H, W) by taking the nearest pixel; no new value appears."""
    if values.shape[-2:] == size:
        return values
    rows = _nearest_indices(values.shape[-2], size[0])
    columns = _nearest_indices(values.shape[-1], size[1])
    return values[..., rows[:, None], columns]


def _nearest_indices(old: int, new: int) -> Tensor:
    """Index of the old pixel whose centre is nearest to each new pixel's centre."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long().clamp_(max=old - 1)
