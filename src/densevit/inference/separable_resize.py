"""One axis of an image that windows cover: window logits, their blend and a last resize as small matrices.

Upsampling, averaging and resizing are linear and act on rows and columns apart, so the way of a window's logits to a
tile of the result is one matrix for rows and one for columns. The indices and weights are those of
``torch.nn.functional.interpolate`` in float32; the results agree with its chain of calls up to rounding.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.upsampling.neighbours import neighbours_at, positions

Floats = NDArray[np.float32]
Mode = Literal["bilinear", "bicubic"]

_CUBIC = -0.75
"""The parameter of the bicubic kernel, as torch and OpenCV have it."""

CACHED_VALUES = 2_000_000
"""Floats of matrices that an axis keeps for the next tile."""

_LONG = 8192
"""Pixels from which positions are computed in float64: torch's float32 ones lose a thousandth of a pixel there."""


@dataclass(frozen=True)
class Resize:
    """A resize of one axis, without antialiasing."""

    old: int
    new: int
    mode: Mode = "bilinear"
    align_corners: bool = False

    @property
    def identity(self) -> bool:
        """Whether nothing changes."""
        return self.old == self.new

    def taps(self, start: int, stop: int) -> tuple[NDArray[np.int64], Floats]:
        """For the new positions ``start`` to ``stop``: old indices (n, T) and their weights (n, T)."""
        rows = np.arange(start, stop)
        if self.identity:
            return rows[:, None], np.ones((len(rows), 1), np.float32)
        dtype = torch.float64 if max(self.old, self.new) > _LONG else torch.float32
        position = positions(torch.from_numpy(rows), self.old, self.new, align_corners=self.align_corners, dtype=dtype)
        if self.mode == "bilinear":
            low, high, second = (found.numpy() for found in neighbours_at(position, self.old))
            second = second.clip(0, 1)
            return np.stack([low, high], 1), np.stack([1 - second, second], 1)
        first = position.floor().long()
        indices = (first[:, None] + torch.arange(-1, 3)).clamp_(0, self.old - 1)
        return indices.numpy(), _cubic((position - first).float().numpy())


def _cubic(t: Floats) -> Floats:
    """Weights (n, 4) of the samples at -1, 0, 1 and 2 for positions t in [0, 1) between the middle ones."""
    a = np.float32(_CUBIC)

    def near(x: Floats) -> Floats:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: Floats) -> Floats:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], 1).astype(np.float32)


def _matrix(taps: tuple[NDArray[np.int64], Floats]) -> tuple[int, Floats]:
    """The taps as a dense matrix (n, k) on the old positions from the one that is returned."""
    indices, weights = taps
    low = int(indices.min())
    matrix = np.zeros((len(indices), int(indices.max()) - low + 1), np.float32)
    np.add.at(matrix, (np.arange(len(indices))[:, None], indices - low), weights)
    return low, matrix


@dataclass(frozen=True)
class ResizeMatrix:
    """What a window contributes to a stretch of the result.

    Attributes:
        out: positions of the result that it reaches.
        source: positions of the window's logits that are read.
        matrix: (len(out), len(source)), or a vector of weights (len(out),) where each position reads one of its own.
    """

    out: slice
    source: slice
    matrix: Tensor

    @property
    def diagonal(self) -> bool:
        """Whether each position of the result reads one of the logits."""
        return self.matrix.ndim == 1


@dataclass(eq=False)
class Axis:
    """Windows on one axis.

    Attributes:
        length: of the image that is run, in pixels.
        starts: of the windows.
        weights: (extent,) of a window's pixels in the blend, all positive.
        inner: from the decoder's grid to the window's pixels; may go beyond the window, and is cropped.
        final: from the image that is run to the result; none where it is the result.
    """

    length: int
    starts: tuple[int, ...]
    weights: Floats
    inner: Resize
    final: Resize | None = None
    _cache: dict[tuple[int, int, int], ResizeMatrix | None] = field(default_factory=dict, repr=False)
    _cached: int = field(default=0, repr=False)

    @property
    def extent(self) -> int:
        """Pixels of a window."""
        return len(self.weights)

    @property
    def out_length(self) -> int:
        """Pixels of the result."""
        return self.length if self.final is None else self.final.new

    @cached_property
    def total(self) -> Floats:
        """(length,): the sum of the weights at every pixel."""
        total = np.zeros(self.length, np.float64)
        for start in self.starts:
            count = min(self.extent, self.length - start)
            total[start : start + count] += self.weights[:count]
        return total.astype(np.float32)

    def resized(self, new: int, *, align_corners: bool = False) -> "Axis":
        """The same windows, their result resized once more from ``length``; an earlier last resize is replaced."""
        final = None if new == self.length else Resize(self.length, new, align_corners=align_corners)
        return Axis(self.length, self.starts, self.weights, self.inner, final)

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """The pixels of the image that is run which a stretch of the result depends on."""
        if self.final is None:
            return start, stop
        ends = np.concatenate([self.final.taps(start, start + 1)[0], self.final.taps(stop - 1, stop)[0]])
        return int(ends.min()), int(ends.max()) + 1

    def ready(self, known: int) -> int:
        """How much of the result depends on the first ``known`` pixels of the image that is run only."""
        if self.final is None or known >= self.length:
            return min(known, self.length) if self.final is None else self.final.new
        low, high = 0, self.final.new
        while low < high:  # the largest stop with needs(0, stop) within known
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.needs(0, middle)[1] <= known else (low, middle - 1)
        return low

    def windows(self, start: int, stop: int) -> list[int]:
        """Indices of the windows that a stretch of the result depends on."""
        low, high = self.needs(start, stop)
        return [index for index, first in enumerate(self.starts) if first < high and first + self.extent > low]

    def operator(self, index: int, start: int, stop: int) -> ResizeMatrix | None:
        """What window ``index`` contributes to a stretch of the result; none where they do not meet."""
        key = (index, start, stop)
        if key not in self._cache:
            self._cache[key] = made = self._operator(index, start, stop)
            size = 0 if made is None else made.matrix.numel()
            self._cached += size
            if self._cached > CACHED_VALUES:
                self._cache, self._cached = {key: made}, size
        return self._cache[key]

    def _operator(self, index: int, start: int, stop: int) -> ResizeMatrix | None:
        first = self.starts[index]
        need = self.needs(start, stop)
        low, high = max(need[0], first), min(need[1], first + self.extent, self.length)
        if low >= high:
            return None
        share = self.weights[low - first : high - first] / self.total[low:high]
        if self.final is None and self.inner.identity:
            source = slice(low - first, high - first)
            return ResizeMatrix(slice(low - start, high - start), source, torch.from_numpy(share))
        base, inner = _matrix(self.inner.taps(low - first, high - first))
        matrix, out = share[:, None] * inner, slice(low - start, high - start)
        if self.final is not None:
            indices, weights = self.final.taps(start, stop)
            inside = (indices >= low) & (indices < high)
            rows = np.flatnonzero(inside.any(1))
            if not len(rows):
                return None
            out = slice(int(rows[0]), int(rows[-1]) + 1)
            kept = np.where(inside, weights, np.float32(0))[out]
            outer = np.zeros((len(kept), high - low), np.float32)
            np.add.at(outer, (np.arange(len(kept))[:, None], indices[out].clip(low, high - 1) - low), kept)
            matrix = outer @ matrix
        return ResizeMatrix(out, slice(base, base + matrix.shape[1]), torch.from_numpy(matrix))
