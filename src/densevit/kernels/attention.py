"""Float32 self-attention for inference on processors with AVX-512: the C kernel of ``attention.c``.

Torch's attention reaches two thirds of the rate of a matrix product there; see ADR 0011.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.kernels.build import FLOAT, INT, LONG, POINTER, Signatures, address, checked, countable, library
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.threads import parallel_for

HEAD_DIMS = (16, 32, 48, 64)
"""Head dimensions that the kernel supports."""

# Registered as a torch operator so that profilers and FLOP counters see it.
_OPERATORS = torch.library.Library("densevit", "DEF")
_OPERATORS.define("attention(Tensor q, Tensor k, Tensor v) -> Tensor")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Queries, keys and values (B, heads, T, D) -> softmax(q k' / sqrt(D)) v as (B, T, heads * D).

    None where the kernel does not apply; the caller then uses torch's operator.
    """
    if not use_kernel(q, k, v) or not _fits(q, k, v) or load() is None:
        return None
    mixed: Tensor = torch.ops.densevit.attention(q, k, v)
    return mixed


def _fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are (B, heads, T, D) of one shape that the kernel takes."""
    one_shape = q.ndim == 4 and q.shape == k.shape == v.shape
    return one_shape and q.shape[-1] in HEAD_DIMS and countable(q) and not any(x.is_neg() for x in (q, k, v))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    kernel = load()
    if kernel is None or not _fits(q, k, v):  # anyone may call a torch operator
        raise ShapeError(f"attention of {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)} has no kernel here")
    batch, num_heads, tokens, head_dim = q.shape
    inputs = [x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v)]
    for x in inputs:
        checked(x, torch.float32, *q.shape, contiguous=False)
    out = torch.empty(batch, tokens, num_heads * head_dim, dtype=torch.float32, device=q.device)
    scratch_floats = kernel.densevit_attention_scratch(tokens, head_dim)

    def run_heads(start: int, stop: int) -> None:
        scratch = torch.empty(scratch_floats, dtype=torch.float32, device=q.device)
        for index in range(start, stop):
            b, h = divmod(index, num_heads)
            pointers_and_strides: list[int] = []
            for x in inputs:
                pointers_and_strides += (address(x, b, h), x.stride(2))
            result = address(out, b, 0, h * head_dim)
            kernel.densevit_attention(
                *pointers_and_strides,
                *(tokens, head_dim, head_dim**-0.5, result, out.stride(1), None, scratch.data_ptr()),
            )

    parallel_for(run_heads, batch * num_heads)
    return out


_OPERATORS.impl("attention", _attention, "CPU")


def flops(q: Sequence[int], k: Sequence[int], v: Sequence[int]) -> int:
    """Floating-point operations of both products, from the shapes of queries, keys and values."""
    batch, num_heads, tokens, head_dim = q
    return 2 * batch * num_heads * tokens * k[-2] * (head_dim + v[-1])


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built or the processor lacks AVX-512."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    signatures: Signatures = {
        "densevit_attention_scratch": (LONG, [LONG, LONG]),
        "densevit_attention": (None, [*[POINTER, LONG] * 3, INT, INT, FLOAT, POINTER, LONG, POINTER, POINTER]),
    }
    return library(Path(__file__).with_name("attention.c"), "attention runs in torch", signatures)
