"""An image, its target, its prediction and the error side by side, as one small picture."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.pixels import fit_image, resize_nearest
from densevit.tasks import Task
from densevit.tasks.colour import Picture
from densevit.types import Size

PANELS = ("photo", "target", "prediction", "error")
SIDE = 320
"""Largest length of a panel's longer side in pixels."""
GAP = 4


def compare(task: Task, photo: NDArray[Any], target: Tensor, prediction: Tensor) -> Picture:
    """The four ``PANELS`` side by side.

    Args:
        task: of target and prediction.
        photo: (H, W, C), of a sample.
        target: as ``task.read_target`` gives it.
        prediction: as ``task.decode`` gives it.

    Returns:
        uint8 (h, 4 w + gaps, 3), each panel at most ``SIDE`` pixels long.
    """
    height, width = photo.shape[:2]
    scale = min(SIDE / max(height, width), 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    small = _small_photo(photo, size)
    target, prediction = resize_nearest(target.cpu(), size), resize_nearest(prediction.cpu(), size)
    gap = np.full((size[0], GAP, 3), 255, np.uint8)
    row = [small]
    for panel in task.compare(small, target, prediction):
        row += [gap, panel]
    return np.concatenate(row, axis=1)


def _small_photo(photo: NDArray[Any], size: Size) -> Picture:
    """The first three bands in 8 bits, or one as grey; values of other types are scaled to their 99th percentile."""
    bands = photo[..., :3] if photo.shape[2] >= 3 else np.repeat(photo[..., :1], 3, axis=2)
    if bands.dtype != np.uint8:
        values = np.nan_to_num(bands.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = max(float(np.percentile(values, 99)), 1e-12)
        bands = ((values / top).clip(0, 1) * 255).round().astype(np.uint8)
    if bands.shape[:2] == size:
        return bands
    return (fit_image(bands, size) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
