"""Convert images to tensors in [0, 1] and resize them."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.types import Size

LARGE_IMAGE = 16_000_000
"""Pixels from which an 8-bit image is resized before it becomes float."""


def to_tensor(image: NDArray[Any]) -> Tensor:
    """uint8, uint16 or float32 in [0, 1], (H, W, C) -> float32 (C, H, W) in [0, 1]."""
    if image.dtype == np.uint16:  # older torch cannot convert it
        image = image.astype(np.float32) / 65535
    pixels = _as_tensor(image).permute(2, 0, 1)
    return pixels.float() if pixels.is_floating_point() else pixels.float().div_(255.0)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Antialiased bilinear resize of (3, H, W), clamped to [0, 1]."""
    if image.shape[-2:] == size:
        return image
    resized = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.clamp_(0.0, 1.0)


def fit_image(image: NDArray[Any], size: Size, *, large: int = LARGE_IMAGE) -> Tensor:
    """Resize an image (H, W, C) to the encoder's input (C, *size), float32 in [0, 1].

    8-bit images of more than ``large`` pixels are resized in 8 bits, which changes values by up to 1/255, is four times
    as fast and saves a float copy of twelve bytes per pixel.
    """
    if image.shape[0] * image.shape[1] <= large or image.dtype != np.uint8 or image.shape[:2] == size:
        return resize_image(to_tensor(image), size)
    pixels = _as_tensor(image).permute(2, 0, 1)[None]
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return resized.contiguous().float().div_(255.0)


def resize_nearest(values: Tensor, size: Size) -> Tensor:
    """Resize labels or depth (..., H, W) by nearest neighbour, which makes no new values."""
    if values.shape[-2:] == size:
        return values
    rows = _nearest_indices(values.shape[-2], size[0])
    columns = _nearest_indices(values.shape[-1], size[1])
    return values[..., rows[:, None], columns]


def _nearest_indices(old: int, new: int) -> Tensor:
    """Index of the old pixel under the centre of each new pixel."""
    return ((torch.arange(new, dtype=torch.float64) + 0.5) * old / new).long().clamp_(max=old - 1)


def _as_tensor(image: NDArray[Any]) -> Tensor:
    contiguous = np.ascontiguousarray(image)
    # To numpy, a single row or column is contiguous whatever its stride; torch refuses a negative one. Of an array that
    # is read-only, such as a Pillow image's, it warns.
    plain = min(contiguous.strides) > 0 and contiguous.flags.writeable
    return torch.from_numpy(contiguous if plain else contiguous.copy())
