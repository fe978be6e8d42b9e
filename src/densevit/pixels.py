"""Pixels as tensors: uint8 arrays to floats in [0, 1], the input size for a photo, and resizing."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from densevit.config import Config
from densevit.types import Size

LARGE_PHOTO = 16_000_000
"""Pixels from which a photo is shrunk before it becomes floats."""


class HeadFit(Config):
    """How a head sees photos in a way of its own.

    Attributes:
        short_side: target of the shorter side, in pixels.
        window: side of the square windows that the resized photo is run in; none: it is run whole.
        flip: average with what is said of the mirrored photo.
    """

    short_side: PositiveInt
    window: PositiveInt | None = None
    flip: bool = False


class FitConfig(Config):
    """Resize so that the short side is about ``short_side``, keeping the aspect, each side rounded to the patch size.

    Attributes:
        short_side: target of the shorter side, in pixels.
        max_long_side: bound on the longer side, in pixels; panoramas and strips are shrunk to it.
        window: side of the square windows that the resized photo is run in, rounded to the patch size; neighbours share
            half or more. None: it is run whole. An encoder is at its best on as many patches as it was trained on.
        flip: average with what is said of the mirrored photo.
        heads: those that see photos in a way of their own; a number is the short side of photos that are run whole.
    """

    short_side: int = Field(default=512, gt=0)
    max_long_side: int = Field(default=2048, gt=0)
    window: PositiveInt | None = None
    flip: bool = False
    heads: dict[str, PositiveInt | HeadFit] = Field(default_factory=dict)

    @property
    def single_pass(self) -> bool:
        """Whether a photo is run whole and as it is."""
        return self.window is None and not self.flip

    def size_for(self, image_size: Size, patch_size: Size) -> Size:
        """The input size (H, W) for an image: at least one patch, and never more than ``max_long_side`` rounded up."""
        scale = min(self.short_side / min(image_size), self.max_long_side / max(image_size))
        height, width = (max(round(n * scale / p), 1) * p for n, p in zip(image_size, patch_size, strict=True))
        return height, width

    def passes(self, heads: Iterable[str]) -> "list[tuple[FitConfig, tuple[str, ...]]]":
        """The passes of the encoder that some heads need: those that see photos in one way share one."""
        ways = {head: self.of(head) for head in heads}
        different = [fit for index, fit in enumerate(ways.values()) if fit not in list(ways.values())[:index]]
        return [(fit, tuple(head for head, own in ways.items() if own == fit)) for fit in different]

    def of(self, head: str) -> "FitConfig":
        """How one head sees photos."""
        own = self.heads.get(head)
        if isinstance(own, HeadFit):
            return self.model_copy(update={**dict(own), "heads": {}})
        return self.model_copy(update={"heads": {}}) if own is None else self.at(own)

    def whole(self) -> "FitConfig":
        """The same sizes, with photos whole and as they are."""
        sides = {head: self.of(head).short_side for head in self.heads}
        return self.model_copy(update={"window": None, "flip": False, "heads": sides})

    def at(self, short_side: int) -> "FitConfig":
        """Photos whole and as they are at another short side, for all heads."""
        return FitConfig(short_side=short_side, max_long_side=self.max_long_side)


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
