"""From the logits of one head for one image to predictions, scores and entropy."""

from typing import NamedTuple

from torch import Tensor

from densevit.inference.tiled_logits import TiledLogits, collect, tile_entropy, tile_scores
from densevit.tasks import Task
from densevit.types import Size
from densevit.upsampling import upsample_entropy, upsample_scores

ENTROPY_POINTS = 64
"""Rows and columns of points, at most, at which the mean entropy is taken."""


class Decoded(NamedTuple):
    """What a head predicts for an image.

    Attributes:
        prediction: (H, W) or (C, H, W), on the CPU.
        mean_entropy: see the function; None for tasks without classes, and where it is not known.
    """

    prediction: Tensor
    mean_entropy: float | None


def decode(task: Task, logits: TiledLogits) -> Tensor:
    """What the task predicts: (H, W) or (C, H, W)."""
    if logits.plain is None:
        return collect(logits, lambda tile: decode_tile(task, tile))
    values, corners = logits.plain  # upsampling and decoding are then fused
    return task.decode(values, logits.size, align_corners=corners)


def decode_tile(task: Task, tile: Tensor) -> Tensor:
    """What the task predicts for logits (K, rows, columns) at the image's own pixels."""
    return task.decode(tile, (tile.shape[-2], tile.shape[-1]), align_corners=False)


def scores(logits: TiledLogits) -> Tensor:
    """(H, W) float32 in [0, 1]: softmax probability of the most likely class."""
    if logits.plain is None:
        return collect(logits, tile_scores)
    values, corners = logits.plain
    return upsample_scores(values, logits.size, align_corners=corners)


def entropy(logits: TiledLogits) -> Tensor:
    """(H, W) float32 in [0, 1]: entropy of the softmax, relative to that of a uniform distribution."""
    if logits.plain is None:
        return collect(logits, tile_entropy)
    values, corners = logits.plain
    return upsample_entropy(values, logits.size, align_corners=corners)


def mean_entropy(logits: TiledLogits) -> float:
    """How unsure a head is of an image, in [0, 1]: the mean at up to 64 x 64 points.

    The points are on the decoder's grid where one resize of it gives the result, else on the image.
    """
    if logits.plain is None:
        return float(entropy(logits.resized(_points(logits.size))).mean())
    values, corners = logits.plain
    points = _points((values.shape[-2], values.shape[-1]))
    return float(upsample_entropy(values, points, align_corners=corners).mean())


def _points(size: Size) -> Size:
    return min(size[0], ENTROPY_POINTS), min(size[1], ENTROPY_POINTS)
