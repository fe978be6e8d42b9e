"""Our own inference by windows: at the photo's own pixels, blended, for every head in one encoder pass a window."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.config import Config
from densevit.errors import ConfigError
from densevit.inference.batching import Batch, in_batches
from densevit.inference.coarse_blending import at_stride
from densevit.inference.separable_resize import Axis, Resize
from densevit.inference.tiled_logits import StitchedLogits, TiledLogits, to_hold
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.pixels import fit_image, to_tensor
from densevit.types import Size


class SlidingWindow(Config):
    """How a photo is run window by window.

    Attributes:
        window: side of the square windows in pixels, a multiple of the patch size; by default the short side that the
            model was trained for.
        overlap: pixels that neighbours share at least; a quarter of the window by default.
        blend: weights of a window's pixels: "uniform" as in the papers, or "hann", which fades towards the edges.
        batch: windows at once, or "auto": one on a CPU, on a GPU what its free memory holds.
        small: for a photo smaller than a window: "shrink" the window to it, rounded up to the patch size, or "pad".
        fill: of pixels beyond the photo: its "edge" repeated, or the "mean" colour that the model was trained with.
        accumulate: "exact" at the photo's pixels, or at the decoder's "stride": cheaper where windows overlap much, and
            approximate but for a single window.
        scale: factor on the photo's sides before.
    """

    window: int | None = Field(default=None, gt=0)
    overlap: int | None = Field(default=None, ge=0)
    blend: Literal["uniform", "hann"] = "uniform"
    batch: Batch = "auto"
    small: Literal["shrink", "pad"] = "shrink"
    fill: Literal["edge", "mean"] = "edge"
    accumulate: Literal["exact", "stride"] = "exact"
    scale: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if isinstance(self.batch, int) and self.batch < 1:
            raise ValueError(f"batch is {self.batch} but must be at least 1, or 'auto'")
        if self.window is not None and self.overlap is not None and self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap} must be below the window {self.window}")
        return self


@dataclass(frozen=True)
class WindowGrid:
    """Where the windows of an image lie.

    Attributes:
        size: (H, W) of the image that is run.
        extent: (height, width) of a window.
        starts: of the rows and of the columns of windows.
        weights: of a window's rows and columns in the blend.
    """

    size: Size
    extent: Size
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    weights: tuple[NDArray[np.float32], NDArray[np.float32]]

    @property
    def count(self) -> int:
        """Of the windows."""
        return len(self.starts[0]) * len(self.starts[1])

    def axes(self, grid: Size, *, align_corners: bool, out: Size | None = None) -> tuple[Axis, Axis]:
        """How logits (K, *grid) of each window come to the image, or to ``out``."""
        rows, columns = (
            Axis(length, starts, weights, Resize(inner, extent, align_corners=align_corners))
            for length, starts, weights, inner, extent in zip(
                self.size, self.starts, self.weights, grid, self.extent, strict=True
            )
        )
        return (rows, columns) if out is None else (rows.resized(out[0]), columns.resized(out[1]))


def layout(config: SlidingWindow, size: Size, fit: InferenceConfig, patch_size: Size) -> WindowGrid:
    """The windows of an image of that size.

    Raises:
        ConfigError: if the window does not suit the patch size or the overlap.
    """
    extents, starts = [], []
    for length, patch in zip(size, patch_size, strict=True):
        side = config.window or max(round(fit.short_side / patch), 1) * patch
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


def blend_weights(blend: Literal["uniform", "hann"], extent: int) -> NDArray[np.float32]:
    """Weights of a window's rows or columns, all positive."""
    if blend == "uniform":
        return np.ones(extent, np.float32)
    return (np.sin(np.pi * (np.arange(extent) + 0.5) / extent) ** 2).astype(np.float32)


def crop(read: Callable[[slice, slice], NDArray[np.uint8]], place: tuple[int, int], layout: WindowGrid) -> Tensor:
    """A window's pixels (3, h, w) in [0, 1]; (3, h', w') less of them where the image ends before."""
    rows = slice(place[0], min(place[0] + layout.extent[0], layout.size[0]))
    columns = slice(place[1], min(place[1] + layout.extent[1], layout.size[1]))
    return to_tensor(read(rows, columns))


def filled(pixels: Tensor, extent: Size, fill: Literal["edge", "mean"], mean: Tensor) -> Tensor:
    """Pixels (3, h, w) enlarged to a window (3, *extent) right and below."""
    below, right = extent[0] - pixels.shape[-2], extent[1] - pixels.shape[-1]
    if not (below or right):
        return pixels
    if fill == "edge":
        return F.pad(pixels[None], (0, right, 0, below), mode="replicate")[0]
    whole = mean.to(pixels.device).view(-1, 1, 1).expand(-1, *extent).clone()
    whole[:, : pixels.shape[-2], : pixels.shape[-1]] = pixels
    return whole


class SlidingWindowRunner:
    """A model with some of its heads, run on windows."""

    def __init__(self, model: DenseModel, heads: Sequence[str], config: SlidingWindow) -> None:
        self.model, self.heads, self.config = model, tuple(heads), config

    def run(
        self, read: Callable[[slice, slice], NDArray[np.uint8]], places: Sequence[tuple[int, int]], layout: WindowGrid
    ) -> Iterator[dict[str, Tensor]]:
        """For each window by its first row and column: per head the logits (K, h', w')."""
        mean, device = self.model.mean, self.model.mean.device

        def infer(batch: Sequence[tuple[int, int]]) -> list[dict[str, Tensor]]:
            windows = [filled(crop(read, place, layout), layout.extent, self.config.fill, mean) for place in batch]
            with torch.inference_mode():
                outputs = self.model(torch.stack(windows).to(device), self.heads, coarse=True)
                return [
                    {name: to_hold(output.logits[index].float()) for name, output in outputs.items()}
                    for index in range(len(batch))
                ]

        height, width = layout.extent
        what = f"window of {height} x {width} pixels"
        yield from in_batches(infer, places, self.config.batch, device=device, what=what)

    def fields(self, photo: NDArray[np.uint8], fit: InferenceConfig, *, scale: float = 1.0) -> dict[str, TiledLogits]:
        """What each head says of a photo (H, W, 3), of the photo's size; ``scale`` is one more factor on its sides."""
        factor = self.config.scale * scale
        seen = max(round(photo.shape[0] * factor), 1), max(round(photo.shape[1] * factor), 1)
        return self.fields_at(seen, photo, fit)

    def fields_at(self, seen: Size, photo: NDArray[np.uint8], fit: InferenceConfig) -> dict[str, TiledLogits]:
        """What each head says of a photo (H, W, 3) that is first resized to ``seen``; of the photo's size."""
        size = (photo.shape[0], photo.shape[1])
        image = resized(photo, seen)
        plan = layout(self.config, (image.shape[0], image.shape[1]), fit, self.model.config.encoder.patch_size)
        rows, columns = plan.starts
        order = [(i, j) for i in range(len(rows)) for j in range(len(columns))]
        places = [(rows[i], columns[j]) for i, j in order]
        held: dict[str, dict[tuple[int, int], Tensor]] = {head: {} for head in self.heads}
        for index, logits in zip(order, self.run(lambda r, c: image[r, c], places, plan), strict=True):
            for head, values in logits.items():
                held[head][index] = values
        return {head: self._field(head, held[head], plan, size) for head in self.heads}

    def _field(self, head: str, held: dict[tuple[int, int], Tensor], plan: WindowGrid, out: Size) -> TiledLogits:
        first = held[0, 0]
        corners = self.model.decoder(head).align_corners
        if self.config.accumulate == "stride":
            return at_stride(held, plan.starts, plan.size, plan.extent, plan.weights, out, align_corners=corners)
        axes = plan.axes((first.shape[-2], first.shape[-1]), align_corners=corners, out=out)
        return StitchedLogits(
            *axes,
            lambda i, j: held[i, j],
            num_channels=first.shape[0],
            device=first.device,
            num_held=first.numel() * len(held),
        )


def resized(photo: NDArray[Any], size: Size) -> NDArray[Any]:
    """A photo (H, W, C) of another size: in 8 bits if it has 8 bits, else float32 in [0, 1]."""
    if size == photo.shape[:2]:
        return photo
    pixels = fit_image(photo, size)
    if photo.dtype == np.uint8:
        pixels = pixels.mul_(255.0).round_().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().numpy()


def clamped_starts(length: int, extent: int, step: int) -> list[int]:
    """Windows at multiples of the step, the last pushed back inside (mmsegmentation, SETR); one for a short image."""
    count = max(length - extent + step - 1, 0) // step + 1
    return [max(min(index * step + extent, length) - extent, 0) for index in range(count)]
