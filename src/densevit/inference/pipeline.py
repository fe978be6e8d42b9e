"""The one road from an image to the logits of every head.

``predict_logits`` runs an image as its checkpoint says (``InferenceConfig``) with what a caller lays over that
(``InferenceOptions``): whole or in sliding windows, at several scales, mirrored, or as a published program does it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.config import Config
from densevit.errors import ConfigError
from densevit.inference import protocols
from densevit.inference.sliding_window import SlidingWindow, SlidingWindowRunner
from densevit.inference.tiled_logits import TiledLogits, resized_logits
from densevit.inference.tta import TtaMean
from densevit.inference_config import (
    DEFAULT_QUALITY,
    InferenceConfig,
    Protocol,
    Quality,
    Scale,
    WholeProtocol,
    checked_input_size,
)
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.tasks import Task
from densevit.types import Size, Taps

Image = NDArray[Any]
"""(H, W, C) uint8, or float32 in [0, 1]."""

Encode = Callable[[Tensor], Taps]
"""Images (1, C, H, W) in [0, 1] -> taps, in place of the model's own encoder: a feature cache, say."""


class InferenceOptions(Config):
    """What a caller asks for beyond what the checkpoint's ``InferenceConfig`` says.

    Attributes:
        quality: "fast" or "best"; None for the predictor's, and "fast" where there is none. Scales and flip apply to
            what it says; windows and protocols replace it.
        windows: sliding windows at the image's own pixels, instead of resizing it to the size of training.
        scales: factors on the input size; their results are averaged: probabilities for labels, else values.
        flip: average with the result for the mirrored image.
        protocol: run exactly as a published program does; it has its own windows and scales.
        tta: use the protocol's test-time augmentation: several scales, each mirrored too.

    Raises:
        ConfigError: if a protocol is combined with windows, scales or flip, or ``tta`` is on without a protocol.
    """

    quality: Quality | None = None
    windows: SlidingWindow | None = None
    scales: tuple[Scale, ...] = Field(default=(1.0,), min_length=1)
    flip: bool = False
    protocol: Protocol | None = None
    tta: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.protocol is not None and not self.has_default_views:
            raise ConfigError(
                f"protocol {self.protocol.kind} has its own windows and scales, but windows, scales or flip are given "
                "too; leave them or it out"
            )
        if self.protocol is None and self.tta:
            raise ConfigError(
                "tta is on but no protocol is named; test-time augmentation belongs to a protocol; name one, or use "
                "scales and flip"
            )
        return self

    @property
    def has_default_views(self) -> bool:
        """Whether windows, scales and flip are left to the checkpoint."""
        return self.windows is None and self.scales == (1.0,) and not self.flip

    @property
    def uses_quality(self) -> bool:
        """Whether the sizes of the checkpoint's quality are used; windows and protocols have their own."""
        return self.windows is None and self.protocol is None

    def way(self) -> dict[str, Any]:
        """Windows, scales and flip as plain data, for records of results."""
        return self.model_dump(mode="json", include={"windows", "scales", "flip"})

    def check_tasks(self, tasks: Mapping[str, Task]) -> None:
        """Refuse test-time augmentation for heads for which the protocol has none.

        Raises:
            ConfigError: if there is such a head.
        """
        for task in tasks.values():
            if self.tta and (isinstance(self.protocol, WholeProtocol) or not task.averages_probabilities):
                assert self.protocol is not None
                raise ConfigError(
                    f"protocol {self.protocol.kind} has no multi-scale set for {task.kind}; leave tta off, or take "
                    f"segmentation with one of {', '.join(protocols.WINDOW_KINDS)}"
                )

    def check_streaming(self, source: object) -> None:
        """Refuse what an image that is streamed from disk cannot have.

        Raises:
            ConfigError: if there are several views of the image, or a protocol.
        """
        if self.scales != (1.0,) or self.flip or self.protocol is not None:
            raise ConfigError(
                f"{source} is streamed, because it is large or georeferenced; --scales and --flip are for photos in "
                "memory; leave them out"
            )


@dataclass(frozen=True)
class Plan:
    """How a group of heads sees an image.

    Attributes:
        heads: their names.
        config: what the checkpoint says about them.
        windows: sliding windows, or None for the whole image at once.
        own_pixels: whether windows are laid over the image at its own pixels, and not over the resized image.
        views: scale and whether mirrored, of each view whose results are averaged.
    """

    heads: tuple[str, ...]
    config: InferenceConfig
    windows: SlidingWindow | None
    own_pixels: bool
    views: tuple[tuple[float, bool], ...]

    def input_size(self, size: Size, patch_size: Size, scale: float) -> Size:
        """The size (H, W) that an image is resized to for a view."""
        if self.own_pixels and self.windows is not None:
            factor = self.windows.scale * scale
            return checked_input_size((max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)), size)
        plain = self.config.input_size(size, patch_size)
        height, width = (max(round(n * scale / p), 1) * p for n, p in zip(plain, patch_size, strict=True))
        return checked_input_size((height, width), size)


def plans(config: InferenceConfig, options: InferenceOptions, heads: Mapping[str, Task]) -> Iterator[Plan]:
    """The encoder passes that an image needs: heads that see it in the same way share them."""
    if options.windows is not None:
        views = tuple(product(options.scales, (False, True) if options.flip else (False,)))
        for group, names in options.windows.groups(config, heads):
            yield Plan(names, group, options.windows, own_pixels=True, views=views)
        return
    for group, names in config.at_quality(options.quality or DEFAULT_QUALITY).groups(heads):
        # Windows of a resized image overlap by half: they are few, and each pixel is seen well inside of one.
        windows = None if group.window is None else SlidingWindow(overlap=group.window // 2)
        views = tuple(product(options.scales, (False, True) if options.flip or group.flip else (False,)))
        yield Plan(names, group, windows, own_pixels=False, views=views)


def predict_logits(
    model: DenseModel,
    tasks: Mapping[str, Task],
    image: Image,
    config: InferenceConfig,
    options: InferenceOptions | None = None,
    *,
    encode: Encode | None = None,
) -> dict[str, TiledLogits]:
    """Run an image through some heads of a model.

    Args:
        model: in evaluation mode.
        tasks: the heads to run.
        image: (H, W, C).
        config: what the checkpoint says about running it.
        options: what the caller lays over it.
        encode: replaces the model's encoder for heads that see the whole image once; others ignore it.

    Returns:
        Per head logits (log probabilities where views are averaged), depth or values, of the image's size and held
        at the decoder's stride; they are made tile by tile when asked for.

    Raises:
        ConfigError: if windows do not suit the model, or a protocol has no test-time augmentation for a task.
    """
    (logits,) = predict_batch(model, tasks, [image], config, options, encode=encode)
    return logits


@torch.inference_mode()
def predict_batch(
    model: DenseModel,
    tasks: Mapping[str, Task],
    images: Sequence[Image],
    config: InferenceConfig,
    options: InferenceOptions | None = None,
    *,
    encode: Encode | None = None,
) -> list[dict[str, TiledLogits]]:
    """Run images of one size, together where they are run whole; see ``predict_logits`` for the rest."""
    options = options or InferenceOptions()
    options.check_tasks(tasks)
    if options.protocol is not None:
        return [
            {
                head: protocols.tiled_logits(options.protocol, model, head, task, image, tta=options.tta)
                for head, task in tasks.items()
            }
            for image in images
        ]
    logits: list[dict[str, TiledLogits]] = [{} for _ in images]
    for plan in plans(config, options, tasks):
        means = [
            {head: TtaMean(probabilities=tasks[head].averages_probabilities) for head in plan.heads} for _ in images
        ]
        for scale, mirrored in plan.views:
            views = [np.ascontiguousarray(image[:, ::-1]) if mirrored else image for image in images]
            for number, outputs in enumerate(_run_views(model, plan, views, scale, encode)):
                for head, tiled in outputs.items():
                    signed = tiled.with_flipped_signs(tasks[head].mirrored_channels) if mirrored else tiled
                    means[number][head].add(signed, mirrored=mirrored)
        for number, heads in enumerate(means):
            logits[number] |= {head: mean.mean() for head, mean in heads.items()}
    return [{head: found[head] for head in tasks} for found in logits]


def _run_views(
    model: DenseModel, plan: Plan, images: Sequence[Image], scale: float, encode: Encode | None
) -> list[dict[str, TiledLogits]]:
    """One view of images of one size through a group of heads -> for each, per head its logits, of the image's size."""
    size = (images[0].shape[0], images[0].shape[1])
    input_size = plan.input_size(size, model.config.encoder.patch_size, scale)
    if plan.windows is not None:
        runner = SlidingWindowRunner(model, plan.heads, plan.windows, default_side=plan.config.window_side)
        return [dict(runner.run_image(image, input_size)) for image in images]
    fitted = [fit_image(image, input_size)[None] for image in images]
    pixels = (fitted[0] if len(fitted) == 1 else torch.cat(fitted)).to(model.mean.device)
    # A single view at the image's own size is resized once, so the decoder may leave its last resize to that; views
    # that are averaged keep the decoder's own output.
    coarse = input_size == size and plan.views == ((1.0, False),)
    if encode is None:
        outputs = model(pixels, plan.heads, coarse=coarse)
    else:
        outputs = model.decode(encode(pixels), plan.heads, coarse=coarse)
    return [
        {
            head: resized_logits(output.logits[number].float(), size, align_corners=model.decoder(head).align_corners)
            for head, output in outputs.items()
        }
        for number in range(len(images))
    ]
