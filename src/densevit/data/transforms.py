"""Augmentation: a view is drawn first, from an explicit generator, then applied to image and targets alike.

Pixels are moved by torchvision's ``transforms.v2`` on its typed tensors, in one call for image and targets, so they
always agree.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from densevit.config import Config
from densevit.data.colour_jitter import Step, draw_jitter, draw_photometric, recolour, uniform
from densevit.data.sample import Sample, Target
from densevit.errors import DataError
from densevit.pixels import fit_image, resize_nearest
from densevit.types import Size

PADDING = 0.5
"""Grey beyond the edge of an image."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of a sample as tensors.

    Attributes:
        labels: int64 (H, W), the data set's own ids, or None.
        depth: float32 (H, W) metres, 0 where unknown, or None.
        values: float32 (K, H, W), NaN where unknown, or None.
        normals: whether the values are surface normals (x, y, z) in the camera's axes.
        ignore_index: id in ``labels`` of pixels without a class.
    """

    labels: Tensor | None = None
    depth: Tensor | None = None
    values: Tensor | None = None
    normals: bool = False
    ignore_index: int = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Example(Targets):
    """A sample as tensors, ready for a batch.

    Attributes:
        image: float32 (C, H, W) in [0, 1]; C is 3 for RGB.
    """

    image: Tensor


class AugmentConfig(Config):
    """Random scale, crop, flip and colour, and mixing of the examples of a batch.

    Attributes:
        crop: (height, width) of the training examples, multiples of the patch size.
        scale: range of the random scale, relative to ``base``.
        base: two sides, in any order. At scale 1 the image is as large as fits into them, its long side in the longer,
            as in mmsegmentation and the papers: (2048, 512) for ADE20K. None: its short side is that of the crop.
        flip: probability of a horizontal flip.
        rotate: largest angle of a random rotation to either side, in degrees.
        colour: strength of brightness, contrast and saturation jitter, 0 for none; hue moves by a tenth of it.
        photometric: mmsegmentation's photometric distortion.
        blur: probability of a Gaussian blur of 0.1 to 2 pixels.
        cat_max_ratio: a crop is drawn again, up to 10 times, while it has only one class, or one class covers at least
            this share of its labelled pixels.
        cutmix: probability that a rectangle of another example of the batch is pasted into an example.
        classmix: probability that half of the classes of another example of the batch are pasted.
    """

    crop: tuple[PositiveInt, PositiveInt]
    scale: tuple[float, float] = (0.5, 2.0)
    base: tuple[PositiveInt, PositiveInt] | None = None
    flip: float = Field(default=0.5, ge=0, le=1)
    rotate: float = Field(default=0.0, ge=0, le=180)
    colour: float = Field(default=0.4, ge=0, le=1)
    photometric: bool = False
    blur: float = Field(default=0.0, ge=0, le=1)
    cat_max_ratio: float = Field(default=0.75, gt=0, le=1)
    cutmix: float = Field(default=0.0, ge=0, le=1)
    classmix: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} must be (low, high) with 0 < low <= high")
        if self.cutmix + self.classmix > 1:
            raise ValueError(
                f"cutmix {self.cutmix} and classmix {self.classmix} are probabilities that exclude each other; "
                "their sum must be at most 1"
            )
        return self

    def plain_view(self) -> "AugmentConfig":
        """The same crop, with only its place random."""
        return AugmentConfig(crop=self.crop, base=self.base, scale=(1.0, 1.0), flip=0.0, colour=0.0, cat_max_ratio=1.0)


@dataclass(frozen=True, slots=True)
class View:
    """All that is random in an augmented example.

    Attributes:
        window: (top, left, height, width) in the sample's pixels.
        size: of the window after resizing; it is padded right and below to the crop.
        zoom: factor by which things come nearer.
        mirrored: left to right.
        angle: degrees counter-clockwise.
        blur: standard deviation in pixels; 0 for none.
        colours: changes of colour, in order.
    """

    window: tuple[int, int, int, int]
    size: Size
    zoom: float
    mirrored: bool
    angle: float
    blur: float
    colours: tuple[Step, ...]


def targets_of(
    sample: Sample, window: tuple[slice, slice] = (slice(None), slice(None)), size: Size | None = None
) -> Targets:
    """The rows and columns ``window`` of the sample's targets, resized to ``size`` if given; depth keeps its values."""

    def pixels(target: NDArray[Any] | None) -> Tensor | None:
        if target is None:
            return None
        tensor = torch.from_numpy(target[window])
        tensor = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor
        return tensor if size is None else resize_nearest(tensor, size)

    labels = pixels(sample.labels)
    labels = None if labels is None else labels.long()
    return Targets(labels, pixels(sample.depth), pixels(sample.values), sample.normals, sample.ignore_index)


def augment(sample: Sample, config: AugmentConfig, generator: torch.Generator) -> Example:
    """Draw a view and apply it: resize, crop (padded where the image is smaller), flip, rotate, blur, colour."""
    return take(sample, draw_view(sample, config, generator), config.crop)


def draw_view(sample: Sample, config: AugmentConfig, generator: torch.Generator) -> View:
    """Draw everything that is random.

    Raises:
        DataError: if surface normals would have to be rotated: the direction of their y axis is not known.
    """
    if sample.normals and config.rotate:
        raise DataError(
            f"{sample.name} has surface normals and augment.rotate is {config.rotate:g}; normals can be scaled and "
            "mirrored but not rotated, since data sets differ in where y points; set augment.rotate to 0"
        )
    size = (sample.image.shape[0], sample.image.shape[1])
    zoom = uniform(*config.scale, generator)
    window, resized = _draw_window(sample, size, _factor(size, config) * zoom, config, generator)
    coin, angle, blurred, sigma = torch.rand(4, generator=generator).tolist()
    return View(
        window,
        resized,
        zoom,
        mirrored=coin < config.flip,
        angle=(2 * angle - 1) * config.rotate,
        blur=0.1 + 1.9 * sigma if blurred < config.blur else 0.0,
        colours=draw_jitter(config.colour, generator) + (draw_photometric(generator) if config.photometric else ()),
    )


def take(sample: Sample, view: View, size: Size) -> Example:
    """Apply a view to a sample: the example of (height, width) ``size``.

    Zooming by a factor brings things nearer by that factor for a camera of fixed focal length, so depth is divided by
    it, and surface normals lean towards the viewer as in the flattened space.
    """
    top, left, height, width = view.window
    rows, columns = slice(top, top + height), slice(left, left + width)
    image = fit_image(sample.image[rows, columns], view.size, large=0)
    targets = targets_of(sample, (rows, columns), view.size)
    depth = None if targets.depth is None else targets.depth / view.zoom
    values = _lean(targets.values, view.zoom) if sample.normals and targets.values is not None else targets.values
    example = Example(targets.labels, depth, values, sample.normals, sample.ignore_index, image=image)
    example = pad(example, size)
    if view.mirrored:
        example = flip(example)
    if view.angle:
        example = rotate(example, view.angle)
    if view.blur:
        side = 2 * math.ceil(3 * view.blur) + 1
        if side // 2 < min(size):  # the blur reflects at the edges, which a smaller image has no room for
            example = replace(example, image=tv.gaussian_blur(example.image, [side, side], [view.blur, view.blur]))
    return replace(example, image=recolour(example.image, view.colours))


def crop(example: Example, window: tuple[slice, slice]) -> Example:
    """The same rows and columns of image and targets."""
    rows, columns = (w.indices(n) for w, n in zip(window, example.image.shape[-2:], strict=True))
    top, left, height, width = rows[0], columns[0], rows[1] - rows[0], columns[1] - columns[0]
    return _each(example, lambda part, _: tv.crop(part, top, left, height, width))


def pad(example: Example, size: Size) -> Example:
    """Pad right and below to at least ``size``: grey in the image, nothing known in the targets."""
    bottom, right = (max(n - m, 0) for n, m in zip(size, example.image.shape[-2:], strict=True))
    if not bottom and not right:
        return example
    return _each(example, lambda part, fill: tv.pad(part, [0, 0, right, bottom], fill=fill))


def flip(example: Example) -> Example:
    """Mirror image and targets left to right; x of surface normals changes sign, other values keep theirs."""
    mirrored = _each(example, lambda part, _: tv.horizontal_flip(part))
    if example.normals and mirrored.values is not None:
        mirrored.values[0].neg_()
    return mirrored


def rotate(example: Example, angle: float) -> Example:
    """Rotate image and targets counter-clockwise by ``angle`` degrees about the centre, at the same size."""
    bilinear = InterpolationMode.BILINEAR  # of the image; torchvision takes the nearest pixel of targets
    return _each(example, lambda part, fill: tv.rotate(part, angle, interpolation=bilinear, fill=fill))


def _each(example: Example, change: Callable[[Tensor, float], Tensor]) -> Example:
    """Apply ``change(pixels, fill)`` to image and targets, as torchvision's types of image and mask."""
    fills: dict[Target, float] = {"labels": example.ignore_index, "depth": 0.0, "values": float("nan")}
    changed: dict[str, Any] = {"image": change(tv_tensors.Image(example.image), PADDING).as_subclass(Tensor)}
    for name, fill in fills.items():
        if (target := getattr(example, name)) is not None:
            changed[name] = change(tv_tensors.Mask(target), fill).as_subclass(Tensor)
    return replace(example, **changed)


def _factor(size: Size, config: AugmentConfig) -> float:
    """Factor on the sides at scale 1."""
    if config.base is None:
        return min(config.crop) / min(size)
    return min(max(config.base) / max(size), min(config.base) / min(size))


def _draw_window(
    sample: Sample, size: Size, factor: float, config: AugmentConfig, generator: torch.Generator
) -> tuple[tuple[int, int, int, int], Size]:
    """The window of the sample that becomes the crop at this factor, and its size after resizing.

    The window is cut before resizing, in whole pixels, so the cost does not grow with the image. With labels, it is
    drawn again up to ten times while one class covers too much of it.
    """
    resized = [max(round(n * factor), 1) for n in size]
    inside = (min(resized[0], config.crop[0]), min(resized[1], config.crop[1]))
    height, width = (min(max(round(n * i / r), 1), n) for n, i, r in zip(size, inside, resized, strict=True))
    top = left = 0
    for _ in range(10):
        top = int(torch.randint(size[0] - height + 1, (), generator=generator))
        left = int(torch.randint(size[1] - width + 1, (), generator=generator))
        if sample.labels is None or config.cat_max_ratio >= 1:
            break
        step = max(min(height // config.crop[0], width // config.crop[1]), 1)  # no finer than the crop will be
        piece = torch.from_numpy(sample.labels[top : top + height : step, left : left + width : step])
        counts = torch.bincount(piece[piece != sample.ignore_index])
        if counts.count_nonzero() > 1 and counts.max() < config.cat_max_ratio * counts.sum():
            break
    return (top, left, height, width), inside


def _lean(normals: Tensor, zoom: float) -> Tensor:
    """Normals (3, H, W) of a space whose depth is divided by ``zoom``: z is multiplied by it, the length stays 1."""
    return F.normalize(normals * torch.tensor([1.0, 1.0, zoom])[:, None, None], dim=0)
