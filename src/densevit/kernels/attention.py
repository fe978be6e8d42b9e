"""Self-attention in float32 on processors with AVX-512: the C kernel of ``attention.c``, where there is a compiler.

Torch's own form runs at two thirds of the rate of a matrix product there; see ADR 0011.
"""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.kernels import build
from densevit.kernels.dispatch import use_kernel

WIDTHS = (16, 32, 48, 64)
"""Of a head."""

_LIBRARY = torch.library.Library("densevit", "DEF")  # an operator of torch, so that profilers and FLOP counters see it
_LIBRARY.define("attention(Tensor q, Tensor k, Tensor v) -> Tensor")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor | None:
    """Queries, keys and values (B, heads, T, D) -> softmax(q k' / sqrt(D)) v as (B, T, heads * D).

    None where the kernel does not suit: then the caller takes torch's form.
    """
    if not use_kernel(q, k, v) or q.shape[-1] not in WIDTHS or not q.numel() or load() is None:
        return None
    found: Tensor = torch.ops.densevit.attention(q, k, v)
    return found


def _run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    library = load()
    assert library is not None
    batch, heads, tokens, width = q.shape
    inputs = [x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v)]
    out = torch.empty(batch, tokens, heads * width, dtype=torch.float32, device=q.device)
    scratch_floats = library.densevit_attention_scratch(tokens, width)

    def some(first: int, last: int) -> None:
        """Heads of the whole batch from the first to the last."""
        scratch = torch.empty(scratch_floats, dtype=torch.float32, device=q.device)
        for index in range(first, last):
            b, h = divmod(index, heads)
            at = [_at(x, b * x.stride(0) + h * x.stride(1)) for x in inputs]
            tokens_apart = [x.stride(2) for x in inputs]
            pairs = (fact for pair in zip(at, tokens_apart, strict=True) for fact in pair)
            place = _at(out, b * out.stride(0) + h * width)
            library.densevit_attention(*pairs, tokens, width, width**-0.5, place, out.stride(1), None, _at(scratch, 0))

    threads = min(torch.get_num_threads(), batch * heads)
    if threads == 1:
        some(0, batch * heads)
        return out
    bounds = [batch * heads * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        list(pool.map(some, bounds[:-1], bounds[1:]))
    return out


_LIBRARY.impl("attention", _run, "CPU")


def flops(q: Sequence[int], k: Sequence[int], v: Sequence[int]) -> int:
    """Operations of both products, from the shapes of queries, keys and values."""
    batch, heads, tokens, width = q
    return 2 * batch * heads * tokens * k[-2] * (width + v[-1])


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had or does not pay."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    library = build.library(Path(__file__).with_name("attention.c"), "attention runs in torch")
    if library is not None:
        pointer, long, integer, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_float
        library.densevit_attention_scratch.restype = long
        library.densevit_attention_scratch.argtypes = [long, long]
        arguments: list[Any] = [*[pointer, long] * 3, integer, integer, real, pointer, long, pointer, pointer]
        library.densevit_attention.restype, library.densevit_attention.argtypes = None, arguments
    return library


def _at(tensor: Tensor, offset: int) -> int:
    return tensor.data_ptr() + offset * tensor.element_size()
