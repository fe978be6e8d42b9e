"""Float32 self-attention with its gradients: C kernels where they apply, else torch's CPU flash attention.

Both take queries, keys and values as one linear layer produced them, and the kernels write the gradients where that
layer's backward pass reads them.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from densevit.kernels import attention
from densevit.kernels.build import FLOAT, INT, LONG, POINTER, Signatures, address, checked, countable, library


def forward(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Contiguous (B, T, 3 C) -> attention (B, T, C), and the log-sum-exp of each query that ``backward`` needs."""
    kernels = _kernels(qkv, num_heads)
    if kernels is None:
        out, log_sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*_qkv_heads(qkv, num_heads))
        return out.transpose(1, 2).flatten(2), log_sums
    kernel, _ = kernels
    batch, tokens, qkv_dim = qkv.shape
    dim = qkv_dim // 3
    checked(qkv, torch.float32, batch, tokens, 3 * dim)
    head_dim = dim // num_heads
    out = qkv.new_empty(batch, tokens, dim)
    log_sums = qkv.new_empty(batch, num_heads, tokens)

    def run_head(b: int, h: int, scratch: int) -> None:
        channel = h * head_dim
        q, k, v = _qkv_addresses(qkv, b, channel)
        kernel.densevit_attention(
            *(q, qkv_dim, k, qkv_dim, v, qkv_dim, tokens, head_dim, head_dim**-0.5),
            *(address(out, b, 0, channel), dim, address(log_sums, b, h), scratch),
        )

    attention.for_each_head(run_head, batch, num_heads, kernel.densevit_attention_scratch(tokens, head_dim))
    return out, log_sums


def backward(g: Tensor, qkv: Tensor, out: Tensor, log_sums: Tensor, num_heads: int) -> Tensor:
    """Gradient (B, T, C) of the output -> gradient (B, T, 3 C) of queries, keys and values; all contiguous."""
    kernels = _kernels(qkv, num_heads)
    d_qkv = torch.empty_like(qkv)
    if kernels is None:
        gradients = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            _heads(g, num_heads), *_qkv_heads(qkv, num_heads), _heads(out, num_heads), log_sums, 0.0, False
        )
        for view, gradient in zip(_qkv_heads(d_qkv, num_heads), gradients, strict=True):
            view.copy_(gradient)
        return d_qkv
    _, kernel = kernels
    batch, tokens, dim = g.shape
    head_dim, qkv_dim = dim // num_heads, 3 * dim
    for x, channels in ((g, dim), (qkv, qkv_dim), (out, dim), (d_qkv, qkv_dim)):
        checked(x, torch.float32, batch, tokens, channels)
    checked(log_sums, torch.float32, batch, num_heads, tokens)

    def run_head(b: int, h: int, scratch: int) -> None:
        channel = h * head_dim
        q, k, v = _qkv_addresses(qkv, b, channel)
        kernel.densevit_attention_backward(
            *(q, qkv_dim, k, qkv_dim, v, qkv_dim, address(out, b, 0, channel), dim, address(g, b, 0, channel), dim),
            *(address(log_sums, b, h), tokens, head_dim, head_dim**-0.5),
            *(*_qkv_addresses(d_qkv, b, channel), qkv_dim, scratch),
        )

    attention.for_each_head(run_head, batch, num_heads, kernel.densevit_attention_backward_scratch(tokens, head_dim))
    return d_qkv


def _kernels(qkv: Tensor, num_heads: int) -> tuple[ctypes.CDLL, ctypes.CDLL] | None:
    """``load`` for these sizes, if heads divide the channels and nothing is empty."""
    head_dim, rest = divmod(qkv.shape[2], 3 * num_heads)
    return None if rest or not countable(qkv) else load(head_dim)


@cache
def load(head_dim: int) -> tuple[ctypes.CDLL, ctypes.CDLL] | None:
    """The compiled forward and backward kernels for a head dimension, or None if they do not apply."""
    forward_kernel = attention.load() if head_dim in attention.HEAD_DIMS else None
    if forward_kernel is None:
        return None
    signatures: Signatures = {
        "densevit_attention_backward_scratch": (LONG, [LONG, LONG]),
        "densevit_attention_backward": (
            None,
            [*[POINTER, LONG] * 5, POINTER, INT, INT, FLOAT, *[POINTER] * 3, LONG, POINTER],
        ),
    }
    source = Path(__file__).with_name("attention_backward.c")
    backward_kernel = library(source, "attention in training runs in torch", signatures)
    return None if backward_kernel is None else (forward_kernel, backward_kernel)


def _qkv_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, ...]:
    """(B, T, 3 C) -> three views (B, heads, T, C / heads)."""
    return qkv.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, C) -> a view (B, heads, T, C / heads)."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def _qkv_addresses(qkv: Tensor, b: int, channel: int) -> tuple[int, int, int]:
    """Addresses of a channel of queries, keys and values, at an image's first token."""
    dim = qkv.shape[2] // 3
    return address(qkv, b, 0, channel), address(qkv, b, 0, dim + channel), address(qkv, b, 0, 2 * dim + channel)
