"""The two residual branches of a transformer block as one autograd function each, for training on the CPU.

Operator by operator, autograd keeps 16 tensors of the block's size (B, T, C). These functions keep 10 and recompute the
cheap ones, the outputs of LayerNorm and GELU. They also copy less: the products read and write queries, keys and values
in place. The operators are the same, so results and gradients change only by rounding. See ADR 0012.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densevit.kernels.cpu_training import attention
from densevit.kernels.cpu_training.linear import gelu_gradient, product, weight_gradients
from densevit.kernels.dispatch import hooked, plain_float32
from densevit.kernels.linear import Linear

_FUSIBLE = (nn.Linear, Linear, nn.LayerNorm)


def can_fuse(x: Tensor, *layers: nn.Module) -> bool:
    """Whether a branch of these layers may run as one autograd function: plain float32 training on the CPU.

    Layers of other classes (adapters, quantised layers), hooks, autocast, compilers and torch.func run operator by
    operator.
    """
    if not torch.is_grad_enabled() or not plain_float32(x) or not x.numel():
        return False
    for layer in layers:
        if type(layer) not in _FUSIBLE or hooked(layer):
            return False
        if any(type(p) is not nn.Parameter or p.dtype != torch.float32 for p in layer.parameters()):
            return False
    return x.requires_grad or any(p.requires_grad for layer in layers for p in layer.parameters())


def attention_branch(x: Tensor, norm: nn.LayerNorm, qkv: nn.Linear, proj: nn.Linear, num_heads: int) -> Tensor:
    """proj(attention(qkv(norm(x)))), for (B, T, C)."""
    out: Tensor = _Attention.apply(
        x, norm.weight, norm.bias, qkv.weight, qkv.bias, proj.weight, proj.bias, norm.eps, num_heads
    )
    return out


def mlp_branch(x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """fc2(gelu(fc1(norm(x)))), for (B, T, C)."""
    out: Tensor = _Mlp.apply(x, norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, norm.eps)
    return out


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        qkv_weight: Tensor,
        qkv_bias: Tensor | None,
        proj_weight: Tensor,
        proj_bias: Tensor | None,
        eps: float,
        num_heads: int,
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
        qkv = product(y, qkv_weight, qkv_bias)  # (B, T, 3 C)
        mixed, log_sums = attention.forward(qkv, num_heads)  # (B, T, C)
        ctx.save_for_backward(x, mean, rstd, qkv, mixed, log_sums, norm_weight, norm_bias, qkv_weight, proj_weight)
        ctx.eps, ctx.num_heads = eps, num_heads
        return product(mixed, proj_weight, proj_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, qkv, mixed, log_sums, norm_weight, norm_bias, qkv_weight, proj_weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        g = g.contiguous()
        d_proj = weight_gradients(g, mixed, needs[5:7])
        if not any(needs[:5]):
            return None, None, None, None, None, *d_proj, None, None
        d_mixed = product(g, proj_weight, None, transposed=False)  # (B, T, C)
        d_qkv = attention.backward(d_mixed, qkv, mixed, log_sums, ctx.num_heads)
        del d_mixed
        y = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps) if needs[3] else x
        d_qkv_layer = weight_gradients(d_qkv, y, needs[3:5])
        del y
        d_y = product(d_qkv, qkv_weight, None, transposed=False)  # (B, T, C)
        d_norm = _norm_gradients(d_y, x, mean, rstd, norm_weight, norm_bias, needs[:3])
        return *d_norm, *d_qkv_layer, *d_proj, None, None


class _Mlp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
        eps: float,
    ) -> Tensor:
        y, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, eps)
        hidden = product(y, weight1, bias1)  # (B, T, hidden)
        ctx.save_for_backward(x, mean, rstd, hidden, norm_weight, norm_bias, weight1, weight2)
        ctx.eps = eps
        return product(F.gelu(hidden), weight2, bias2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, hidden, norm_weight, norm_bias, weight1, weight2 = ctx.saved_tensors
        needs = ctx.needs_input_grad
        g = g.contiguous()
        d_hidden = product(g, weight2, None, transposed=False)  # (B, T, hidden)
        d_fc2 = weight_gradients(g, gelu_gradient(hidden, d_hidden), needs[5:7])  # multiplies d_hidden in place
        if not any(needs[:5]):
            return None, None, None, None, None, *d_fc2, None
        y = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps) if needs[3] else x
        d_fc1 = weight_gradients(d_hidden, y, needs[3:5])
        d_y = product(d_hidden, weight1, None, transposed=False)  # (B, T, C)
        d_norm = _norm_gradients(d_y, x, mean, rstd, norm_weight, norm_bias, needs[:3])
        return *d_norm, *d_fc1, *d_fc2, None


def _norm_gradients(
    g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor | None, ...] = torch.ops.aten.native_layer_norm_backward(
        g, x, x.shape[-1:], mean, rstd, weight, bias, list(needs)
    )
    return gradients
