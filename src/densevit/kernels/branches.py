"""The two branches of a transformer block in training on the CPU, each as one step of autograd.

Autograd keeps every tensor between two operators: 16 of the block's size (B, T, C). A branch as a whole keeps 10, and
makes the rest again where that costs little: what LayerNorm gave, and what GELU gave. It also copies less, since the
products read and write queries, keys and values where they lie. Same operators in float32, so results and gradients
change by rounding alone. See ADR 0012.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densevit.kernels import attention_training
from densevit.kernels.linear import Linear
from densevit.kernels.linear_training import gelu_gradient, product, weight_gradients

_PLAIN = (nn.Linear, Linear, nn.LayerNorm)


def suits(x: Tensor, *layers: nn.Module) -> bool:
    """Whether a branch of such layers may run as one step: float32 on the CPU, with gradients, and nothing special.

    Layers of other classes (adapters, quantised ones), hooks, autocast, compilers and torch.func take the usual way.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype != torch.float32 or x.device.type != "cpu" or not x.numel():
        return False
    if torch._C._are_functorch_transforms_active():
        return False
    for layer in layers:
        if type(layer) not in _PLAIN or hooked(layer):
            return False
        if any(type(p) is not nn.Parameter or p.dtype != torch.float32 for p in layer.parameters()):
            return False
    return x.requires_grad or any(p.requires_grad for layer in layers for p in layer.parameters())


def hooked(module: nn.Module) -> bool:
    """Whether somebody wants to know of, or change, what goes through a module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def attention_branch(x: Tensor, norm: nn.LayerNorm, qkv: nn.Linear, proj: nn.Linear, num_heads: int) -> Tensor:
    """proj(attention(qkv(norm(x)))), for (B, T, C)."""
    found: Tensor = _Attention.apply(
        x, norm.weight, norm.bias, qkv.weight, qkv.bias, proj.weight, proj.bias, norm.eps, num_heads
    )
    return found


def mlp_branch(x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """fc2(gelu(fc1(norm(x)))), for (B, T, C)."""
    found: Tensor = _Mlp.apply(x, norm.weight, norm.bias, fc1.weight, fc1.bias, fc2.weight, fc2.bias, norm.eps)
    return found


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
        mixed, sums = attention_training.forward(qkv, num_heads)  # (B, T, C)
        ctx.save_for_backward(x, mean, rstd, qkv, mixed, sums, norm_weight, norm_bias, qkv_weight, proj_weight)
        ctx.eps, ctx.num_heads = eps, num_heads
        return product(mixed, proj_weight, proj_bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, qkv, mixed, sums, norm_weight, norm_bias, qkv_weight, proj_weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        g = g.contiguous()
        proj = weight_gradients(g, mixed, needs[5:7])
        if not any(needs[:5]):
            return None, None, None, None, None, *proj, None, None
        back = product(g, proj_weight, None, turned=False)
        d_qkv = attention_training.backward(back, qkv, mixed, sums, ctx.num_heads)
        del back
        y = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps) if needs[3] else x
        weights = weight_gradients(d_qkv, y, needs[3:5])
        del y
        norm = _norm_gradients(
            product(d_qkv, qkv_weight, None, turned=False), x, mean, rstd, norm_weight, norm_bias, needs[:3]
        )
        return *norm, *weights, *proj, None, None


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
        back = product(g, weight2, None, turned=False)  # (B, T, hidden)
        second = weight_gradients(g, gelu_gradient(hidden, back), needs[5:7])
        if not any(needs[:5]):
            return None, None, None, None, None, *second, None
        y = F.layer_norm(x, x.shape[-1:], norm_weight, norm_bias, ctx.eps) if needs[3] else x
        first = weight_gradients(back, y, needs[3:5])
        norm = _norm_gradients(
            product(back, weight1, None, turned=False), x, mean, rstd, norm_weight, norm_bias, needs[:3]
        )
        return *norm, *first, *second, None


def _norm_gradients(
    g: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, bias: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    found: tuple[Tensor | None, ...] = torch.ops.aten.native_layer_norm_backward(
        g, x, x.shape[-1:], mean, rstd, weight, bias, list(needs)
    )
    return found
