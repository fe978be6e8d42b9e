"""Size-preserving convolutions with 8-bit integers in CPU inference.

Maps are quantised when they are convolved, so nothing has to be calibrated; weights have a scale for each output
channel. 3x3 convolutions run in oneDNN, with one scale for each map; that is off by 0.2 to 1.1 % on a decoder's maps.
1x1 convolutions are linear layers, with a scale for each pixel: they read tokens, which differ more in size.
"""

import ctypes
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels.build import FLOAT, LONG, POINTER, Signatures, checked, library
from densevit.kernels.convolution import Filter
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.int8 import linear
from densevit.kernels.int8.linear import Int8Linear, Step, run_layers
from densevit.kernels.int8.processor import has_vnni
from densevit.kernels.threads import parallel_for

MIN_CHANNELS = {1: 64, 3: 24}
"""Least channels of input and output, by the size of the kernel; for other sizes nothing was measured."""
MIN_PRODUCTS = {1: 45_000_000, 3: 100_000_000}
"""Least multiply-adds of a map, without minimal filtering. Below, quantising costs more than the products save."""

_GRAIN = 2**16
"""Values that are worth a thread."""
_SMALLEST = 1e-30
"""Maps that are closer to zero become zero integers."""


class Int8Filter(Filter):
    """``Filter`` with integers where that is faster, and as ``Filter`` elsewhere.

    Every image has scales of its own, so that results do not depend on the batch.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._packed: dict[bool, Tensor] = {}
        self._scales: Tensor | None = None
        self._linear: Int8Linear | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and pickles leave out what oneDNN packed: it has no storage.
        return type(self), (self.weight, self.bias)

    @classmethod
    def suits(cls, weight: Tensor) -> bool:
        """Whether maps can be large enough for integers to be faster with these weights (O, C, k, k)."""
        num_out, channels, *size = weight.shape
        return any(size == [k, k] and min(num_out, channels) >= least for k, least in MIN_CHANNELS.items())

    def __call__(
        self,
        x: Tensor,
        *,
        inner_rows: bool = False,
        relu_first: bool = False,
        relu: bool = False,
        residual: Tensor | None = None,
    ) -> Tensor:
        """(B, C, h, w) -> (B, O, h, w); the options are those of ``Filter``."""
        if not self._can_quantise(x):
            out = None
        elif self.weight.shape[-1] == 1:
            out = self._pointwise(x, relu_first, relu, residual)
        else:
            out = self._one_by_one(x, inner_rows, relu_first, relu, residual)
        if out is None:
            return super().__call__(x, inner_rows=inner_rows, relu_first=relu_first, relu=relu, residual=residual)
        return out

    def _one_by_one(
        self, x: Tensor, inner_rows: bool, relu_first: bool, relu: bool, residual: Tensor | None
    ) -> Tensor | None:
        """What the call gives, image by image, or None if a value is not finite."""
        fused = relu and residual is None
        results = [self._convolve(image, inner_rows, relu_first, fused) for image in x.permute(0, 2, 3, 1).split(1)]
        images = [image for image in results if image is not None]
        if len(images) < len(x):
            return None
        out = images[0] if len(images) == 1 else torch.cat(images)
        out = out if residual is None else out.add_(residual)
        return F.relu_(out) if relu and not fused else out

    def _can_quantise(self, x: Tensor) -> bool:
        if not self.suits(self.weight) or not len(x) or not use_kernel(x, self.weight):
            return False
        kernel_size = self.weight.shape[-1]
        enough = self.weight.numel() * x.shape[-2] * x.shape[-1] >= MIN_PRODUCTS[kernel_size]
        return enough and (linear.load if kernel_size == 1 else operator)() is not None

    def _pointwise(self, x: Tensor, relu_first: bool, relu: bool, residual: Tensor | None) -> Tensor:
        if self._linear is None:
            self._linear = Int8Linear.of(self.weight.flatten(1), self.bias)
        steps: list[Step] = [("relu" if relu_first else "plain", self._linear)]
        added = None if residual is None else residual.permute(0, 2, 3, 1)
        out = run_layers(x.permute(0, 2, 3, 1), steps, residual=added).permute(0, 3, 1, 2)
        return F.relu_(out) if relu else out

    def _convolve(self, image: Tensor, inner_rows: bool, relu_first: bool, relu: bool) -> Tensor | None:
        """(1, h, w, C) -> (1, O, h, w), or None if a value is not finite."""
        image = image.contiguous()  # reductions are slow along other strides
        low, high = (float(value) for value in image.aminmax())
        low = 0.0 if relu_first else min(low, 0.0)
        scale = max(max(high, 0.0) - low, _SMALLEST) / 255
        if not scale < float("inf"):
            return None
        zero = round(-low / scale)
        return self._product(quantise(image, scale, zero).permute(0, 3, 1, 2), scale, zero, inner_rows, relu)

    def _product(self, x: Tensor, scale: float, zero: int, inner_rows: bool, relu: bool) -> Tensor:
        padding = [0 if inner_rows else 1, 1]
        geometry: tuple[Any, ...] = ([1, 1], padding, [1, 1], 1)  # stride, padding, dilation, groups
        if self._scales is None:
            self._scales = self.weight.abs().amax((1, 2, 3)).clamp(min=_SMALLEST) / 127
        if bool(zero) not in self._packed:  # oneDNN stores what a zero point needs next to the weights
            weight = (self.weight / self._scales[:, None, None, None]).round().to(torch.int8)
            packed = torch.ops.onednn.qconv_prepack(weight, self._scales, scale, zero, *geometry, list(x.shape))
            self._packed[bool(zero)] = packed
        run: Any = operator()
        zeros = torch.zeros(len(self._scales), dtype=torch.int32)
        weights = (self._packed[bool(zero)], self._scales, zeros, self.bias)
        output: tuple[Any, ...] = (1.0, 0, torch.float32, "relu" if relu else "none", [], "")
        out: Tensor = run(x, scale, zero, *weights, *geometry, *output)
        return out


def quantise(x: Tensor, scale: float, zero: int) -> Tensor:
    """Contiguous values up to ``scale * (255 - zero)`` as integers from 0 to 255; lower ones become 0."""
    kernel = load()
    if kernel is None:
        return torch.mul(x, 1 / scale).add_(zero).clamp_(min=0).add_(0.5).to(torch.uint8)
    out = torch.empty_like(checked(x, torch.float32, *x.shape), dtype=torch.uint8)

    def run(start: int, stop: int) -> None:
        kernel.densevit_quantise(
            x.data_ptr() + start * x.element_size(), stop - start, 1 / scale, zero, out.data_ptr() + start
        )

    parallel_for(run, x.numel(), max_threads=-(-x.numel() // _GRAIN))
    return out


def flops(x: Any, scale: Any, zero: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    """Operations, from the shapes of weights and output."""
    return int(2 * math.prod(out_shape) * math.prod(weight[1:]))


@cache
def operator() -> Any | None:
    """oneDNN's convolution of integers, or None where torch has none or the processor's would not be faster."""
    names = ("qconv2d_pointwise", "qconv_pointwise")  # the older name first
    if not has_vnni() or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv_prepack"):
        return None
    return next((getattr(torch.ops.onednn, name) for name in names if hasattr(torch.ops.onednn, name)), None)


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel that quantises maps, or None if it cannot be built."""
    signatures: Signatures = {"densevit_quantise": (None, [POINTER, LONG, FLOAT, FLOAT, POINTER])}
    return library(Path(__file__).with_name("convolution.c"), "maps are quantised in torch", signatures)
