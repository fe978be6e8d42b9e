"""Products of linear layers in training in float32, with bias and GELU: C kernels where they suit, else torch's form.

The kernels are for processors for which MKL, torch's choice, lacks AVX-512 code; see ADR 0012.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels import build
from densevit.kernels.linear import onednn_product
from densevit.kernels.threads import spread

_LANES = 16
_TALL = 6
"""Rows of a tile; threads take whole tiles."""
_FEW_ROWS = 256
"""Below, packing the weight costs too much of the whole."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None, *, turned: bool = True) -> Tensor:
    """Dense rows (..., in) -> x weight' + bias (..., out); not ``turned``: x weight, for a weight (in, out)."""
    depth, width = weight.shape[::-1] if turned else weight.shape
    count = x.numel() // depth
    kernels = load() if width % _LANES == 0 and count >= _FEW_ROWS else None
    if kernels is None:
        other, matrix = onednn_product(), weight if turned else weight.t()
        found: Tensor = F.linear(x, matrix, bias) if other is None else other(x, matrix, bias, "none", [], "")
        return found
    weight, bias = weight.contiguous(), None if bias is None else bias.contiguous()
    panels = x.new_empty(kernels.densevit_panels(depth, width))
    kernels.densevit_pack(weight.data_ptr(), depth, width, turned, panels.data_ptr())
    out = x.new_empty(*x.shape[:-1], width)

    def some(first: int, last: int) -> None:
        start, end = first * _TALL, min(last * _TALL, count)
        kernels.densevit_product(
            *(x.data_ptr() + 4 * start * depth, end - start, depth, panels.data_ptr()),
            *(None if bias is None else bias.data_ptr(), out.data_ptr() + 4 * start * width, width),
        )

    spread(some, -(-count // _TALL))
    return out


def weight_gradients(g: Tensor, x: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Of a linear layer's weight and bias, those that are needed: dense g (..., out) and its input x (..., in)."""
    outs, ins = g.shape[-1], x.shape[-1]
    rows = g.flatten(0, -2)
    kernels = load() if needs[0] and ins % _LANES == 0 else None
    if kernels is None:
        weight = rows.t() @ x.flatten(0, -2) if needs[0] else None
        return weight, rows.new_ones(len(rows)) @ rows if needs[1] else None
    weight, bias = g.new_empty(outs, ins), g.new_empty(outs)

    def some(first: int, last: int) -> None:
        kernels.densevit_weight_gradient(
            *(g.data_ptr(), x.data_ptr(), len(rows), outs, ins, first * _TALL, min(last * _TALL, outs)),
            *(weight.data_ptr(), bias.data_ptr()),
        )

    spread(some, -(-outs // _TALL))
    return weight, bias if needs[1] else None


def gelu_gradient(x: Tensor, g: Tensor) -> Tensor:
    """GELU of dense x, and its gradient, g times the derivative at x, in place of g."""
    kernels = load() if x.numel() % _LANES == 0 else None
    if kernels is None:
        torch.ops.aten.gelu_backward.grad_input(g, x, grad_input=g)
        return F.gelu(x)
    values = torch.empty_like(x)

    def some(first: int, last: int) -> None:
        start, size = 4 * _LANES * first, _LANES * (last - first)
        kernels.densevit_gelu_gradient(x.data_ptr() + start, g.data_ptr() + start, size, values.data_ptr() + start)

    spread(some, x.numel() // _LANES)
    return values


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be had or do not suit."""
    if onednn_product() is None:
        return None
    found = build.library(Path(__file__).with_name("linear_training.c"), "linear layers in training run in torch")
    if found is None:
        return None
    pointer, long = ctypes.c_void_p, ctypes.c_int64
    found.densevit_panels.restype, found.densevit_panels.argtypes = long, [long, long]
    found.densevit_pack.restype, found.densevit_pack.argtypes = None, [pointer, long, long, ctypes.c_int, pointer]
    found.densevit_product.restype = None
    found.densevit_product.argtypes = [pointer, long, long, pointer, pointer, pointer, long]
    found.densevit_weight_gradient.restype = None
    found.densevit_weight_gradient.argtypes = [pointer, pointer, *[long] * 5, pointer, pointer]
    found.densevit_gelu_gradient.restype = None
    found.densevit_gelu_gradient.argtypes = [pointer, pointer, long, pointer]
    return found
