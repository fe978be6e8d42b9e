"""Float32 linear layers and GELU in training, forward and backward: C kernels where they apply, else torch.

The kernels are for processors for which MKL, torch's choice, has no AVX-512 code; see ADR 0012.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels.build import INT, LONG, POINTER, Signatures, checked, countable, library
from densevit.kernels.linear import onednn_product
from densevit.kernels.threads import parallel_for

_FLOAT_BYTES = 4
_LANES = 16
"""Floats of a vector."""
_TILE_ROWS = 6
"""Rows that the kernels compute together; threads take whole tiles."""
_FEW_ROWS = 256
"""Below, packing the weight would take too large a share of the time."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None, *, transposed: bool = True) -> Tensor:
    """Contiguous x (..., in) times a weight (out, in), or (in, out) if not ``transposed``, plus bias -> (..., out)."""
    depth, width = weight.shape[::-1] if transposed else weight.shape
    rows = x.numel() // depth if depth else 0
    kernels = load() if width % _LANES == 0 and rows >= _FEW_ROWS and countable(weight) else None
    if kernels is None:
        onednn, matrix = onednn_product(), weight if transposed else weight.t()
        if onednn is None or not x.numel():
            return F.linear(x, matrix, bias)
        result: Tensor = onednn(x, matrix, bias, "none", [], "")
        return result
    weight = weight.contiguous()
    bias = None if bias is None else checked(bias.contiguous(), torch.float32, width)
    checked(x, torch.float32, *x.shape[:-1], depth)
    checked(weight, torch.float32, *((width, depth) if transposed else (depth, width)))
    panels = x.new_empty(kernels.densevit_panels(depth, width))
    kernels.densevit_pack(weight.data_ptr(), depth, width, transposed, panels.data_ptr())
    out = x.new_empty(*x.shape[:-1], width)

    def run_tiles(start: int, stop: int) -> None:
        first, last = start * _TILE_ROWS, min(stop * _TILE_ROWS, rows)
        kernels.densevit_product(
            *(x.data_ptr() + _FLOAT_BYTES * first * depth, last - first, depth, panels.data_ptr()),
            *(None if bias is None else bias.data_ptr(), out.data_ptr() + _FLOAT_BYTES * first * width, width),
        )

    parallel_for(run_tiles, -(-rows // _TILE_ROWS))
    return out


def weight_gradients(g: Tensor, x: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a linear layer's weight and bias where needed, from contiguous g (..., out) and x (..., in)."""
    width, depth = g.shape[-1], x.shape[-1]
    rows = g.flatten(0, -2)
    kernels = load() if needs[0] and depth % _LANES == 0 and countable(g, x) else None
    if kernels is None:
        d_weight = rows.t() @ x.flatten(0, -2) if needs[0] else None
        return d_weight, rows.new_ones(len(rows)) @ rows if needs[1] else None
    checked(g, torch.float32, *x.shape[:-1], width)
    checked(x, torch.float32, *x.shape)
    d_weight, d_bias = g.new_empty(width, depth), g.new_empty(width)

    def run_tiles(start: int, stop: int) -> None:
        kernels.densevit_weight_gradient(
            *(g.data_ptr(), x.data_ptr(), len(rows), width, depth, start * _TILE_ROWS, min(stop * _TILE_ROWS, width)),
            *(d_weight.data_ptr(), d_bias.data_ptr()),
        )

    parallel_for(run_tiles, -(-width // _TILE_ROWS))
    return d_weight, d_bias if needs[1] else None


def gelu_gradient(x: Tensor, g: Tensor) -> Tensor:
    """GELU of a contiguous x; g is multiplied in place by the derivative at x."""
    kernels = load() if x.numel() % _LANES == 0 else None
    if kernels is None:
        torch.ops.aten.gelu_backward.grad_input(g, x, grad_input=g)
        return F.gelu(x)
    values = torch.empty_like(checked(x, torch.float32, *x.shape))
    checked(g, torch.float32, *x.shape)

    def run_vectors(start: int, stop: int) -> None:
        offset, count = _FLOAT_BYTES * _LANES * start, _LANES * (stop - start)
        kernels.densevit_gelu_gradient(x.data_ptr() + offset, g.data_ptr() + offset, count, values.data_ptr() + offset)

    parallel_for(run_vectors, x.numel() // _LANES)
    return values


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernels, or None if they do not apply."""
    if onednn_product() is None:
        return None
    signatures: Signatures = {
        "densevit_panels": (LONG, [LONG, LONG]),
        "densevit_pack": (None, [POINTER, LONG, LONG, INT, POINTER]),
        "densevit_product": (None, [POINTER, LONG, LONG, POINTER, POINTER, POINTER, LONG]),
        "densevit_weight_gradient": (None, [POINTER, POINTER, *[LONG] * 5, POINTER, POINTER]),
        "densevit_gelu_gradient": (None, [POINTER, POINTER, LONG, POINTER]),
    }
    return library(Path(__file__).with_name("linear.c"), "linear layers in training run in torch", signatures)
