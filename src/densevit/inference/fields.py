"""Predictions that are held at the decoder's stride and come out tile by tile: (K, H, W) floats never exist.

A field is what windows, scales and mirror images say about one photo. Labels, scores and values are taken from its
tiles; the cut into tiles depends on the field's size alone, so that every way through it gives the same numbers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densevit.inference.axes import Axis
from densevit.types import Size

TILE = 512
"""Columns of a tile, and the most rows; both are powers of two, so tiles never straddle the blocks of a raster."""

TILE_VALUES = 4_000_000
"""Upper bound on the floats of a tile."""

Get = Callable[[int, int], Tensor | None]
"""Logits (K, h, w) of the window at a row and a column of windows; none if it was left out."""


class Field(ABC):
    """Logits or values (K, H, W) of one head on one photo, made when asked for."""

    size: Size
    num_channels: int
    dense: bool
    """Whether the decoder's stride is so fine that large tiles would cost more than they save."""

    @abstractmethod
    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the field: (K, rows, columns) float32."""

    @abstractmethod
    def resized(self, size: Size) -> "Field":
        """The same field bilinearly resized to another size."""

    @property
    def num_held(self) -> int:
        """Floats that the field holds."""
        return 0

    def negated(self, channel: int) -> "Field":
        """The same field with the sign of a channel changed, as mirroring does to the x of a direction."""
        return Negated(self, channel)

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """The cut into tiles, by rows."""
        yield from tiles(self.size, self.num_channels, dense=self.dense)


def tiles(
    size: Size, num_channels: int, *, dense: bool, within: tuple[slice, slice] | None = None
) -> Iterator[tuple[slice, slice]]:
    """The tiles of a field, or of a part of it whose corner is a corner of a tile."""
    width = 64 if dense and num_channels > 1 else TILE
    height = min(width, max(16, 2 ** int(math.log2(max(1, TILE_VALUES // (num_channels * width))))))
    rows, columns = within or (slice(0, size[0]), slice(0, size[1]))
    for top in range(rows.start, rows.stop, height):
        for left in range(columns.start, columns.stop, width):
            yield slice(top, min(top + height, rows.stop)), slice(left, min(left + width, columns.stop))


@dataclass(frozen=True)
class Mosaic(Field):
    """The blend of windows (or of one window, the whole photo), resized to the result if need be.

    Attributes:
        rows, columns: where the windows lie and how their logits come to the result.
        get: the logits of each.
        num_channels: K.
        device: of the logits.
        num_held: floats that all windows hold together.
    """

    rows: Axis
    columns: Axis
    get: Get
    num_channels: int
    device: torch.device
    num_held: int = 0

    @property
    def size(self) -> Size:  # type: ignore[override]
        """(H, W) of the result."""
        return self.rows.out_length, self.columns.out_length

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """Whether the logits come at a quarter of the pixels or more, and are resized."""
        resized = self.rows.final is not None or not self.rows.inner.identity
        return resized and self.rows.inner.old * 4 >= self.rows.inner.new

    @property
    def plain(self) -> tuple[Tensor, bool] | None:
        """Logits (K, h, w) and ``align_corners``, if the field is but their bilinear resize to its size."""
        axes = (self.rows, self.columns)
        inner = self.rows.inner, self.columns.inner
        simple = all(axis.final is None and axis.starts == (0,) and axis.inner.new == axis.length for axis in axes)
        modes = {(resize.mode, resize.align_corners) for resize in inner if not resize.identity} or {
            ("bilinear", False)
        }
        logits = self.get(0, 0) if simple and len(modes) == 1 else None
        mode, corners = next(iter(modes))
        return None if logits is None or mode != "bilinear" else (logits, corners)

    def resized(self, size: Size) -> "Mosaic":
        """The same windows for another size of the result."""
        rows, columns = self.rows.resized(size[0]), self.columns.resized(size[1])
        return Mosaic(rows, columns, self.get, self.num_channels, self.device, self.num_held)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the field: (K, rows, columns) float32. Windows are added by rows, always in the same order."""
        with torch.autocast(self.device.type, enabled=False):
            return self._tile(rows, columns)

    def _tile(self, rows: slice, columns: slice) -> Tensor:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        total = torch.zeros((self.num_channels, height, width), device=self.device)
        for i in self.rows.windows(rows.start, rows.stop):
            vertical = self.rows.operator(i, rows.start, rows.stop)
            if vertical is None:
                continue
            lines: Tensor | None = None  # (K, source rows, width): a row of windows, its columns blended
            for j in self.columns.windows(columns.start, columns.stop):
                horizontal = self.columns.operator(j, columns.start, columns.stop)
                logits = None if horizontal is None else self.get(i, j)
                if horizontal is None or logits is None:
                    continue
                part = logits[:, vertical.source, horizontal.source].float()
                if horizontal.diagonal:
                    part = part * horizontal.matrix.to(self.device)
                else:
                    part = part @ horizontal.matrix.to(self.device).T
                if part.shape[-1] == width and lines is None:
                    lines = part
                    continue
                if lines is None:
                    lines = torch.zeros((*part.shape[:2], width), device=self.device)
                lines[..., horizontal.out] += part
            if lines is None:
                continue
            matrix, band = vertical.matrix.to(self.device), total[:, vertical.out]
            if vertical.diagonal:
                band += lines * matrix[:, None]
            else:
                band.baddbmm_(matrix.expand(self.num_channels, -1, -1), lines)
        return total


@dataclass(frozen=True)
class Negated(Field):
    """A field with the sign of one channel changed."""

    field: Field
    channel: int

    @property
    def size(self) -> Size:  # type: ignore[override]
        """(H, W) of the result."""
        return self.field.size

    @property
    def num_channels(self) -> int:  # type: ignore[override]
        """K."""
        return self.field.num_channels

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """As of the field."""
        return self.field.dense

    @property
    def num_held(self) -> int:
        """As of the field."""
        return self.field.num_held

    def resized(self, size: Size) -> Field:
        """The same for another size."""
        return Negated(self.field.resized(size), self.channel)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the field: (K, rows, columns) float32."""
        tile = self.field.tile(rows, columns).clone()
        tile[self.channel].neg_()
        return tile


@dataclass(frozen=True)
class Mean(Field):
    """The mean over views of one photo, some of them mirrored: of probabilities for labels, else of the values.

    Attributes:
        views: fields of one size, and whether each is to be mirrored back.
        probabilities: average softmax probabilities; tiles are then their logarithms.
    """

    views: Sequence[tuple[Field, bool]]
    probabilities: bool

    @property
    def size(self) -> Size:  # type: ignore[override]
        """(H, W) of the result."""
        return self.views[0][0].size

    @property
    def num_channels(self) -> int:  # type: ignore[override]
        """K."""
        return self.views[0][0].num_channels

    @property
    def dense(self) -> bool:  # type: ignore[override]
        """Whether a view is."""
        return any(view.dense for view, _ in self.views)

    @property
    def num_held(self) -> int:
        """Floats that all views hold together."""
        return sum(view.num_held for view, _ in self.views)

    def resized(self, size: Size) -> "Mean":
        """The mean of the views' other sizes."""
        return Mean([(view.resized(size), mirrored) for view, mirrored in self.views], self.probabilities)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the field: log probabilities or values (K, rows, columns). One running sum."""
        total = sum_views(self.views, rows, columns, probabilities=self.probabilities)
        total.div_(len(self.views))
        return log_probabilities(total) if self.probabilities else total


def sum_views(views: Sequence[tuple[Field, bool]], rows: slice, columns: slice, *, probabilities: bool) -> Tensor:
    """The sum over views of a tile's probabilities or values: (K, rows, columns)."""
    total: Tensor | None = None
    for view, mirrored in views:
        width = view.size[1]
        part = view.tile(rows, slice(width - columns.stop, width - columns.start) if mirrored else columns)
        part = part.softmax(dim=0) if probabilities else part
        part = part.flip(-1) if mirrored else part
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Logits whose softmax gives the probabilities (K, ...) back; what is 0 becomes the smallest normal float."""
    return probabilities.clamp_(min=torch.finfo(probabilities.dtype).tiny).log_()


def tile_labels(tile: Tensor) -> Tensor:
    """Logits (K, rows, columns) -> the most likely class, uint8, or int32 beyond 256 classes."""
    return tile.max(dim=0).indices.to(torch.uint8 if tile.shape[0] <= 256 else torch.int32)


def tile_scores(tile: Tensor) -> Tensor:
    """Logits (K, rows, columns) -> softmax probability of the most likely class."""
    return (tile.amax(dim=0) - tile.logsumexp(dim=0)).exp()


def tile_entropy(tile: Tensor) -> Tensor:
    """Logits (K, rows, columns) -> entropy of the softmax over its maximum log K, in [0, 1]; 0 for one class."""
    if tile.shape[0] == 1:
        return torch.zeros_like(tile[0])
    log_p = tile.log_softmax(dim=0)
    return (-(log_p.exp() * log_p).sum(dim=0) / math.log(tile.shape[0])).clamp_(0.0, 1.0)


def to_hold(logits: Tensor) -> Tensor:
    """Logits for a field to hold: a copy, unless their memory is on the CPU and has nothing but them in it.

    Otherwise the rest would not be freed, or a CUDA graph would write its next result over them.
    """
    alone = logits.untyped_storage().nbytes() == logits.numel() * logits.element_size()
    return logits if alone and logits.device.type == "cpu" else logits.clone()


def collect(field: Field, of_tile: Callable[[Tensor], Tensor]) -> Tensor:
    """(H, W) of what ``of_tile`` makes of each tile."""
    whole: Tensor | None = None
    for rows, columns in field.tiles():
        part = of_tile(field.tile(rows, columns))
        if whole is None:
            whole = torch.empty((*part.shape[:-2], *field.size), dtype=part.dtype, device=part.device)
        whole[..., rows, columns] = part
    assert whole is not None
    return whole


def full(field: Field) -> Tensor:
    """(K, H, W) float32, for those who need all of it."""
    return collect(field, lambda tile: tile)


def mean_entropy(field: Field) -> float:
    """Mean entropy in [0, 1] at up to 64 x 64 points: how unsure a head is of a photo."""
    points = field.resized((min(field.size[0], 64), min(field.size[1], 64)))
    return float(collect(points, tile_entropy).mean())
