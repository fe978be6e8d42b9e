"""Augmentation: parameters are drawn first, from an explicit generator, then applied to image and target alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from densevit.config import Config
from densevit.data.sample import Sample
from densevit.pixels import resize_image, resize_nearest, to_tensor
from densevit.types import Size


@dataclass(frozen=True, slots=True)
class Example:
    """A sample as tensors, ready for a batch.

    Attributes:
        image: float32 (3, H, W) in [0, 1].
        labels: int64 (H, W), the data set's own ids, or None.
        depth: float32 (H, W) metres, 0 where unknown, or None.
        values: float32 (K, H, W), NaN where unknown, or None.
    """

    image: Tensor
    labels: Tensor | None
    depth: Tensor | None
    values: Tensor | None


class AugmentConfig(Config):
    """Random scale, crop, flip and colour.

    Attributes:
        crop: (height, width) of what is trained on, multiples of the patch size.
        scale: range of the random scale, relative to the size at which the image just covers the crop's short side.
        flip: probability of a horizontal flip.
        colour: strength of brightness, contrast and saturation jitter, 0 for none; hue moves by a tenth of it.
        cat_max_ratio: a crop is drawn again (10 times) while one class covers more than this share of it.
    """

    crop: tuple[PositiveInt, PositiveInt]
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    colour: float = Field(default=0.4, ge=0, le=1)
    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (low, high) with 0 < low <= high")
        return self


def as_example(sample: Sample, size: Size | None = None) -> Example:
    """The sample as tensors, resized to ``size`` if given; depth keeps its values."""
    image = to_tensor(sample.image)
    labels = None if sample.labels is None else torch.from_numpy(sample.labels).long()
    depth = None if sample.depth is None else torch.from_numpy(sample.depth)
    values = None if sample.values is None else torch.from_numpy(sample.values).permute(2, 0, 1)
    if size is not None:
        image = resize_image(image, size)
        labels = None if labels is None else resize_nearest(labels, size)
        depth = None if depth is None else resize_nearest(depth, size)
        values = None if values is None else resize_nearest(values, size)
    return Example(image, labels, depth, values)


def augment(sample: Sample, config: AugmentConfig, generator: torch.Generator) -> Example:
    """Draw and apply: resize, crop (padded where the image is smaller), flip, colour.

    Zooming by a factor brings things nearer by that factor for a camera of fixed focal length, so depth is divided by
    the zoom relative to the plain size.
    """
    crop_h, crop_w = config.crop
    height, width = sample.image.shape[:2]
    zoom = _uniform(config.scale, generator)
    cover = min(crop_h, crop_w) / min(height, width)
    size = (max(round(height * cover * zoom), 1), max(round(width * cover * zoom), 1))
    example = as_example(sample, size)
    labels = None if example.labels is None else _pad_to(example.labels, config.crop, 255)
    depth = None if example.depth is None else _pad_to(example.depth / zoom, config.crop, 0)
    values = None if example.values is None else _pad_to(example.values, config.crop, float("nan"))
    example = Example(_pad_to(example.image, config.crop, 0.5), labels, depth, values)
    top, left = _draw_corner(example.image, labels, config, generator)
    example = crop(example, (slice(top, top + crop_h), slice(left, left + crop_w)))
    if torch.rand((), generator=generator) < config.flip:
        example = flip(example)
    return replace(example, image=_jitter(example.image, config.colour, generator))


def crop(example: Example, window: tuple[slice, slice]) -> Example:
    """The same rows and columns of image and targets."""
    return _each(example, lambda t: t[..., window[0], window[1]])


def flip(example: Example) -> Example:
    """Mirror image and targets left to right; the values of a regression keep their sign."""
    return _each(example, lambda t: t.flip(-1))


def _each(example: Example, change: Callable[[Tensor], Tensor]) -> Example:
    parts = (None if t is None else change(t) for t in (example.labels, example.depth, example.values))
    return Example(change(example.image), *parts)


def _uniform(bounds: tuple[float, float], generator: torch.Generator) -> float:
    return float(bounds[0] + (bounds[1] - bounds[0]) * torch.rand((), generator=generator))


def _pad_to(values: Tensor, size: Size, fill: float) -> Tensor:
    """Pad right and below to at least ``size``."""
    bottom, right = max(size[0] - values.shape[-2], 0), max(size[1] - values.shape[-1], 0)
    return torch.nn.functional.pad(values, (0, right, 0, bottom), value=fill) if bottom or right else values


def _draw_corner(
    image: Tensor, labels: Tensor | None, config: AugmentConfig, generator: torch.Generator
) -> tuple[int, int]:
    """Top left corner of a crop; with labels, one where no class covers too much, if ten tries find it."""
    top = left = 0
    for _ in range(10):
        top = int(torch.randint(image.shape[-2] - config.crop[0] + 1, (), generator=generator))
        left = int(torch.randint(image.shape[-1] - config.crop[1] + 1, (), generator=generator))
        if labels is None or config.cat_max_ratio >= 1:
            break
        piece = labels[top : top + config.crop[0], left : left + config.crop[1]]
        counts = torch.bincount(piece.flatten(), minlength=256)
        counts[255] = 0
        if counts.count_nonzero() > 1 and counts.max() < config.cat_max_ratio * counts.sum():
            break
    return top, left


def _jitter(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    if strength == 0:
        return image
    brightness, contrast, saturation = (_uniform((1 - strength, 1 + strength), generator) for _ in range(3))
    image = tv.adjust_brightness(image, brightness)
    image = tv.adjust_contrast(image, contrast)
    image = tv.adjust_saturation(image, saturation)
    result: Tensor = tv.adjust_hue(image, _uniform((-0.1 * strength, 0.1 * strength), generator))
    return result
