"""From what a head said of a photo, logits at the decoder's stride or a field, to labels, values and certainty."""

from torch import Tensor

from densevit.inference import tiled_logits as fields
from densevit.inference.tiled_logits import (
    StitchedLogits,
    TiledLogits,
    collect,
    full,
    tile_entropy,
    tile_labels,
    tile_scores,
)
from densevit.tasks import Segmentation, Task
from densevit.types import Size
from densevit.upsampling import upsample_entropy, upsample_scores

Source = Tensor | TiledLogits
"""Logits (K, h', w'), or a field of the photo's size."""


def _simplest(source: Source, align_corners: bool) -> tuple[Source, bool]:
    """Logits instead of a field that is but their resize: for them there are kernels."""
    plain = source.plain if isinstance(source, StitchedLogits) else None
    return (source, align_corners) if plain is None else plain


def decode(task: Task, source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """What the task predicts, at ``size``: labels (H, W), depth (H, W) or values (K, H, W)."""
    source, align_corners = _simplest(source, align_corners)
    if not isinstance(source, TiledLogits):
        return task.decode(source, size, align_corners=align_corners)
    if isinstance(task, Segmentation):
        return collect(source, tile_labels)
    return task.decode(full(source), size, align_corners=align_corners)


def scores(source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """(H, W) float32 in [0, 1]: softmax probability of the most likely class."""
    source, align_corners = _simplest(source, align_corners)
    if isinstance(source, TiledLogits):
        return collect(source, tile_scores)
    return upsample_scores(source, size, align_corners=align_corners)


def entropy(source: Source, size: Size, *, align_corners: bool) -> Tensor:
    """(H, W) float32 in [0, 1]: entropy of the softmax over that of a uniform one."""
    source, align_corners = _simplest(source, align_corners)
    if isinstance(source, TiledLogits):
        return collect(source, tile_entropy)
    return upsample_entropy(source, size, align_corners=align_corners)


def mean_entropy(task: Segmentation, source: Source, *, align_corners: bool) -> float:
    """In [0, 1]: how unsure a head is of a photo."""
    if isinstance(source, TiledLogits):
        return fields.mean_entropy(source)
    return task.mean_entropy(source, align_corners=align_corners)
