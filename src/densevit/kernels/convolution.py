"""3x3 convolutions of float32 maps on the CPU by minimal filtering, with a quarter of the products; see ADR 0014.

Source: Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", F(4x4, 3x3), with other points.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels import filtering, product
from densevit.kernels.dispatch import use_kernel

TILE = 4
"""Side of an output tile: it is computed from 6x6 inputs with 36 products instead of 144."""

TILES_PER_BAND = 160
"""Tiles computed at once, in whole rows of tiles, so that intermediate values stay in the cache."""

MIN_CHANNELS, MIN_PIXELS = 64, 2000
"""Below these channels (in and out) and pixels (of one map) the transforms cost more than the products save."""

KERNEL_MIN_CHANNELS, KERNEL_MIN_PIXELS = 32, 256
"""The same where the C kernel runs."""

_A, _B = 0.5**0.5, 2.0**0.5
"""The interpolation points are 0, +-A, +-B and infinity; they round less than the usual 0, +-1, +-2."""

_POINTS = torch.tensor(
    [
        [1.0, 0.0, 0.0],
        [-2 / 3, -2 / 3 * _A, -1 / 3],
        [-2 / 3, 2 / 3 * _A, -1 / 3],
        [1 / 6, _B / 6, 1 / 3],
        [1 / 6, -_B / 6, 1 / 3],
        [0.0, 0.0, 1.0],
    ],
    dtype=torch.float64,
)
"""Evaluates a row of three weights, a polynomial, at each point."""

_POINTS_2D = torch.kron(_POINTS, _POINTS).float()  # (36, 9)


class Conv2d(nn.Conv2d):
    """Size-preserving ``nn.Conv2d`` that may use minimal filtering in CPU inference, which changes only rounding.

    Attributes:
        int8: what runs in CPU inference instead, from ``densevit.layers.use_int8``.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.int8: Filter | None = None

    def forward(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """(B, in_channels, h, w) -> (B, out_channels, h, w), followed by ReLU on request."""
        if use_kernel(x, self.weight):
            return (self.int8 or Filter(self.weight, self.bias))(x, relu=relu)
        out = super().forward(x)
        return F.relu(out) if relu else out


class Filter:
    """Size-preserving convolution whose weights are transformed once for many maps.

    Args:
        weight: (O, C, k, k), k odd.
        bias: (O,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self._points: Tensor | None = None
        self._panels: Tensor | None = None

    def __call__(
        self,
        x: Tensor,
        *,
        inner_rows: bool = False,
        relu_first: bool = False,
        relu: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        """relu(convolution(relu(x)) + residual), each where asked for: (B, C, h, w) -> (B, O, h, w).

        ``inner_rows`` omits the rows that need padding above or below.
        """
        panels = self._ready_panels(x)
        if panels is not None:
            return filtering.convolve(
                x,
                panels,
                self.bias,
                outputs=len(self.weight),
                inner_rows=inner_rows,
                relu_first=relu_first,
                relu=relu,
                residual=residual,
            )
        out = self._plain(F.relu(x) if relu_first else x, inner_rows=inner_rows)
        out = out if residual is None else out + residual
        return F.relu(out, inplace=not torch.is_grad_enabled()) if relu else out

    def _plain(self, x: Tensor, *, inner_rows: bool) -> Tensor:
        num_out, channels, *size = self.weight.shape
        if size == [1, 1]:
            pixels = product.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias)
            if pixels is not None:
                return pixels.movedim(-1, 1)
        if not self._can_filter(x, MIN_CHANNELS, MIN_PIXELS, transformed=self._points is not None):
            return F.conv2d(x, self.weight, self.bias, padding=(0 if inner_rows else size[0] // 2, size[1] // 2))
        if self._points is None:
            by_position = self.weight.permute(2, 3, 1, 0).reshape(9, -1)
            self._points = (_POINTS_2D @ by_position).view(36, channels, num_out)
        return _convolve(x, self._points, self.bias, inner_rows=inner_rows)

    def _ready_panels(self, x: Tensor) -> Tensor | None:
        """The weights as the C kernel takes them, or None where it does not apply."""
        transformed = self._panels is not None
        if not self._can_filter(x, KERNEL_MIN_CHANNELS, KERNEL_MIN_PIXELS, transformed=transformed):
            return None
        if self._panels is None:
            self._panels = filtering.evaluate(self.weight, _POINTS.float())
        return self._panels

    def _can_filter(self, x: Tensor, channels: int, pixels: int, *, transformed: bool) -> bool:
        wide = self.weight.shape[2:] == (3, 3) and min(self.weight.shape[:2]) >= channels
        if not wide or not use_kernel(x, self.weight) or not x.numel():
            return False
        # Once the weights are transformed, small maps use them too, such as the last band of a large map.
        large = x.shape[-2] * x.shape[-1] >= pixels or transformed
        return large and torch.backends.cpu.get_cpu_capability().startswith("AVX")  # not measured elsewhere


def _convolve(x: Tensor, points: Tensor, bias: Tensor | None, *, inner_rows: bool) -> Tensor:
    height, width = x.shape[2] - 2 * inner_rows, x.shape[3]
    down, across = -(-height // TILE), -(-width // TILE)  # tiles
    rows = TILE * max(TILES_PER_BAND // across, 1)
    out = x.new_empty(len(x), down * TILE, across * TILE, points.shape[2])
    for image, result in zip(x.permute(0, 2, 3, 1), out, strict=True):
        for top in range(0, down * TILE, rows):
            band = result[top : top + rows]  # (rows, across * TILE, O)
            first = top if inner_rows else top - 1
            _convolve_band(_padded(image, first, len(band) + 2, across * TILE + 2), points, band)
            if bias is not None:
                band += bias
    return out[:, :height, :width].contiguous().permute(0, 3, 1, 2)  # copies only if the last tiles exceed the map


def _padded(image: Tensor, first: int, rows: int, columns: int) -> Tensor:
    """Rows of (h, w, C) from ``first``, columns from -1: (rows, columns, C), zero outside the image."""
    height, width, channels = image.shape
    low, high = max(first, 0) - first, min(first + rows, height) - first
    padded = image.new_empty(rows, columns, channels)
    padded[low:high, 1 : width + 1] = image[first + low : first + high]
    for outside in (padded[:low], padded[high:], padded[:, :1], padded[:, width + 1 :]):
        outside.zero_()
    return padded


def _convolve_band(x: Tensor, points: Tensor, out: Tensor) -> None:
    """Convolve x (TILE h + 2, TILE w + 2, C) into out (TILE h, TILE w, O)."""
    down, across, (_, channels, num_out) = out.shape[0] // TILE, out.shape[1] // TILE, points.shape
    rows = x.new_empty(6, down, x.shape[1], channels)
    _evaluate([x[i : i + TILE * down - TILE + 1 : TILE] for i in range(6)], rows.unbind(0))
    tiles = x.new_empty(6, 6, down, across, channels)
    _evaluate([rows[:, :, i : i + TILE * across - TILE + 1 : TILE] for i in range(6)], tiles.unbind(1))
    products = torch.bmm(tiles.view(36, down * across, channels), points).view(6, 6, down, across, num_out)
    del tiles, rows
    columns = x.new_empty(TILE, 6, down, across, num_out)
    _interpolate(products.unbind(0), columns.unbind(0))
    out_tiles = out.view(down, TILE, across, TILE, num_out).permute(3, 1, 0, 2, 4)
    _interpolate(columns.unbind(1), out_tiles.unbind(0))


def _evaluate(x: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Six adjacent inputs -> their factors at the six points, to be multiplied by those of the weights."""
    torch.add(x[4], x[2], alpha=-2.5, out=out[0]).add_(x[0])
    even, odd = torch.add(x[4], x[2], alpha=-2), torch.add(x[3], x[1], alpha=-2)
    torch.add(even, odd, alpha=_A, out=out[1])
    torch.add(even, odd, alpha=-_A, out=out[2])
    even, odd = torch.add(x[4], x[2], alpha=-0.5, out=even), torch.add(x[3], x[1], alpha=-0.5, out=odd)
    torch.add(even, odd, alpha=_B, out=out[3])
    torch.add(even, odd, alpha=-_B, out=out[4])
    torch.add(x[5], x[3], alpha=-2.5, out=out[5]).add_(x[1])


def _interpolate(x: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Products at the six points -> four adjacent outputs."""
    near, near_odd, far, far_odd = x[1] + x[2], x[1] - x[2], x[3] + x[4], x[3] - x[4]
    torch.add(x[0], near, out=out[0]).add_(far)
    torch.add(near_odd, far_odd, alpha=2, out=out[1]).mul_(_A)
    torch.add(far, near, alpha=0.25, out=out[2]).mul_(2)
    torch.add(far_odd, near_odd, alpha=0.125, out=far_odd)
    torch.add(x[5], far_odd, alpha=2 * _B, out=out[3])
