"""Float32 self-attention for inference on processors with AVX-512: the C kernel of ``attention.c``.

Torch's attention reaches two thirds of the rate of a matrix product there; see ADR 0011.
"""

import ctypes
from collections.abc import Callable, Collection, Sequence
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
    if not use_kernel(q, k, v) or not fits(q, k, v, HEAD_DIMS) or load() is None:
        return None
    mixed: Tensor = torch.ops.densevit.attention(q, k, v)
    return mixed


def fits(q: Tensor, k: Tensor, v: Tensor, head_dims: Collection[int]) -> bool:
    """Whether these are (B, heads, T, D) of one shape that a kernel with these D takes."""
    one_shape = q.ndim == 4 and q.shape == k.shape == v.shape
    return one_shape and q.shape[-1] in head_dims and countable(q) and not any(x.is_neg() for x in (q, k, v))


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    kernel = load()
    if kernel is None or not fits(q, k, v, HEAD_DIMS):  # anyone may call a torch operator
        raise ShapeError(f"attention of {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)} has no kernel here")
    tokens, head_dim = q.shape[-2:]

    def attend_head(inputs: list[int], out: int, out_stride: int, scratch: int) -> None:
        kernel.densevit_attention(*inputs, tokens, head_dim, head_dim**-0.5, out, out_stride, None, scratch)

    return by_head(attend_head, q, k, v, scratch_floats=kernel.densevit_attention_scratch(tokens, head_dim))


def by_head(run_head: Callable[[list[int], int, int, int], None], *inputs: Tensor, scratch_floats: int) -> Tensor:
    """Run a kernel head by head on queries, keys and values (B, heads, T, D): (B, T, heads * D).

    Args:
        run_head: takes pointers and row strides of the inputs, pointer and row stride of the output, and scratch.
        inputs: of one shape.
        scratch_floats: size of the scratch memory.
    """
    batch, num_heads, tokens, head_dim = inputs[0].shape
    rows = [x if x.stride(-1) == 1 else x.contiguous() for x in inputs]
    for x in rows:
        checked(x, torch.float32, batch, num_heads, tokens, head_dim, contiguous=False)
    out = torch.empty(batch, tokens, num_heads * head_dim, dtype=torch.float32, device=rows[0].device)

    def run(b: int, h: int, scratch: int) -> None:
        pointers_and_strides = [number for x in rows for number in (address(x, b, h), x.stride(2))]
        run_head(pointers_and_strides, address(out, b, 0, h * head_dim), out.stride(1), scratch)

    for_each_head(run, batch, num_heads, scratch_floats)
    return out


def for_each_head(run_head: Callable[[int, int, int], None], batch: int, num_heads: int, scratch_floats: int) -> None:
    """Run all heads of a batch in parallel; each thread has scratch memory of its own."""

    def run_heads(start: int, stop: int) -> None:
        scratch = torch.empty(scratch_floats, dtype=torch.float32, device="cpu")
        for index in range(start, stop):
            run_head(*divmod(index, num_heads), scratch.data_ptr())

    parallel_for(run_heads, batch * num_heads)


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
