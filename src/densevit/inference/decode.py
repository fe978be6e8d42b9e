"""From the output of a head for one image, plain or tiled logits, to predictions, scores and entropy."""

from torch import Tensor

from densevit.inference.tiled_logits import StitchedLogits, TiledLogits, collect, tile_entropy, tile_scores
from densevit.tasks import Task
from densevit.types import Size
from densevit.upsampling import upsample_entropy, upsample_scores

Source = Tensor | TiledLogits
"""Logits (K, h', w') at the decoder's stride, or tiled logits of the image's size."""

ENTROPY_POINTS = 64
"""Rows and columns of points, at most, at which the mean entropy is taken."""


def simplest(source: Source, align_corners: bool) -> tuple[Source, bool]:
    """The logits themselves if tiled logits are no more than their resize: there are fused kernels for that."""
    plain = source.plain if isinstance(source, StitchedLogits) else None
    return (source, align_corners) if plain is None else plain


def decode(task: Task, source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """What the task predicts, at ``size``: (H, W) or (C, H, W)."""
    source, align_corners = simplest(source, align_corners)
    if isinstance(source, TiledLogits):
        return collect(source, lambda tile: decode_tile(task, tile))
    return task.decode(source, size, align_corners=align_corners)


def decode_tile(task: Task, tile: Tensor) -> Tensor:
    """Logits (K, rows, columns) at the image's own pixels -> what the task predicts there."""
    return task.decode(tile, (tile.shape[-2], tile.shape[-1]), align_corners=False)


def scores(source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """(H, W) float32 in [0, 1]: softmax probability of the most likely class."""
    source, align_corners = simplest(source, align_corners)
    if isinstance(source, TiledLogits):
        return collect(source, tile_scores)
    return upsample_scores(source, size, align_corners=align_corners)


def entropy(source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """(H, W) float32 in [0, 1]: entropy of the softmax over that of a uniform one."""
    source, align_corners = simplest(source, align_corners)
    if isinstance(source, TiledLogits):
        return collect(source, tile_entropy)
    return upsample_entropy(source, size, align_corners=align_corners)


def mean_entropy(source: Source, *, align_corners: bool) -> float:
    """In [0, 1]: how unsure a head is of an image, at up to 64 x 64 points of the logits or of the tiled logits."""
    source, align_corners = simplest(source, align_corners)
    size = source.size if isinstance(source, TiledLogits) else (source.shape[-2], source.shape[-1])
    points = (min(size[0], ENTROPY_POINTS), min(size[1], ENTROPY_POINTS))
    if isinstance(source, TiledLogits):
        source = source.resized(points)
    return float(entropy(source, points, align_corners=align_corners).mean())
