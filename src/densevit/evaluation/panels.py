"""An image, its target, its prediction and the error side by side, as one small picture."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.pixels import fit_photo, resize_nearest
from densevit.tasks import Depth, Segmentation, Task
from densevit.tasks.colour import colourise_depth
from densevit.tasks.metrics import DepthMetrics
from densevit.types import Size

Picture = NDArray[np.uint8]

PANELS = ("photo", "target", "prediction", "error")
SIDE = 320
"""Largest length of a panel's longer side in pixels."""
GAP = 4
WRONG = (230, 40, 40)
RIGHT_SHADE = 0.45
WORST_RATIO = 0.5
"""The relative depth error at which the error picture is brightest."""


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
    if isinstance(task, Segmentation):
        panels = _labels(task, small, target, prediction)
    elif isinstance(task, Depth):
        panels = _depth(task, target, prediction)
    else:
        panels = _values(task, target, prediction)
    gap = np.full((size[0], GAP, 3), 255, np.uint8)
    row = [small, *(part for panel in panels for part in (gap, panel))]
    return np.concatenate(row, axis=1)


def _labels(task: Segmentation, photo: Picture, target: Tensor, prediction: Tensor) -> tuple[Picture, ...]:
    """Error: the photo in dark grey, wrong pixels in red, pixels without a class in the photo's colours."""
    true, predicted = target.numpy(), prediction.numpy()
    grey = photo.mean(axis=2, keepdims=True) * RIGHT_SHADE
    error = np.repeat(grey, 3, axis=2).astype(np.uint8)
    known = true != task.ignore_index
    error[known & (true != predicted)] = WRONG
    error[~known] = photo[~known]
    return task.colourise(true), task.colourise(predicted), error


def _depth(task: Depth, target: Tensor, prediction: Tensor) -> tuple[Picture, ...]:
    """Target and prediction in metres on one scale; error: relative, black for none, yellow from ``WORST_RATIO``."""
    metrics = task.new_metrics()
    metres, valid = metrics.in_metres(prediction, target)
    true, predicted, known = target.numpy(), metres.numpy(), valid.numpy()
    if not known.any():
        black = np.zeros((*true.shape, 3), np.uint8)
        return black, black, black
    low, high = np.percentile(true[known], (2, 98))
    limits = (float(low), float(high))
    ratio = np.where(known, np.abs(predicted - true) / np.where(known, true, 1), 0) / WORST_RATIO
    return (
        colourise_depth(true, limits=limits, invalid=~known),
        colourise_depth(predicted, limits=limits),
        _heat(ratio),
    )


def _values(task: Task, target: Tensor, prediction: Tensor) -> tuple[Picture, ...]:
    """Both on one scale of colours; error: mean difference of the channels, yellow at the 98th percentile."""
    both = np.concatenate((target.numpy(), prediction.numpy()), axis=-1)
    if not np.isfinite(both).any():
        both = np.zeros_like(both)
    coloured = task.colourise(both)
    width = target.shape[-1]
    difference = (prediction - target).abs().float()
    error = difference.mean(0).numpy() if difference.ndim == 3 else difference.numpy()
    known = np.isfinite(error)
    top = np.percentile(error[known], 98) if known.any() else 1.0
    return coloured[:, :width], coloured[:, width:], _heat(np.where(known, error, 0) / max(float(top), 1e-12))


def _heat(share: NDArray[Any]) -> Picture:
    """Colours from black over red to yellow for values (H, W) from 0 to 1."""
    level = np.clip(np.nan_to_num(share), 0, 1)
    stops = np.array([[0, 0, 0], [110, 10, 60], [225, 60, 30], [255, 225, 90]], np.float64)
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, places, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def _small_photo(photo: NDArray[Any], size: Size) -> Picture:
    """The first three bands in 8 bits, or one as grey; values of other types are scaled to their 99th percentile."""
    bands = photo[..., :3] if photo.shape[2] >= 3 else np.repeat(photo[..., :1], 3, axis=2)
    if bands.dtype != np.uint8:
        values = np.nan_to_num(bands.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = max(float(np.percentile(values, 99)), 1e-12)
        bands = ((values / top).clip(0, 1) * 255).round().astype(np.uint8)
    if bands.shape[:2] == size:
        return bands
    return (fit_photo(bands, size) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def depth_counts(metrics: DepthMetrics, target: Tensor, prediction: Tensor, bins: int) -> Tensor:
    """int64 (bins, bins): valid pixels by true (row) and predicted (column) depth, from 0 m to ``max_depth_m``."""
    metres, valid = metrics.in_metres(prediction, target)
    true, predicted = target.cpu().double()[valid], metres[valid]
    rows, columns = ((v / metrics.max_depth_m * bins).long().clamp(0, bins - 1) for v in (true, predicted))
    return torch.bincount(rows * bins + columns, minlength=bins * bins).view(bins, bins)
