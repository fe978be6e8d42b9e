"""Resizes whose sizes are only known when the graph runs, to rounding those of torch.

What exporters write for an antialiased or bicubic resize differs from torch, or has one size. A resize of an axis is a
matrix, and its entries follow from the two lengths by a few integer operations, which no engine rounds.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from densevit.export.builder import Graph, Operand, Value

Extent = tuple[Value, Value]
"""(height, width) as values of the graph."""


@dataclass(frozen=True)
class Bands:
    """A resize of one axis as a matrix of which only the band around the diagonal is stored, in blocks.

    Attributes:
        sources: (blocks, S), the old positions that each block of new ones reads.
        weights: (blocks, n, S), the share of each of them in the n new positions; those after the last are unused.
    """

    sources: Value
    weights: Value


def bands(axis: "Triangles", block: int) -> Bands:
    """The resize in blocks of ``block`` new positions."""
    g = axis.old.graph
    starts = g.range((axis.new + (block - 1)) // block) * block
    return band(axis, starts.unsqueeze(1) + g.range(block), starts, block)


def band(axis: "Triangles", new: Value, first: Value, count: Operand) -> Bands:
    """The weights of some new positions (..., n), of which ``first`` (...) is the smallest and ``count`` the number."""
    g = axis.old.graph
    low = axis.first_source(first)
    sources = low.unsqueeze(-1) + g.range(axis.num_sources(count))  # (..., S)
    distance = g.op("Abs", axis.distance(new.unsqueeze(-1), sources.unsqueeze(-2)))  # (..., n, S)
    weights = g.op("Relu", 1.0 - distance.as_float() / axis.reach.as_float())
    exists = g.op("Less", sources, axis.old).as_float().unsqueeze(-2)
    weights = weights * exists
    total = g.op("Max", weights.sum(-1), 1e-6)  # 0 after the last new position
    return Bands(g.op("Min", sources, axis.old - 1), weights / total)


@dataclass(frozen=True)
class Triangles:
    """A bilinear resize of one axis: the weights of a new position are a triangle around it.

    Distances are whole numbers, so that no engine rounds them. There are no old positions beyond the ends, and the
    weights of the others are divided by their sum, which is what repeating the last one amounts to.

    Attributes:
        old, new: the lengths.
        antialias: the triangle is as wide as a new pixel where these are larger than the old ones.
        align_corners: as in torch.
    """

    old: Value
    new: Value
    antialias: bool = False
    align_corners: bool = False

    @property
    def reach(self) -> Value:
        """Half the base of the triangle, in the unit of ``distance``."""
        g = self.old.graph
        if self.align_corners:
            return g.op("Max", self.new - 1, 1)
        return 2 * (g.op("Max", self.old, self.new) if self.antialias else self.new)

    def distance(self, new: Value, old: Value) -> Value:
        """From new to old positions, in units of which an old pixel has 2 new (new - 1 if corners are aligned)."""
        if self.align_corners:
            return old * self._unit - new * (self.old - 1)
        return (2 * old + 1) * self.new - (2 * new + 1) * self.old

    def first_source(self, new: Value) -> Value:
        """The first old position that new ones read, or one before it."""
        g = self.old.graph
        return g.op("Max", -self.distance(new, g.value(0)) - self.reach, 0) // self._unit

    def num_sources(self, count: Operand) -> Value:
        """Old positions that so many adjacent new ones read, at most."""
        step = self.old - 1 if self.align_corners else 2 * self.old
        return (step * (count - 1) + 2 * self.reach) // self._unit + 3

    @property
    def _unit(self) -> Value:
        """The length of an old pixel."""
        return self.old.graph.op("Max", self.new - 1, 1) if self.align_corners else 2 * self.new


def antialiased(images: Value, old: Extent, new: Extent) -> Value:
    """uint8 images (B, H, W, C) -> float (B, C, *new), as ``densevit.pixels.resize_image`` but in 0..255.

    Rows are first, in the layout of photos; their products are the costly ones, so that they are banded.
    """
    channels = 3
    rows = bands(Triangles(old[0], new[0], antialias=True), ROWS)
    lines = images.take(rows.sources, 1).as_float().reshape(0, 0, 0, -1)  # (B, blocks, S, W * C)
    lines = (rows.weights @ lines).reshape(0, -1, old[1], channels).slice(1, 0, new[0])  # (B, h, W, C)
    columns = _matrix(Triangles(old[1], new[1], antialias=True))
    return lines.transpose(0, 3, 1, 2) @ columns.transpose(1, 0)  # (B, C, h, w)


ROWS = 16
"""New rows of a block."""


def _matrix(axis: Triangles) -> Value:
    """The weights (new, old) as a whole."""
    g = axis.old.graph
    distance = g.op("Abs", axis.distance(g.range(axis.new).unsqueeze(1), g.range(axis.old)))
    weights = g.op("Relu", 1.0 - distance.as_float() / axis.reach.as_float())
    return weights / weights.sum(1)


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
