"""Sliding windows over an image: where they are, the heads' logits in each, and their blend.

All heads share one encoder pass per window.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.config import Config, PositiveWidth, bounded
from densevit.errors import ConfigError
from densevit.inference.batching import Batch, in_batches
from densevit.inference.coarse_blending import blend_at_stride
from densevit.inference.separable_resize import Axis, Resize
from densevit.inference.tiled_logits import GetLogits, StitchedLogits, TiledLogits, to_hold
from densevit.inference_config import InferenceConfig, Scale
from densevit.limits import limits
from densevit.model import DenseModel
from densevit.pixels import LARGE_IMAGE, fit_image, to_tensor
from densevit.types import Size

Place = tuple[int, int]
"""First row and first column of a window."""


class SlidingWindow(Config):
    """How an image is run window by window.

    Attributes:
        window: side of the square windows in pixels, a multiple of the patch size. By default each head's own: its
            ``window`` or else its ``short_side`` in the model's ``InferenceConfig``.
        overlap: the least number of pixels that neighbours share; a quarter of the window by default.
        blend: weights of a window's pixels: "uniform" as in the papers, or "hann", which fades towards the edges.
        batch: windows at once, or "auto": one on a CPU; on a GPU what its free memory holds.
        small: for an image smaller than a window: "shrink" the window to it, rounded up to the patch size, or "pad".
        fill: of pixels beyond the image: its "edge" repeated, or the "mean" colour that the model was trained with.
        accumulate: "exact" at the image's pixels, or at the decoder's "stride", which is cheaper where windows overlap
            a lot, and approximate unless there is a single window.
        scale: factor on the image's sides before the windows are laid over it.
    """

    window: PositiveWidth | None = None
    overlap: Annotated[int | None, bounded("width")] = Field(default=None, ge=0)
    blend: Literal["uniform", "hann"] = "uniform"
    batch: Batch = "auto"
    small: Literal["shrink", "pad"] = "shrink"
    fill: Literal["edge", "mean"] = "edge"
    accumulate: Literal["exact", "stride"] = "exact"
    scale: Scale = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.batch, int) and not 1 <= self.batch <= limits().batch:
            raise ValueError(f"batch is {self.batch} but must be at least 1 and at most {limits().batch:,}, or 'auto'")
        if self.window is not None and self.overlap is not None and self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} must be below the window {self.window}")
        return self

    def groups(self, config: InferenceConfig, heads: Iterable[str]) -> list[tuple[InferenceConfig, tuple[str, ...]]]:
        """Heads that share windows, each group with the config whose ``window_side`` is their side."""
        names: dict[int, list[str]] = {}
        for head in heads:
            names.setdefault(self.window or config.for_head(head).window_side, []).append(head)
        return [(config.at(side), tuple(group)) for side, group in names.items()]


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of an image are.

    Attributes:
        size: (H, W) of the image that is run.
        extent: (height, width) of a window.
        starts: first rows and first columns of the windows.
        weights: of a window's rows and columns in the blend.
    """

    size: Size
    extent: Size
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    weights: tuple[NDArray[np.float32], NDArray[np.float32]]

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1])

    def axes(self, grid: Size, *, align_corners: bool, out: Size) -> tuple[Axis, Axis]:
        """How the logits (K, *grid) of each window contribute to rows and columns of a result of size ``out``."""
        rows, columns = (
            Axis(length, starts, weights, Resize(inner, extent, align_corners=align_corners)).resized(new)
            for length, starts, weights, inner, extent, new in zip(
                self.size, self.starts, self.weights, grid, self.extent, out, strict=True
            )
        )
        return rows, columns

    def stitch(
        self, get: GetLogits, example: Tensor, *, align_corners: bool, out: Size, num_held: int = 0
    ) -> StitchedLogits:
        """The blend of all windows, of size ``out``.

        Args:
            get: the logits of a window by its row and column of windows.
            example: logits (K, h', w') of any window.
            align_corners: of the decoder.
            out: (H, W) of the result.
            num_held: floats that all windows hold together.
        """
        rows, columns = self.axes((example.shape[-2], example.shape[-1]), align_corners=align_corners, out=out)
        return StitchedLogits(rows, columns, get, example.shape[0], example.device, num_held)


def window_grid(config: SlidingWindow, size: Size, default_side: int, patch_size: Size) -> WindowGrid:
    """The windows of an image of a size; ``default_side`` is rounded to the patch size.

    Raises:
        ConfigError: if the window does not suit the patch size or the overlap.
    """
    extents: list[int] = []
    starts: list[tuple[int, ...]] = []
    for length, patch in zip(size, patch_size, strict=True):
        side = config.window or max(round(default_side / patch), 1) * patch
        if side % patch:
            fitting = side + -side % patch
            raise ConfigError(f"window is {side} but must be a multiple of patch size {patch}; use {fitting}")
        overlap = side // 4 if config.overlap is None else config.overlap
        if overlap >= side:
            raise ConfigError(f"overlap is {overlap} but must be below the window {side}; use {side // 4}")
        extent = min(side, length + -length % patch) if config.small == "shrink" else side
        extents.append(extent)
        starts.append(tuple(clamped_starts(length, extent, max(side - overlap, 1))))
    weights = [blend_weights(config.blend, extent) for extent in extents]
    return WindowGrid(size, (extents[0], extents[1]), (starts[0], starts[1]), (weights[0], weights[1]))


def clamped_starts(length: int, extent: int, step: int) -> list[int]:
    """Windows at multiples of the step, the last pushed back inside (mmsegmentation, SETR); one for a short image."""
    count = max(length - extent + step - 1, 0) // step + 1
    return [max(min(index * step + extent, length) - extent, 0) for index in range(count)]


def blend_weights(blend: Literal["uniform", "hann"], extent: int) -> NDArray[np.float32]:
    """Weights of a window's rows or columns, all positive."""
    if blend == "uniform":
        return np.ones(extent, np.float32)
    return (np.sin(np.pi * (np.arange(extent) + 0.5) / extent) ** 2).astype(np.float32)


Read = Callable[[slice, slice], NDArray[Any]]
"""Rows and columns of an image -> its pixels (h, w, C), uint8 or float32 in [0, 1]."""


class SlidingWindowRunner:
    """Runs windows through some heads of a model."""

    def __init__(self, model: DenseModel, heads: Sequence[str], config: SlidingWindow, *, default_side: int) -> None:
        self.model, self.heads, self.config = model, tuple(heads), config
        self._default_side = default_side

    def grid(self, size: Size) -> WindowGrid:
        """The windows of an image of a size.

        Raises:
            ConfigError: if the window does not suit the patch size or the overlap.
        """
        return window_grid(self.config, size, self._default_side, self.model.config.encoder.patch_size)

    def run(self, read: Read, places: Sequence[Place], grid: WindowGrid) -> Iterator[dict[str, Tensor]]:
        """For each window, per head its logits (K, h', w')."""
        mean, device = self.model.mean, self.model.mean.device

        def infer(batch: Sequence[Place]) -> list[dict[str, Tensor]]:
            windows = [_fill(_crop(read, place, grid), grid.extent, self.config.fill, mean) for place in batch]
            with torch.inference_mode():
                outputs = self.model(torch.stack(windows).to(device), self.heads, coarse=True)
                return [
                    {head: to_hold(output.logits[index].float()) for head, output in outputs.items()}
                    for index in range(len(batch))
                ]

        height, width = grid.extent
        what = f"window of {height} x {width} pixels"
        yield from in_batches(infer, places, self.config.batch, device=device, what=what)

    def run_image(self, image: NDArray[Any], input_size: Size) -> dict[str, TiledLogits]:
        """Resize an image (H, W, C) to ``input_size`` and run its windows -> per head logits of the image's size."""
        out = (image.shape[0], image.shape[1])
        resized = _resized(image, input_size)
        grid = self.grid(input_size)
        rows, columns = grid.starts
        indices = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
        places = [(rows[i], columns[j]) for i, j in indices]
        windows: dict[str, dict[tuple[int, int], Tensor]] = {head: {} for head in self.heads}
        for index, logits in zip(indices, self.run(lambda r, c: resized[r, c], places, grid), strict=True):
            for head, values in logits.items():
                windows[head][index] = values
        return {head: self._blend(head, windows[head], grid, out) for head in self.heads}

    def _blend(self, head: str, windows: dict[tuple[int, int], Tensor], grid: WindowGrid, out: Size) -> TiledLogits:
        example, corners = windows[0, 0], self.model.decoder(head).align_corners
        if self.config.accumulate == "stride":
            return blend_at_stride(
                windows, grid.starts, grid.size, grid.extent, grid.weights, out, align_corners=corners
            )
        num_held = example.numel() * len(windows)
        return grid.stitch(lambda i, j: windows[i, j], example, align_corners=corners, out=out, num_held=num_held)


def _crop(read: Read, place: Place, grid: WindowGrid) -> Tensor:
    """A window's pixels (C, h, w) in [0, 1]; fewer of them where the image ends before the window does."""
    rows = slice(place[0], min(place[0] + grid.extent[0], grid.size[0]))
    columns = slice(place[1], min(place[1] + grid.extent[1], grid.size[1]))
    return to_tensor(read(rows, columns))


def _fill(pixels: Tensor, extent: Size, fill: Literal["edge", "mean"], mean: Tensor) -> Tensor:
    """Pixels (C, h, w) enlarged to a window (C, *extent) to the right and below."""
    below, right = extent[0] - pixels.shape[-2], extent[1] - pixels.shape[-1]
    if not (below or right):
        return pixels
    if fill == "edge":
        return F.pad(pixels[None], (0, right, 0, below), mode="replicate")[0]
    window = mean.to(pixels.device).view(-1, 1, 1).expand(-1, *extent).clone()
    window[:, : pixels.shape[-2], : pixels.shape[-1]] = pixels
    return window


def _resized(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """An image (H, W, C) of another size, float32 in [0, 1].

    A large image of 8 bits stays at 8 bits: ``fit_image`` resizes it in 8 bits, and a quarter of the memory holds it.
    """
    if size == image.shape[:2]:
        return image
    pixels = fit_image(image, size)
    if image.dtype == np.uint8 and image.shape[0] * image.shape[1] > LARGE_IMAGE:
        pixels = pixels.mul_(255.0).round_().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().numpy()
