"""Linear layers on tokens of 8 bits: the C kernel of ``linear.c`` where it applies, else the same arithmetic in torch.

Every token is quantised when it is used, to unsigned integers with a scale and a zero point of its own, so nothing has
to be calibrated; weights are signed integers with a scale for each output. One scale for all tokens would be less
accurate: in a ViT some have values a hundred times as large as others. So have some channels. Therefore every 64
channels of tokens and weights are multiplied by a Hadamard matrix first, which changes no product but spreads large
values, and halves the error of the tokens. Source: QuaRot (Ashkboos et al. 2024), "Outlier-Free 4-Bit Inference in
Rotated LLMs".
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.activations import ACTIVATIONS, Activation
from densevit.kernels.buffers import buffer
from densevit.kernels.build import LONG, POINTER, Signatures, address, checked, library, rows_of
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.int8.processor import has_vnni
from densevit.kernels.threads import parallel_for

Preparation = Activation | Literal["plain", "swiglu"] | nn.LayerNorm
"""What happens to tokens before they are quantised; SwiGLU halves their width: silu of the first half, times the rest.

The kernel's activations have an error of 1e-4, a fraction of a step of the integers.
"""

MAX_DEPTH = 2**16
"""Inputs of a layer: sums of more products could exceed 32 bits."""

_GROUP = 64
"""Channels that are rotated together; those after the last whole group are not."""
_TILE_ROWS = 6
_PANEL = 64
_SMALLEST = 1e-30
"""Values of a token that stays closer to zero count as zero."""

_KINDS: tuple[str, ...] = ("plain", "norm", "gelu", "gelu_tanh", "quick_gelu", "relu", "swiglu")
"""The preparations in the order of ``rows.h``, which knows them by their numbers."""


class Int8Linear(nn.Module):
    """A linear layer whose weights are 8-bit integers, for inference.

    Attributes:
        weight: (out_features, in_features), int8, rotated.
        scale: (out_features,): a weight is its integer times the scale of its output.
        bias: (out_features,); zeros if the layer has none.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self._packed: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @classmethod
    @torch.no_grad()
    def of(cls, weight: Tensor, bias: Tensor | None, factor: Tensor | None = None) -> Self:
        """Quantise weights (O, I), with a factor for each output (O,), such as LayerScale's."""
        weight = weight.detach().float()
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().float().clone()
        if factor is not None:
            weight, bias = weight * factor[:, None], bias * factor
        weight = rotated(weight) / _GROUP
        scale = weight.abs().amax(dim=1) / 127
        integers = (weight / scale.clamp(min=_SMALLEST)[:, None]).round().to(torch.int8)
        return cls(integers, scale, bias)

    @property
    def num_parameters(self) -> int:
        """Weights and biases."""
        return self.weight.numel() + self.bias.numel()

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features), float32."""
        return run_layers(x, [("plain", self)])

    def packed(self, kernel: ctypes.CDLL) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Panels, sums, scales and biases as the kernel takes them; made at the first use and kept."""
        if self._packed is None:
            width, depth = checked(self.weight.contiguous(), torch.int8, *self.weight.shape).shape
            panels = torch.empty(kernel.densevit_int8_panels(depth, width), dtype=torch.int8)
            sums = torch.empty(-(-width // _PANEL) * _PANEL, dtype=torch.int32)
            kernel.densevit_int8_pack(
                self.weight.contiguous().data_ptr(), depth, width, panels.data_ptr(), sums.data_ptr()
            )
            scale, bias = (F.pad(x.float(), (0, len(sums) - width)).contiguous() for x in (self.scale, self.bias))
            self._packed = panels, sums, scale, bias
        return self._packed

    def extra_repr(self) -> str:
        """The layer's widths."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


Step = tuple[Preparation, Int8Linear]


def run_layers(
    x: Tensor, steps: Sequence[Step], *, residual: Tensor | None = None, out: Tensor | None = None
) -> Tensor:
    """Run tokens through layers, each after its preparation, and add a residual.

    Args:
        x: (..., C).
        steps: preparations and layers.
        residual: (..., O), added to the last layer's output.
        out: contiguous (..., O) for the result, which may be neither x nor the residual.

    Returns:
        (..., O), float32.
    """
    last = steps[-1][1]
    shape = (*x.shape[:-1], last.out_features)
    kernel = load() if x.numel() and use_kernel(x, *(t for t in (residual, out) if t is not None)) else None
    if kernel is None:
        for preparation, layer in steps:
            x = _product(prepared(x, preparation), layer)
        x = x if residual is None else x + residual
        return x if out is None else out.copy_(x)
    out = torch.empty(shape, dtype=torch.float32) if out is None else checked(out, torch.float32, *shape)
    _run_kernel(kernel, x, steps, residual, out)
    return out


def prepared(x: Tensor, preparation: Preparation) -> Tensor:
    """Tokens (..., C) as they are to be quantised."""
    if isinstance(preparation, nn.LayerNorm):
        normed: Tensor = preparation(x)
        return normed
    if preparation == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
    return x if preparation == "plain" else ACTIVATIONS[preparation](x)


def rotated(x: Tensor) -> Tensor:
    """Tokens or weights (..., C), with each whole group of channels multiplied by the Hadamard matrix of 1 and -1.

    The others are multiplied by the root of the group's size, as large as the rotated ones become. The product of two
    rotated vectors is the size of a group times that of the vectors.
    """
    whole = x.shape[-1] // _GROUP * _GROUP
    groups = x[..., :whole].unflatten(-1, (-1, _GROUP)) @ _hadamard().to(x)
    return torch.cat((groups.flatten(-2), x[..., whole:] * _GROUP**0.5), dim=-1)


def _hadamard() -> Tensor:
    matrix = torch.ones(1, 1)
    while len(matrix) < _GROUP:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix


def quantise_tokens(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (..., C) -> integers in 0..255 (as floats), and for each token a scale and a zero point (..., 1).

    ``scale * (integers - zero)`` is x up to half a scale; where a value is not finite, the token's scale is NaN.
    """
    low, high = x.amin(dim=-1, keepdim=True).clamp(max=0), x.amax(dim=-1, keepdim=True).clamp(min=0)
    width = high - low
    finite = width.isfinite()
    factor = torch.where((width > _SMALLEST) & finite, 255 / width, 0.0)
    zero = torch.where(finite, (-low * factor).round(), 0.0)
    scale = torch.where(finite, torch.where(factor > 0, width / 255, 0.0), torch.nan)
    integers = torch.where(finite, x * factor + zero, 0.0).round().clamp(0, 255)
    return integers, scale, zero


def _product(x: Tensor, layer: Int8Linear) -> Tensor:
    integers, scale, zero = quantise_tokens(rotated(x.float()))
    sums = F.linear(integers - zero, layer.weight.float())
    return sums * scale * layer.scale + layer.bias


class _Layer(ctypes.Structure):
    _fields_ = (("depth", LONG), ("width", LONG), *((name, POINTER) for name in ("panels", "sums", "scales", "bias")))


class _Preparation(ctypes.Structure):
    _fields_ = (("kind", LONG), ("gain", POINTER), ("shift", POINTER), ("eps", ctypes.c_float))


def _run_kernel(kernel: ctypes.CDLL, x: Tensor, steps: Sequence[Step], residual: Tensor | None, out: Tensor) -> None:
    count = len(steps)
    preparations = (_Preparation * count)()
    layers = (_Layer * count)()
    kept: list[Tensor] = []  # what the structures point to
    for index, (preparation, layer) in enumerate(steps):
        panels = layer.packed(kernel)
        layers[index] = _Layer(layer.in_features, layer.out_features, *(t.data_ptr() for t in panels))
        preparations[index] = _preparation(preparation, layer.in_features, kept)
    rows = rows_of(x, _input_width(steps[0]))
    sums = None if residual is None else rows_of(residual, out.shape[-1])
    results = out.view(-1, out.shape[-1])
    tiles = -(-len(rows) // _TILE_ROWS)
    shares = min(torch.get_num_threads(), tiles)
    scratch_bytes = kernel.densevit_int8_scratch(layers, count)
    scratch = buffer("int8 layers", shares, scratch_bytes, dtype=torch.uint8)

    def run_shares(start: int, stop: int) -> None:
        for share in range(start, stop):
            first = _TILE_ROWS * (tiles * share // shares)
            last = min(_TILE_ROWS * (tiles * (share + 1) // shares), len(rows))
            kernel.densevit_int8_layers(
                *(address(rows, first), rows.stride(0), last - first, preparations, layers, count),
                *((None, 0) if sums is None else (address(sums, first), sums.stride(0))),
                *(address(results, first), results.stride(0), address(scratch, share)),
            )

    parallel_for(run_shares, shares)


def _preparation(preparation: Preparation, depth: int, kept: list[Tensor]) -> _Preparation:
    if not isinstance(preparation, nn.LayerNorm):
        return _Preparation(_KINDS.index(preparation), None, None, 0.0)
    gain = torch.ones(depth) if preparation.weight is None else preparation.weight.detach().contiguous()
    shift = torch.zeros(depth) if preparation.bias is None else preparation.bias.detach().contiguous()
    kept += [checked(gain, torch.float32, depth), checked(shift, torch.float32, depth)]
    return _Preparation(_KINDS.index("norm"), gain.data_ptr(), shift.data_ptr(), preparation.eps)


def _input_width(step: Step) -> int:
    preparation, layer = step
    return layer.in_features * (2 if preparation == "swiglu" else 1)


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built or the processor lacks its instructions."""
    if not has_vnni():
        return None
    signatures: Signatures = {
        "densevit_int8_panels": (LONG, [LONG, LONG]),
        "densevit_int8_pack": (None, [POINTER, LONG, LONG, POINTER, POINTER]),
        "densevit_int8_scratch": (LONG, [POINTER, LONG]),
        "densevit_int8_layers": (
            None,
            [POINTER, LONG, LONG, POINTER, POINTER, LONG, POINTER, LONG, POINTER, LONG, POINTER],
        ),
    }
    return library(Path(__file__).with_name("linear.c"), "int8 layers run in torch, slower than float32", signatures)
