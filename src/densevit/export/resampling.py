"""Resizes whose sizes are only known when the graph runs, to rounding those of torch.

What exporters write for an antialiased or bicubic resize differs from torch, or has one size. A resize of an axis is a
matrix, and its entries follow from the two lengths by a few integer operations, which no engine rounds.
"""

from typing import Literal

import numpy as np

from densevit.export.builder import Graph, Value

Extent = tuple[Value, Value]
"""(height, width) as values of the graph."""


def antialiased(images: Value, old: Extent, new: Extent) -> Value:
    """Images (B, H, W, C) -> (B, C, *new), bilinear and antialiased, as ``densevit.pixels.resize_image``.

    Rows are first, in the layout of photos, which is that of one matrix product.
    """
    channels = 3
    lines = _triangles(old[0], new[0]) @ images.reshape(0, 0, -1)  # (B, h, W * C)
    lines = lines.reshape(0, 0, -1, channels).transpose(0, 3, 1, 2)  # (B, C, h, W)
    return lines @ _triangles(old[1], new[1]).transpose(1, 0)  # (B, C, h, w)


def _triangles(old: Value, new: Value) -> Value:
    """The weights (new, old) of an antialiased bilinear resize: triangles around the new pixels' centres."""
    distance, _ = _distances(old, new)
    reach = 2 * old.graph.op("Max", old, new)
    weights = old.graph.op("Relu", 1.0 - distance.as_float() / reach.as_float())
    return weights / weights.sum(1)


def _distances(old: Value, new: Value) -> tuple[Value, Value]:
    """Distances of new (rows) and old pixels' centres: absolute and signed, in 1 / (2 new) of an old pixel."""
    g = old.graph
    signed = (2 * g.range(old) + 1) * new - ((2 * g.range(new) + 1) * old).unsqueeze(1)
    return g.op("Abs", signed), signed


def neighbours(old: Value, new: Value, *, align_corners: bool) -> tuple[Value, Value, Value]:
    """Two old indices for each of the new positions of a bilinear resize, and the weight of the second.

    They are those of ``densevit.upsampling.neighbours``, found without rounding.
    """
    g = old.graph
    if align_corners:
        numerator, denominator = g.range(new) * (old - 1), g.op("Max", new - 1, 1)
    else:
        numerator, denominator = g.op("Max", (2 * g.range(new) + 1) * old - new, 0), 2 * new
    low = g.op("Min", numerator // denominator, old - 1)
    share = (numerator - low * denominator).as_float() / denominator.as_float()
    return low, g.op("Min", low + 1, old - 1), share


def upsample_by(x: Value, factor: int, *, align_corners: bool = False) -> Value:
    """(B, C, h, w) -> (B, C, h * factor, w * factor), bilinear."""
    if factor == 1:
        return x
    scales = x.graph.constant(np.array([1, 1, factor, factor], np.float32))
    return x.graph.op("Resize", x, None, scales, mode="linear", coordinate_transformation_mode=_MODES[align_corners])


def resize(x: Value, size: Extent, *, align_corners: bool) -> Value:
    """(B, C, h, w) -> (B, C, *size), bilinear."""
    g = x.graph
    sizes = g.op("Concat", g.op("Shape", x, start=0, end=2), g.dims(*size), axis=0)
    return g.op("Resize", x, None, None, sizes, mode="linear", coordinate_transformation_mode=_MODES[align_corners])


_MODES = {False: "half_pixel", True: "align_corners"}


def averaging(old: Value, new: Value) -> Value:
    """The weights (new, old) of adaptive average pooling."""
    g = old.graph
    first = g.range(new) * old // new
    last = ((g.range(new) + 1) * old + new - 1) // new  # rounded up
    pixel = g.range(old)
    inside = g.op(
        "And",
        g.op("GreaterOrEqual", pixel, first.unsqueeze(1)),
        g.op("Less", pixel, last.unsqueeze(1)),
    )
    return inside.as_float() / (last - first).as_float().unsqueeze(1)


def position_matrix(
    old: int,
    new: Value,
    *,
    mode: Literal["bilinear", "bicubic"],
    antialias: bool,
    offset: float,
) -> Value:
    """The weights (new, old) that ``resample_positions`` gives the stored vectors of an axis."""
    g = new.graph
    ratio = float(old) / (new.as_float() + offset) if offset else float(old) / new.as_float()
    centre = (g.range(new).as_float() + 0.5) * ratio  # in stored patches
    if antialias:
        reach = g.op("Max", ratio, 1.0)
        distance = g.op("Abs", g.range(old).as_float() + 0.5 - centre.unsqueeze(1)) / reach
        weights = _cubic(distance, -0.5) if mode == "bicubic" else g.op("Relu", 1.0 - distance)
        return weights / weights.sum(1)
    position = centre - 0.5
    taps = range(-1, 3) if mode == "bicubic" else range(2)
    position = position if mode == "bicubic" else g.op("Max", position, 0.0)
    first = g.op("Floor", position)
    total: Value | None = None
    for tap in taps:
        distance = g.op("Abs", position - (first + float(tap)))
        weight = _cubic(distance, -0.75) if mode == "bicubic" else g.op("Relu", 1.0 - distance)
        index = g.op("Clip", first.as_int() + tap, 0, old - 1)
        hits = g.op("Equal", index.unsqueeze(1), g.range(old)).as_float()
        part = hits * weight.unsqueeze(1)
        total = part if total is None else total + part
    assert total is not None
    return total


def _cubic(distance: Value, a: float) -> Value:
    """The cubic convolution kernel (Keys 1981) at distances >= 0."""
    g: Graph = distance.graph
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1.0
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    beyond = g.where(g.op("Less", distance, 2.0), far, 0.0)
    return g.where(g.op("Less", distance, 1.0), near, beyond)
