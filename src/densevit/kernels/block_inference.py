"""The two residual branches of a transformer block for inference on the CPU, in the fewest passes; see ADR 0023.

Activation, LayerScale and the residual sum are done by the products' kernel. What only the branch itself reads is in
memory that all blocks share: fresh pages cost a small ViT a tenth of its time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from densevit.kernels import product
from densevit.kernels.activations import Activation
from densevit.kernels.buffers import buffer
from densevit.kernels.dispatch import hooked, use_kernel
from densevit.kernels.linear import Linear


def can_fuse(x: Tensor, *layers: nn.Module) -> bool:
    """Whether a branch of these layers may run as one on x (B, T, C).

    Layers of other classes (adapters, quantised layers), hooks, gradients, autocast and compilers need it in steps.
    """
    if not use_kernel(x) or not product.applies(x) or torch.nn.modules.module._has_any_global_hook():
        return False
    for layer in layers:
        if type(layer) not in (Linear, nn.LayerNorm) or hooked(layer):
            return False
        if any(type(p) is not nn.Parameter or not use_kernel(p) for p in layer.parameters()):
            return False
    return all(not isinstance(layer, nn.LayerNorm) or layer.bias is not None for layer in layers)


def attention_branch(
    x: Tensor, norm: nn.LayerNorm, qkv: Linear, mix: Callable[[Tensor], Tensor], proj: Linear, gamma: Tensor | None
) -> Tensor:
    """x + gamma * proj(mix(qkv(norm(x)))), for (B, T, C); ``mix`` may not return or keep a view of its argument."""
    y = product.layer_norm(x, norm, buffer("norm", *x.shape))
    together = _linear(y, qkv, out=buffer("queries, keys and values", *x.shape[:-1], qkv.out_features))
    return _linear(mix(together), proj, gamma=gamma, residual=x)


def mlp_branch(
    x: Tensor,
    norm: nn.LayerNorm,
    fc1: Linear,
    activation: Activation,
    fc2: Linear,
    gamma: Tensor | None,
    *,
    in_place: bool,
) -> Tensor:
    """x + gamma * fc2(activation(fc1(norm(x)))), for (B, T, C); ``in_place`` if nobody else has x."""
    y = product.layer_norm(x, norm, buffer("norm", *x.shape))
    hidden = _linear(y, fc1, activation=activation, out=buffer("hidden", *x.shape[:-1], fc1.out_features))
    return _linear(hidden, fc2, gamma=gamma, residual=x, out=x if in_place and x.is_contiguous() else None)


def _linear(
    x: Tensor | None,
    layer: Linear,
    *,
    activation: Activation | None = None,
    gamma: Tensor | None = None,
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    assert x is not None  # can_fuse has asked
    result = product.linear(x, layer.weight, layer.bias, activation=activation, gamma=gamma, residual=residual, out=out)
    assert result is not None
    return result
