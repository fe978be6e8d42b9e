"""Windows blended at the decoder's stride: cheaper, and approximate where windows overlap."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference.separable_resize import Resize
from densevit.inference.tiled_logits import TiledLogits, whole
from densevit.types import Size


def blend_at_stride(
    windows: dict[tuple[int, int], Tensor],
    starts: tuple[tuple[int, ...], tuple[int, ...]],
    size: Size,
    extent: Size,
    weights: tuple[NDArray[np.float32], NDArray[np.float32]],
    out: Size,
    *,
    align_corners: bool,
) -> TiledLogits:
    """The windows' logits averaged on one grid over the image, which is resized to the result once.

    The result equals the exact blend for one window and, up to rounding, inside windows whose starts are multiples of
    the stride. Elsewhere windows are shifted by up to half a stride, and their edges are smoothed. Decoders that align
    corners have no such grid.
    """
    first = windows[0, 0]
    grid = (first.shape[-2], first.shape[-1])
    strides = [e / g for e, g in zip(extent, grid, strict=True)]
    cells = [max(math.ceil(max(n, e) / s), g) for n, e, s, g in zip(size, extent, strides, grid, strict=True)]
    total = first.new_zeros((first.shape[0], *cells))
    weight_sum = first.new_zeros(tuple(cells))
    cell_weights = [_cell_weights(w, g).to(first.device) for w, g in zip(weights, grid, strict=True)]
    weight = cell_weights[0][:, None] * cell_weights[1]
    for (i, j), logits in windows.items():
        top, left = (
            min(round(axis[n] / s), c - g)
            for axis, n, s, c, g in zip(starts, (i, j), strides, cells, grid, strict=True)
        )
        rows, columns = slice(top, top + grid[0]), slice(left, left + grid[1])
        total[:, rows, columns] += logits * weight
        weight_sum[rows, columns] += weight
    total /= weight_sum.clamp_(min=torch.finfo(weight_sum.dtype).tiny)
    covered = [max(round(c * s), n) for c, s, n in zip(cells, strides, size, strict=True)]
    resizes = [
        (Resize(c, pixels, align_corners=align_corners), Resize(n, o))
        for c, pixels, n, o in zip(cells, covered, size, out, strict=True)
    ]
    return whole(total, resizes[0], resizes[1])


def _cell_weights(weights: NDArray[np.float32], cells: int) -> Tensor:
    """Turn the blend weights of pixels into those of the decoder's cells, taken at their centres."""
    centres = ((np.arange(cells) + 0.5) * len(weights) / cells).astype(int).clip(0, len(weights) - 1)
    return torch.from_numpy(weights[centres])
