"""Float32 linear layers with what precedes and follows them, and LayerNorm: the C kernels of ``product.c``.

They are for inference on processors for which MKL, torch's choice, has no AVX-512 code; see ADR 0023.
"""

import ctypes
import math
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from densevit.errors import ShapeError
from densevit.kernels.activations import Activation
from densevit.kernels.build import (
    FLOAT,
    INT,
    LONG,
    MAX_SIZE,
    POINTER,
    Signatures,
    address,
    checked,
    countable,
    library,
    rows_of,
)
from densevit.kernels.dispatch import mkl_is_slow, use_kernel
from densevit.kernels.threads import parallel_for

_CODES: dict[Activation | None, int] = {None: 0, "gelu": 1, "gelu_tanh": 2, "quick_gelu": 3, "relu": 4}
"""The numbers by which ``product.c`` knows the activations."""
_TILE_ROWS = 6
_PANEL = 64
"""Columns that are packed together."""
_FEW_ROWS = 24
"""Below, packing the weight would take too large a share of the time."""

# A torch operator, so that profilers and FLOP counters see it.
_OPERATORS = torch.library.Library("densevit", "FRAGMENT")
_OPERATORS.define(
    "linear(Tensor x, Tensor weight, Tensor? bias, int activation, Tensor? gamma, Tensor? residual, "
    "Tensor(a!) out) -> ()"
)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    activation: Activation | None = None,
    gamma: Tensor | None = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor | None:
    """activation(x weight' + bias) * gamma + residual; None where the kernel does not apply.

    Args:
        x: (..., I), any strides.
        weight: (O, I).
        bias: (O,).
        activation: none by default.
        gamma: (O,), a factor per channel.
        residual: (..., O).
        out: contiguous (..., O) for the result; it may be the residual, but not x.
    """
    given = [t for t in (x, weight, bias, gamma, residual, out) if t is not None]
    if not use_kernel(*given) or not applies(x) or not countable(weight) or any(t.is_neg() for t in given):
        return None
    out = x.new_empty(*x.shape[:-1], len(weight)) if out is None else out
    torch.ops.densevit.linear(x, weight, bias, _CODES[activation], gamma, residual, out)
    return out


def applies(x: Tensor) -> bool:
    """Whether the kernels run here, and x (..., I) has enough rows for them."""
    return countable(x) and _FEW_ROWS <= math.prod(x.shape[:-1]) <= MAX_SIZE and load() is not None


def _linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: int,
    gamma: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
) -> None:
    kernel = load()
    if kernel is None or weight.ndim != 2 or not countable(x, weight):  # anyone may call a torch operator
        raise ShapeError(f"a linear layer of {tuple(x.shape)} and {tuple(weight.shape)} has no kernel here")
    width, depth = weight.shape
    x = rows_of(x, depth)
    weight = checked(weight.contiguous(), torch.float32, width, depth)
    bias, gamma = (None if t is None else checked(t.contiguous(), torch.float32, width) for t in (bias, gamma))
    results = checked(out, torch.float32, *out.shape).view(-1, width)
    residual = None if residual is None else rows_of(residual, width)
    for rows in (results, results if residual is None else residual):
        checked(rows, torch.float32, len(x), width, contiguous=False)
    pointers = [None if t is None else t.data_ptr() for t in (bias, gamma, residual)]
    panels, tiles, threads = -(-width // _PANEL), -(-len(x) // _TILE_ROWS), torch.get_num_threads()
    by_columns = panels % threads == 0 or panels >= 8 * threads  # else by rows, for equal shares

    def run(start: int, stop: int) -> None:
        scratch = torch.empty(kernel.densevit_product_scratch(), dtype=torch.float32)
        rows = (0, len(x)) if by_columns else (start * _TILE_ROWS, min(stop * _TILE_ROWS, len(x)))
        columns = (start * _PANEL, min(stop * _PANEL, width)) if by_columns else (0, width)
        kernel.densevit_product(
            *(x.data_ptr(), x.stride(0), weight.data_ptr(), depth, width, 1, pointers[0], activation, pointers[1]),
            *(pointers[2], 0 if residual is None else residual.stride(0), results.data_ptr(), width),
            *(*rows, *columns, scratch.data_ptr()),
        )

    parallel_for(run, panels if by_columns else tiles)


_OPERATORS.impl("linear", _linear, "CPU")


def layer_norm(x: Tensor, norm: nn.LayerNorm, out: Tensor) -> Tensor | None:
    """LayerNorm over the last axis of x (..., C) into contiguous ``out``; None where the kernel does not apply."""
    kernel = load() if use_kernel(x, out, *norm.parameters()) and countable(x) else None
    if kernel is None or norm.weight is None or norm.bias is None or x.is_neg():
        return None
    width = x.shape[-1]
    rows = rows_of(x, width)
    gain, shift = (checked(p.contiguous(), torch.float32, width) for p in (norm.weight, norm.bias))
    checked(out, torch.float32, *x.shape)

    def run(start: int, stop: int) -> None:
        kernel.densevit_layer_norm(
            *(address(rows, start), rows.stride(0), stop - start, width),
            *(gain.data_ptr(), shift.data_ptr(), norm.eps, out.data_ptr() + out.element_size() * start * width),
        )

    parallel_for(run, len(rows))
    return out


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernels, or None if they cannot be built, or MKL is as fast."""
    if not mkl_is_slow():
        return None
    signatures: Signatures = {
        "densevit_product_scratch": (LONG, []),
        "densevit_product": (
            None,
            [
                *(POINTER, LONG, POINTER, LONG, LONG, INT, POINTER, INT, POINTER),
                *(POINTER, LONG, POINTER, *[LONG] * 5, POINTER),
            ],
        ),
        "densevit_layer_norm": (None, [POINTER, *[LONG] * 3, POINTER, POINTER, FLOAT, POINTER]),
    }
    return library(Path(__file__).with_name("product.c"), "linear layers run in torch", signatures)
