"""Self-attention for inference with products of fewer bits: the C kernel of ``mixed_attention.c``.

Weights and values are bfloat16. Queries and keys are bfloat16 too, or 8-bit integers, which is faster and less exact.
On a ViT's queries, keys and values results are off by 0.1 to 0.2 % with bfloat16 and by 0.2 to 0.5 % with integers.
"""

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.errors import ShapeError
from densevit.kernels import attention
from densevit.kernels.build import FLOAT, INT, LONG, POINTER, Signatures, library
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.int8.processor import has_vnni

QueryKeyType = Literal["int8", "bfloat16"]
"""The type of queries and keys in their product."""

HEAD_DIMS = tuple(range(16, 129, 16))
"""Head dimensions that the kernel supports."""

_LOG2_E = math.log2(math.e)
_CALM, _CALM_VALUE = 64.0, 1e10
"""Where logits cannot exceed the one, in powers of two, nor values the other, no maximum is subtracted."""
_TILE_ROWS = 6
_SMALLEST = 1e-30
"""Rows of queries or keys that are closer to zero become zero integers."""

# Registered as a torch operator so that profilers and FLOP counters see it.
_OPERATORS = torch.library.Library("densevit", "FRAGMENT")
_OPERATORS.define("mixed_attention(Tensor q, Tensor k, Tensor v, str qk) -> Tensor")


def attend_mixed(q: Tensor, k: Tensor, v: Tensor, qk: QueryKeyType = "int8") -> Tensor | None:
    """Queries, keys and values (B, heads, T, D) -> softmax(q k' / sqrt(D)) v as (B, T, heads * D).

    None where the kernel does not apply; the caller then uses float32.
    """
    if not use_kernel(q, k, v) or not attention.fits(q, k, v, HEAD_DIMS) or load() is None:
        return None
    mixed: Tensor = torch.ops.densevit.mixed_attention(q, k, v, qk)
    return mixed


def attention_in_torch(q: Tensor, k: Tensor, v: Tensor, qk: QueryKeyType = "int8") -> Tensor:
    """The kernel's arithmetic in torch, slower than float32; shapes as for ``attend_mixed``."""
    factor = _LOG2_E * q.shape[-1] ** -0.5
    queries, keys = q, k if qk == "bfloat16" else k - k.mean(dim=-2, keepdim=True)
    longest = F.max_pool1d(queries.norm(dim=-1), _TILE_ROWS, ceil_mode=True)  # (B, heads, tiles)
    longest = longest.repeat_interleave(_TILE_ROWS, dim=-1)[..., : q.shape[-2], None]  # (B, heads, T, 1)
    largest = longest * keys.norm(dim=-1)[..., None].amax(dim=-2, keepdim=True) * factor
    calm = (largest <= _CALM) & (v.abs().amax(dim=(-2, -1), keepdim=True) <= _CALM_VALUE)
    if qk == "bfloat16":
        logits = _bfloat16(q * factor) @ _bfloat16(k).transpose(-1, -2)  # (B, heads, T, T)
    else:
        (q, q_scale), (k, k_scale) = _integers(queries), _integers(keys)
        logits = (q @ k.transpose(-1, -2)) * (q_scale * factor) * k_scale.transpose(-1, -2)
    maximum = torch.where(calm, 0.0, logits.amax(dim=-1, keepdim=True))
    weights = _bfloat16((logits - maximum).exp2())
    mixed = weights @ _bfloat16(v) / weights.sum(dim=-1, keepdim=True)  # (B, heads, T, D)
    return mixed.transpose(1, 2).flatten(2)


def _bfloat16(x: Tensor) -> Tensor:
    """Rounded to bfloat16, as float32."""
    return x.bfloat16().float()


def _integers(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (..., D) as integers from -127 to 127 and a scale (..., 1), which is NaN where a value is not finite."""
    scale = x.abs().amax(dim=-1, keepdim=True).clamp(min=_SMALLEST) / 127
    integers = (x / scale).round()
    return integers, scale + (x * 0).sum(dim=-1, keepdim=True)


def _attention(q: Tensor, k: Tensor, v: Tensor, qk: str) -> Tensor:
    kernel = load()
    known = qk in get_args(QueryKeyType)
    if kernel is None or not known or not attention.fits(q, k, v, HEAD_DIMS):  # anyone may call a torch operator
        shapes = f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        raise ShapeError(f"mixed attention of {shapes} with qk {qk!r} has no kernel here")
    tokens, head_dim = q.shape[-2:]

    def attend_head(inputs: list[int], out: int, out_stride: int, scratch: int) -> None:
        scale, integers = head_dim**-0.5, qk == "int8"
        kernel.densevit_mixed_attention(*inputs, tokens, head_dim, scale, integers, out, out_stride, scratch)

    scratch_floats = kernel.densevit_mixed_attention_scratch(tokens, head_dim)
    return attention.by_head(attend_head, q, k, v, scratch_floats=scratch_floats)


_OPERATORS.impl("mixed_attention", _attention, "CPU")


def flops(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of both products, from the shapes of queries, keys and values."""
    return attention.flops(q, k, v)


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built or the processor lacks its instructions."""
    if not has_vnni() or not torch.cpu._is_avx512_bf16_supported():
        return None
    signatures: Signatures = {
        "densevit_mixed_attention_scratch": (LONG, [LONG, LONG]),
        "densevit_mixed_attention": (
            None,
            [*[POINTER, LONG] * 3, INT, INT, FLOAT, INT, POINTER, LONG, POINTER],
        ),
    }
    return library(Path(__file__).with_name("mixed_attention.c"), "attention runs in float32", signatures)
