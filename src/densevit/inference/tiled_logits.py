"""Logits that are held at the decoder's stride and resized tile by tile, so (K, H, W) floats never exist at once.

Windows, scales and mirror images all end in ``TiledLogits`` of the image's size. Labels, scores and values are
computed from its tiles. How it is cut into tiles depends only on its size, so all callers get the same numbers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from densevit.inference.separable_resize import Axis, Resize
from densevit.types import Size

TILE = 512
"""Columns of a tile, and the most rows; both are powers of two, so tiles never straddle the blocks of a raster."""

TILE_VALUES = 4_000_000
"""Upper bound on the floats of a tile."""

GetLogits = Callable[[int, int], Tensor | None]
"""Logits (K, h, w) of the window at a row and a column of windows; None if that window was left out."""


class TiledLogits(ABC):
    """Logits or values (K, H, W) of one head for one image, computed on request.

    Args:
        size: (H, W) of the image.
        num_channels: K.
        dense: whether the decoder's stride is so fine that large tiles would cost more than they save.
        num_held: number of floats in memory.
    """

    plain: tuple[Tensor, bool] | None = None
    """Logits (K, h, w) and ``align_corners``, if one bilinear resize of them gives the result; else None."""

    def __init__(self, size: Size, num_channels: int, *, dense: bool, num_held: int) -> None:
        self.size, self.num_channels, self.dense, self.num_held = size, num_channels, dense, num_held

    @abstractmethod
    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the logits: (K, rows, columns) float32."""

    @abstractmethod
    def resized(self, size: Size) -> "TiledLogits":
        """The same logits, bilinearly resized to another size."""

    def with_flipped_signs(self, channels: tuple[int, ...]) -> "TiledLogits":
        """The same logits with the sign of some channels changed, as mirroring does to the x of a direction."""
        return SignFlipped(self, channels) if channels else self

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of each tile, row by row."""
        yield from tiles(self.size, self.num_channels, dense=self.dense)


def tiles(
    size: Size, num_channels: int, *, dense: bool, within: tuple[slice, slice] | None = None
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile, or of those in a part whose corner is the corner of a tile."""
    width = 64 if dense and num_channels > 1 else TILE
    height = min(width, max(16, 2 ** int(math.log2(max(1, TILE_VALUES // (num_channels * width))))))
    rows, columns = within or (slice(0, size[0]), slice(0, size[1]))
    for top in range(rows.start, rows.stop, height):
        for left in range(columns.start, columns.stop, width):
            yield slice(top, min(top + height, rows.stop)), slice(left, min(left + width, columns.stop))


class StitchedLogits(TiledLogits):
    """The blend of windows (or of one window, the whole image), resized to the result if need be.

    Args:
        rows, columns: where the windows are and how their logits contribute to the result.
        get: the logits of each window.
        num_channels: K.
        device: of the logits.
        num_held: floats that all windows hold together.
    """

    def __init__(
        self, rows: Axis, columns: Axis, get: GetLogits, num_channels: int, device: torch.device, num_held: int = 0
    ) -> None:
        is_resized = rows.final is not None or not rows.inner.identity
        dense = is_resized and rows.inner.old * 4 >= rows.inner.new  # a quarter of the pixels or more
        super().__init__((rows.out_length, columns.out_length), num_channels, dense=dense, num_held=num_held)
        self.rows, self.columns, self._get, self.device = rows, columns, get, device

    @property
    def plain(self) -> tuple[Tensor, bool] | None:  # type: ignore[override]
        """Logits (K, h, w) and ``align_corners``, if one bilinear resize of them gives the result; else None."""
        for axis in (self.rows, self.columns):
            if axis.final is not None or axis.starts != (0,) or axis.inner.new != axis.length:
                return None
        resizes = [axis.inner for axis in (self.rows, self.columns) if not axis.inner.identity]
        modes = {(resize.mode, resize.align_corners) for resize in resizes} or {("bilinear", False)}
        logits = self._get(0, 0)
        mode, corners = modes.pop()
        return None if logits is None or modes or mode != "bilinear" else (logits, corners)

    def resized(self, size: Size, *, align_corners: bool = False) -> "StitchedLogits":
        """The same windows, for another size of the result."""
        rows = self.rows.resized(size[0], align_corners=align_corners)
        columns = self.columns.resized(size[1], align_corners=align_corners)
        return StitchedLogits(rows, columns, self._get, self.num_channels, self.device, self.num_held)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the logits: (K, rows, columns) float32. Windows are always added in the same order."""
        with torch.autocast(self.device.type, enabled=False):
            tile = self._tile(rows, columns, lambda logits: logits)
            if tile.isfinite().all():
                return tile
            # In a matrix product the weights of 0 make NaN of what is not finite, all over the tile.
            tile = self._tile(rows, columns, lambda logits: logits.nan_to_num(0.0, 0.0, 0.0))
            low = self._tile(rows, columns, lambda logits: logits.isneginf().float()) != 0
            high = self._tile(rows, columns, lambda logits: logits.isposinf().float()) != 0
            nan = self._tile(rows, columns, lambda logits: logits.isnan().float()) != 0
            tile = tile.masked_fill(low, -torch.inf).masked_fill(high, torch.inf)
            return tile.masked_fill(nan | low & high, torch.nan)

    def _tile(self, rows: slice, columns: slice, prepare: Callable[[Tensor], Tensor]) -> Tensor:
        height, width = rows.stop - rows.start, columns.stop - columns.start
        total = torch.zeros((self.num_channels, height, width), device=self.device)
        for i in self.rows.windows(rows.start, rows.stop):
            vertical = self.rows.operator(i, rows.start, rows.stop)
            if vertical is None:
                continue
            lines: Tensor | None = None  # (K, source rows, width): a row of windows, its columns blended
            for j in self.columns.windows(columns.start, columns.stop):
                horizontal = self.columns.operator(j, columns.start, columns.stop)
                logits = None if horizontal is None else self._get(i, j)
                if horizontal is None or logits is None:
                    continue
                part = prepare(logits[:, vertical.source, horizontal.source].float())
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


class SignFlipped(TiledLogits):
    """Logits with the sign of some channels changed."""

    def __init__(self, logits: TiledLogits, channels: tuple[int, ...]) -> None:
        super().__init__(logits.size, logits.num_channels, dense=logits.dense, num_held=logits.num_held)
        self._logits, self._channels = logits, channels

    def resized(self, size: Size) -> TiledLogits:
        """The same logits, bilinearly resized."""
        return SignFlipped(self._logits.resized(size), self._channels)

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the logits: (K, rows, columns) float32."""
        tile = self._logits.tile(rows, columns).clone()
        tile[list(self._channels)] *= -1
        return tile


def tile_labels(tile: Tensor) -> Tensor:
    """The most likely class of logits (K, rows, columns): uint8, or int32 for more than 256 classes."""
    return tile.max(dim=0).indices.to(torch.uint8 if tile.shape[0] <= 256 else torch.int32)


def tile_scores(tile: Tensor) -> Tensor:
    """The softmax probability of the most likely class of logits (K, rows, columns)."""
    return (tile.amax(dim=0) - tile.logsumexp(dim=0)).exp()


def tile_entropy(tile: Tensor) -> Tensor:
    """The entropy of the softmax of logits (K, rows, columns), over its maximum log K; 0 for one class."""
    if tile.shape[0] == 1:
        return torch.zeros_like(tile[0])
    log_p = tile.log_softmax(dim=0).clamp(min=torch.finfo(tile.dtype).min)  # a class of -inf adds 0, not 0 * -inf
    return (-(log_p.exp() * log_p).sum(dim=0) / math.log(tile.shape[0])).clamp_(0.0, 1.0)


def to_hold(logits: Tensor) -> Tensor:
    """Logits that may be kept: a copy, unless they are on the CPU and own their memory.

    Otherwise the tensor they are a part of would not be freed, or a CUDA graph would overwrite them.
    """
    owns_memory = logits.untyped_storage().nbytes() == logits.numel() * logits.element_size()
    return logits if owns_memory and logits.device.type == "cpu" else logits.clone()


def collect(logits: TiledLogits, of_tile: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``of_tile`` to each tile and put the results (..., H, W) together."""
    whole: Tensor | None = None
    for rows, columns in logits.tiles():
        part = of_tile(logits.tile(rows, columns))
        if whole is None:
            whole = torch.empty((*part.shape[:-2], *logits.size), dtype=part.dtype, device=part.device)
        whole[..., rows, columns] = part
    assert whole is not None
    return whole


def full(logits: TiledLogits) -> Tensor:
    """All of the logits, (K, H, W) float32."""
    return collect(logits, lambda tile: tile)


def whole(logits: Tensor, rows: tuple[Resize, ...], columns: tuple[Resize, ...]) -> StitchedLogits:
    """Logits (K, h, w) of a whole image as tiled logits: one or two resizes of each axis.

    The first resize may go beyond what the second takes, and is cropped to it.
    """
    axes = []
    for resizes in (rows, columns):
        final = resizes[1] if len(resizes) > 1 else None
        length = resizes[0].new if final is None else final.old
        final = None if final is None or final.identity else final
        axes.append(Axis(length, (0,), np.ones(length, np.float32), resizes[0], final))
    return StitchedLogits(axes[0], axes[1], lambda _i, _j: logits, logits.shape[0], logits.device, logits.numel())


def resized_logits(logits: Tensor, size: Size, *, align_corners: bool) -> StitchedLogits:
    """Logits (K, h, w) of a whole image as tiled logits of another size."""
    rows, columns = (
        (Resize(old, new, align_corners=align_corners),) for old, new in zip(logits.shape[-2:], size, strict=True)
    )
    return whole(logits, rows, columns)


class MaterializedLogits(TiledLogits):
    """Logits (K, H, W) that are in memory as a whole."""

    def __init__(self, values: Tensor) -> None:
        size = (values.shape[-2], values.shape[-1])
        super().__init__(size, values.shape[0], dense=False, num_held=values.numel())
        self.values = values

    def tile(self, rows: slice, columns: slice) -> Tensor:
        """A part of the logits: (K, rows, columns) float32."""
        return self.values[:, rows, columns].float()

    def resized(self, size: Size) -> TiledLogits:
        """The same logits, bilinearly resized."""
        return resized_logits(self.values, size, align_corners=False)
