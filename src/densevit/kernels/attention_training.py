"""Self-attention with its gradients in float32: the C kernels where they suit, else torch's form for the CPU.

Both work on queries, keys and values as one linear layer gave them, and the kernels write the gradients where that
layer's backward pass reads them.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.kernels import attention, build
from densevit.kernels.threads import spread


def forward(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Dense queries, keys and values (B, T, 3 C) -> result (B, T, C), and what ``backward`` needs of the softmax."""
    kernels = load(qkv.shape[2] // (3 * num_heads))
    if kernels is None:
        out, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*_heads(qkv, num_heads))
        return out.transpose(1, 2).flatten(2), sums
    first, _ = kernels
    batch, tokens, three = qkv.shape
    dim = three // 3
    width = dim // num_heads
    out, sums = qkv.new_empty(batch, tokens, dim), qkv.new_empty(batch, num_heads, tokens)
    room = first.densevit_attention_scratch(tokens, width)

    def one(b: int, h: int, scratch: int) -> None:
        q = _at(qkv, b * tokens * three + h * width)
        first.densevit_attention(
            *(q, three, q + 4 * dim, three, q + 8 * dim, three, tokens, width, width**-0.5),
            *(_at(out, b * tokens * dim + h * width), dim, _at(sums, (b * num_heads + h) * tokens), scratch),
        )

    _each(one, batch, num_heads, room)
    return out, sums


def backward(g: Tensor, qkv: Tensor, out: Tensor, sums: Tensor, num_heads: int) -> Tensor:
    """Gradient (B, T, C) of the result -> that of queries, keys and values (B, T, 3 C); all dense."""
    kernels = load(qkv.shape[2] // (3 * num_heads))
    gradient = torch.empty_like(qkv)
    if kernels is None:
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            _split(g, num_heads), *_heads(qkv, num_heads), _split(out, num_heads), sums, 0.0, False
        )
        for part, values in zip(_heads(gradient, num_heads), found, strict=True):
            part.copy_(values)
        return gradient
    _, second = kernels
    batch, tokens, dim = g.shape
    width, three = dim // num_heads, 3 * dim
    room = second.densevit_attention_backward_scratch(tokens, width)

    def one(b: int, h: int, scratch: int) -> None:
        place, place3 = b * tokens * dim + h * width, b * tokens * three + h * width
        q, dq = _at(qkv, place3), _at(gradient, place3)
        second.densevit_attention_backward(
            *(q, three, q + 4 * dim, three, q + 8 * dim, three, _at(out, place), dim, _at(g, place), dim),
            *(_at(sums, (b * num_heads + h) * tokens), tokens, width, width**-0.5),
            *(dq, dq + 4 * dim, dq + 8 * dim, three, scratch),
        )

    _each(one, batch, num_heads, room)
    return gradient


def _each(one: Callable[[int, int, int], None], batch: int, num_heads: int, room: int) -> None:
    """Every head of the batch, spread over the threads, each with scratch memory of its own."""

    def some(first: int, last: int) -> None:
        scratch = torch.empty(room, dtype=torch.float32, device="cpu")
        for index in range(first, last):
            one(*divmod(index, num_heads), scratch.data_ptr())

    spread(some, batch * num_heads)


@cache
def load(width: int) -> tuple[ctypes.CDLL, ctypes.CDLL] | None:
    """The compiled kernels for heads of a width, or None where they cannot be had or do not suit."""
    first = attention.load() if width in attention.WIDTHS else None
    if first is None:
        return None
    second = build.library(Path(__file__).with_name("attention_backward.c"), "attention in training runs in torch")
    if second is None:
        return None
    pointer, long, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
    second.densevit_attention_backward_scratch.restype = long
    second.densevit_attention_backward_scratch.argtypes = [long, long]
    arguments: list[Any] = [*[pointer, long] * 5, pointer, integer, integer, real, *[pointer] * 3, long, pointer]
    second.densevit_attention_backward.restype, second.densevit_attention_backward.argtypes = None, arguments
    return first, second


def _heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """(B, T, 3 C) -> three views (B, heads, T, C / heads)."""
    return qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _split(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, C) -> a view (B, heads, T, C / heads)."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def _at(tensor: Tensor, offset: int) -> int:
    return tensor.data_ptr() + offset * tensor.element_size()
