"""Colours for labels and values: look-up, depth, overlays. Numpy only; pictures are uint8 (H, W, 3) RGB."""

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.errors import DataError, ShapeError
from densevit_runtime.oklab import from_lab, polar
from densevit_runtime.typed import Rgb

Picture = NDArray[np.uint8]
"""uint8 (H, W, 3), RGB."""

_DEPTH_ANCHORS = (
    (0.20, 0.07, 285.0),
    (0.36, 0.15, 300.0),
    (0.52, 0.19, 335.0),
    (0.67, 0.18, 25.0),
    (0.82, 0.145, 70.0),
    (0.96, 0.07, 105.0),
)
"""Far to near, night blue to cream: lightness in even steps, chroma, and hue in degrees."""


def colourise_labels(labels: NDArray[Any], palette: Sequence[Rgb], *, ignore_index: int = 255) -> Picture:
    """Look up every label in the palette; ignored pixels are black.

    Args:
        labels: (H, W) integer class ids.
        palette: one colour per class.
        ignore_index: id shown in black, even if the palette has a colour for it.

    Raises:
        ShapeError: not (H, W).
        DataError: not integer, or an id that is neither in the palette nor ``ignore_index``.
    """
    _check_map(labels, "labels")
    if labels.dtype.kind not in "iu":
        raise DataError(f"labels are {labels.dtype} but integer class ids are accepted; pass the arg max of the scores")
    table = np.zeros((len(palette) + 1, 3), np.uint8)
    table[:-1] = np.array(palette, np.uint8).reshape(-1, 3)
    ignored = labels == ignore_index
    outside = labels[((labels < 0) | (labels >= len(palette))) & ~ignored]
    if outside.size:
        raise DataError(
            f"labels hold class id {outside[0]} but the palette has the ids 0..{len(palette) - 1} and ignore_index is "
            f"{ignore_index}; pass the palette of the model that made the labels"
        )
    return table[np.where(ignored, np.uint16(len(palette)), labels)]


def colourise_depth(
    depth: NDArray[Any],
    *,
    near: Literal["small", "large"] = "small",
    percentiles: tuple[float, float] = (2.0, 98.0),
    limits: tuple[float, float] | None = None,
    invalid: NDArray[np.bool_] | None = None,
) -> Picture:
    """Depth or disparity as colours: near is a bright cream, far a night blue, lightness even in between.

    Args:
        depth: (H, W) depth or disparity.
        near: ``"small"`` for depth, where 0 and less means invalid; ``"large"`` for disparity.
        percentiles: of the valid pixels, where the colour map begins and ends; robust to outliers.
        limits: the values where it begins and ends instead, to give several pictures one scale.
        invalid: (H, W) True where there is no value; shown in black, like all that is not finite.

    Raises:
        ShapeError: not (H, W), or ``invalid`` has another size.
    """
    _check_map(depth, "depth")
    values = depth.astype(np.float32)
    valid = np.isfinite(values) & ((values > 0) | (near == "large"))
    if invalid is not None:
        _check_size(invalid, depth, "invalid", "depth")
        valid &= ~invalid
    if not valid.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    low, high = limits if limits is not None else np.percentile(values[valid], percentiles)
    share = (np.where(valid, values, low) - low) / max(high - low, 1e-12)
    nearness = (1 - share if near == "small" else share).clip(0, 1)
    picture: Picture = _depth_table()[np.rint(nearness * 255).astype(np.uint8)]
    picture[~valid] = 0
    return picture


def colourise_values(values: NDArray[Any], *, unit_vectors: bool = False) -> Picture:
    """(K, H, W): the first three channels as red, green and blue; only the first, as grey, if there are fewer.

    Args:
        values: of any kind.
        unit_vectors: -1..1 becomes 0..255; otherwise each channel is scaled over its range.
    """
    picture = np.moveaxis(np.asarray(values, dtype=np.float32), 0, -1)[..., :3]
    if unit_vectors:
        scaled = (picture + 1) / 2
    else:
        low, high = np.nanmin(picture, axis=(0, 1)), np.nanmax(picture, axis=(0, 1))
        scaled = (picture - low) / np.maximum(high - low, 1e-12)
    if scaled.shape[-1] < 3:
        scaled = np.repeat(scaled[..., :1], 3, axis=-1)
    return (np.nan_to_num(scaled.clip(0, 1)) * 255).round().astype(np.uint8)


def heat(share: NDArray[Any]) -> Picture:
    """0..1 (H, W) -> colours from black through red to yellow."""
    level = np.clip(np.nan_to_num(share), 0, 1)
    stops = np.array([[0, 0, 0], [110, 10, 60], [225, 60, 30], [255, 225, 90]], np.float64)
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(level, places, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def overlay(image: Picture, colours: Picture, *, alpha: float = 0.55, labels: NDArray[Any] | None = None) -> Picture:
    """Colours blended over an image; where they are black (ignored, invalid), the image is unchanged.

    Args:
        image: (H, W, 3) uint8.
        colours: (H, W, 3) uint8, of ``colourise_labels`` or ``colourise_depth``.
        alpha: weight of the colours, 0 to 1.
        labels: (H, W); thin dark lines are drawn where they change.

    Raises:
        ShapeError: the sizes differ.
    """
    _check_size(colours, image, "colours", "image")
    # In 256ths and 16 bits: an image of 100 megapixels in floats would take gigabytes.
    weight = round(alpha * 256)
    mixed = (image * np.uint16(256 - weight) + colours * np.uint16(weight) + np.uint16(128)) >> 8
    picture = np.where(colours.any(axis=2, keepdims=True), mixed.astype(np.uint8), image)
    return picture if labels is None else draw_edges(picture, labels)


def draw_edges(picture: Picture, labels: NDArray[Any]) -> Picture:
    """A copy of the picture, darkened to 35 % along the boundaries between labels.

    Lines are one pixel wide up to a shorter side of 720 pixels, and wider in larger pictures, which are shown smaller.

    Args:
        picture: (H, W, 3) uint8.
        labels: (H, W).

    Raises:
        ShapeError: the sizes differ.
    """
    _check_size(labels, picture[..., 0], "labels", "picture")
    edges = np.zeros(labels.shape, np.bool_)
    for step in range(1, max(1, min(labels.shape) // 360) + 1):
        edges[:, :-step] |= labels[:, step:] != labels[:, :-step]
        edges[:-step] |= labels[step:] != labels[:-step]
    lined = picture.copy()
    lined[edges] = np.rint(picture[edges] * 0.35)
    return lined


@functools.cache
def _depth_table() -> Picture:
    """(256, 3), far to near: linear in OKLab between the anchors."""
    anchors = polar(np.array(_DEPTH_ANCHORS))
    steps = np.linspace(0, len(anchors) - 1, 256)
    lab = np.stack([np.interp(steps, np.arange(len(anchors)), anchors[:, axis]) for axis in range(3)], axis=-1)
    return np.rint(from_lab(lab).clip(0, 255)).astype(np.uint8)


def _check_map(values: NDArray[Any], name: str) -> None:
    if values.ndim != 2:
        raise ShapeError(f"{name} have the shape {values.shape} but (H, W) is accepted; pass one image at a time")


def _check_size(first: NDArray[Any], second: NDArray[Any], name: str, other: str) -> None:
    if first.shape != second.shape:
        raise ShapeError(
            f"{name} and {other} have the shapes {first.shape} and {second.shape} but must have one size; "
            f"resize the {name} first"
        )
