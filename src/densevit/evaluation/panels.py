"""An image, its target, its prediction and the error side by side, as one small picture."""

import numpy as np
import torch
from torch import Tensor

from densevit.pixels import fit_image, resize_nearest
from densevit.tasks import Task
from densevit_runtime.colour import Picture

PANELS = ("photo", "target", "prediction", "error")
SIDE = 320
"""Largest length of a panel's longer side in pixels."""
GAP = 4


def compare(task: Task, image: Picture, target: Tensor, prediction: Tensor) -> Picture:
    """The four ``PANELS`` side by side.

    Args:
        task: of target and prediction.
        image: uint8 (H, W, 3), as ``Sample.picture`` gives it.
        target: as ``task.read_target`` gives it.
        prediction: as ``task.decode`` gives it.

    Returns:
        uint8 (h, 4 w + gaps, 3), each panel at most ``SIDE`` pixels long.
    """
    height, width = image.shape[:2]
    scale = min(SIDE / max(height, width), 1.0)
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    small = image
    if size != (height, width):
        small = (fit_image(image, size) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    target, prediction = resize_nearest(target.cpu(), size), resize_nearest(prediction.cpu(), size)
    gap = np.full((size[0], GAP, 3), 255, np.uint8)
    row = [small]
    for panel in task.compare(small, target, prediction):
        row += [gap, panel]
    return np.concatenate(row, axis=1)
