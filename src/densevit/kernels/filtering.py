"""3x3 convolutions of float32 maps by minimal filtering in one pass: the C kernel of ``filtering.c``; see ADR 0023."""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.kernels.build import INT, LONG, POINTER, Signatures, address, checked, countable, library
from densevit.kernels.threads import parallel_for

_SIDE = 4
"""Side of an output tile."""
_TILES = 48
"""Tiles that are computed together; threads take whole blocks."""

# A torch operator, so that profilers and FLOP counters see it.
_OPERATORS = torch.library.Library("densevit", "FRAGMENT")
_OPERATORS.define(
    "filter(Tensor x, Tensor panels, Tensor? bias, Tensor? residual, int outputs, bool inner_rows, bool relu_first, "
    "bool relu) -> Tensor"
)


def evaluate(weight: Tensor, points: Tensor) -> Tensor | None:
    """Weights (O, C, 3, 3) at all points, as ``convolve`` takes them; None where the kernel does not apply.

    Args:
        weight: float32.
        points: (6, 3), the values of a row of three weights at six points.
    """
    kernel = load() if countable(weight) else None
    if kernel is None:
        return None
    outputs, channels = weight.shape[:2]
    by_position = checked(weight.permute(2, 3, 1, 0).contiguous(), torch.float32, 3, 3, channels, outputs)
    points = checked(points.contiguous(), torch.float32, 6, 3)
    panels = torch.empty(kernel.densevit_filter_panels(channels, outputs), dtype=torch.float32)
    kernel.densevit_filter_evaluate(by_position.data_ptr(), channels, outputs, points.data_ptr(), panels.data_ptr())
    return panels


def convolve(
    x: Tensor,
    panels: Tensor,
    bias: Tensor | None,
    *,
    outputs: int,
    inner_rows: bool = False,
    relu_first: bool = False,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """relu(convolution(relu(x)) + residual), each where asked for: (B, C, h, w) -> (B, O, h, w), channels last.

    ``inner_rows`` omits the first and the last row.
    """
    out: Tensor = torch.ops.densevit.filter(x, panels, bias, residual, outputs, inner_rows, relu_first, relu)
    return out


def _filter(
    x: Tensor,
    panels: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    outputs: int,
    inner_rows: bool,
    relu_first: bool,
    relu: bool,
) -> Tensor:
    kernel = load()
    if kernel is None or x.ndim != 4 or not countable(x):  # anyone may call a torch operator
        raise ShapeError(f"a convolution of {tuple(x.shape)} has no kernel here")
    batch, channels, height, width = x.shape
    size = (height - 2 * inner_rows, width)
    maps = checked(x.resolve_neg().permute(0, 2, 3, 1).contiguous(), torch.float32, batch, height, width, channels)
    checked(panels, torch.float32, kernel.densevit_filter_panels(channels, outputs))
    bias = None if bias is None else checked(bias.contiguous(), torch.float32, outputs)
    out = torch.empty(batch, *size, outputs, dtype=torch.float32)
    if residual is not None:
        residual = checked(residual.resolve_neg().permute(0, 2, 3, 1).contiguous(), torch.float32, *out.shape)
    tiles = -(-size[0] // _SIDE) * -(-size[1] // _SIDE)
    blocks = -(-tiles // _TILES)

    def run(start: int, stop: int) -> None:
        scratch = torch.empty(kernel.densevit_filter_scratch(channels), dtype=torch.float32)
        for index in range(batch):
            kernel.densevit_filter(
                *(address(maps, index), height, width, channels, 0 if inner_rows else -1, relu_first, relu),
                *(panels.data_ptr(), outputs, None if bias is None else bias.data_ptr()),
                *(None if residual is None else address(residual, index), address(out, index), *size),
                *(start * _TILES, min(stop * _TILES, tiles), scratch.data_ptr()),
            )

    parallel_for(run, blocks)
    return out.permute(0, 3, 1, 2)


_OPERATORS.impl("filter", _filter, "CPU")


def flops(
    x: Sequence[int], panels: Any, bias: Any, residual: Any, outputs: int, inner_rows: bool, *_: Any, **__: Any
) -> int:
    """Floating-point operations of the products, from the shape of the input: 36 multiply-adds for a tile."""
    batch, channels, height, width = x
    tiles = -(-(height - 2 * inner_rows) // _SIDE) * -(-width // _SIDE)
    return 2 * 36 * batch * tiles * channels * outputs


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built or the processor lacks AVX-512."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    signatures: Signatures = {
        "densevit_filter_scratch": (LONG, [LONG]),
        "densevit_filter_panels": (LONG, [LONG, LONG]),
        "densevit_filter_evaluate": (None, [POINTER, LONG, LONG, POINTER, POINTER]),
        "densevit_filter": (
            None,
            [POINTER, *[LONG] * 4, INT, INT, POINTER, LONG, *[POINTER] * 3, *[LONG] * 4, POINTER],
        ),
    }
    return library(Path(__file__).with_name("filtering.c"), "wide convolutions run in torch, more slowly", signatures)
