"""Many images, one after the other: taken as they are asked for, and run together where they have one size."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.errors import ConfigError, DataError
from densevit.inference.batching import Batch, Sizes, in_batches
from densevit.io import as_image
from densevit.io.arrays import CHANNELS
from densevit.limits import limits

Pixels = NDArray[np.uint8]

HELD_PIXELS = 64_000_000
"""Most pixels of images that wait to be run together."""

_Result = TypeVar("_Result")


def run_many(
    images: Iterable[Any],
    run: Callable[[Sequence[Pixels]], Sequence[_Result]],
    batch: Batch,
    device: torch.device,
) -> Iterator[_Result]:
    """The results of all images, in order; each batch is of one size, and read when its first result is asked for.

    Args:
        images: see ``items_of``.
        run: images (H, W, 3) of one size -> a result for each.
        batch: images at a time; "auto" as in ``in_batches``.
        device: on which ``run`` runs.

    Raises:
        DataError: an image cannot be read, with its place, after the results of those before it; no images.
        ConfigError: another batch.
    """
    if batch != "auto" and (isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= limits().batch):
        raise ConfigError(f"batch is {batch!r}; 1 to {limits().batch:,} images, or 'auto', are accepted")
    items = items_of(images)  # refused at once, not at the first result

    def results() -> Iterator[_Result]:
        size = Sizes(batch, device)
        waiting: list[Pixels] = []
        for number, image in enumerate(items):
            try:
                pixels = as_image(image)
            except DataError as error:
                yield from in_batches(run, waiting, batch, device=device, what="image", size=size)
                raise DataError(f"image {number} (counted from 0): {error}") from error
            full = len(waiting) >= size.now or sum(map(np.size, waiting)) + pixels.size > 3 * HELD_PIXELS
            if waiting and (full or pixels.shape != waiting[0].shape):
                yield from in_batches(run, waiting, batch, device=device, what="image", size=size)
                waiting = []
            waiting.append(pixels)
        yield from in_batches(run, waiting, batch, device=device, what="image", size=size)

    return results()


def items_of(images: Iterable[Any]) -> Iterator[Any]:
    """The images of a list, a generator, or an array or tensor (B, C, H, W), (B, H, W, C) or (B, H, W).

    Raises:
        DataError: it is one image, or none at all.
    """
    shape = tuple(images.shape) if isinstance(images, np.ndarray | torch.Tensor) else None
    if isinstance(images, str | os.PathLike):
        raise DataError(f"{images!r} is one path; an iterable of images is accepted; give [{images!r}], or use predict")
    if shape is not None and (len(shape) not in (3, 4) or (len(shape) == 3 and {shape[0], shape[2]} & CHANNELS)):
        raise DataError(
            f"the images are an array {shape}; (B, C, H, W), (B, H, W, C) and (B, H, W) of B images are accepted; put "
            "a single one into a list, or use predict"
        )
    try:
        return iter(images)
    except TypeError:
        raise DataError(
            f"the images are of type {type(images).__name__}; an iterable of images is accepted; put a single one into "
            "a list, or use predict"
        ) from None
