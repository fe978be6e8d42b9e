"""Layers of the model as operators of a graph; each function writes what the forward of its class computes.

Batch norm is folded into the convolution before it, and LayerScale into the linear layer: both only round differently.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from densevit.blocks import ACTIVATIONS, Attention, Block, LayerScale, Mlp, Swiglu
from densevit.encoder.hybrid import StdConv
from densevit.errors import ConfigError
from densevit.export.builder import Graph, Value
from densevit.kernels.convolution import Conv2d
from densevit.kernels.linear import Linear
from densevit.layers import ConvBnRelu, ResidualUnit, StridedConv, fold


class GraphRotation(NamedTuple):
    """``densevit.blocks.Rotation``: sine and cosine (N, D), the number of tokens before those N, and which pairs."""

    sin: Value
    cos: Value
    num_prefix: int
    neighbours: bool


class Writer:
    """Writes modules of one model into a graph."""

    def __init__(self, graph: Graph, root: nn.Module) -> None:
        self.graph = graph
        self._names = {id(module): name for name, module in root.named_modules()}

    def tensor(self, module: nn.Module, name: str, tensor: Tensor) -> Value:
        """A tensor of a module."""
        return self.graph.weight(f"{self._names[id(module)]}.{name}", tensor)

    def linear(self, x: Value, layer: nn.Linear, scale: Tensor | None = None) -> Value:
        """(..., in) -> (..., out); ``scale`` (out,) multiplies the result."""
        self._check(layer, nn.Linear, Linear)
        weight: Tensor = layer.weight
        bias: Tensor | None = layer.bias
        if scale is not None:
            weight, bias = weight * scale[:, None], None if bias is None else bias * scale
        out = self.graph.op("MatMul", x, self.tensor(layer, "weight.T", weight.T), name=self._names[id(layer)])
        return out if bias is None else out + self.tensor(layer, "bias", bias)

    def _check(self, layer: nn.Module, *accepted: type[nn.Module]) -> None:
        """Refuse layers of other classes: adapters, quantised layers.

        Raises:
            ConfigError: naming the layer.
        """
        if type(layer) not in accepted:
            raise ConfigError(
                f"layer {self._names[id(layer)]} is a {type(layer).__name__}, which cannot be exported; merge "
                "adapters, and load the model with precision float32"
            )

    def layer_norm(self, x: Value, norm: nn.Module) -> Value:
        """Over the last axis; an identity is left out."""
        if isinstance(norm, nn.Identity):
            return x
        assert isinstance(norm, nn.LayerNorm)
        weight, bias = self.tensor(norm, "weight", norm.weight), self.tensor(norm, "bias", norm.bias)
        return self.graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)

    def conv(
        self,
        x: Value,
        conv: nn.Conv2d,
        norm: nn.Module | None = None,
        *,
        weight: Tensor | None = None,
        pads: Sequence[int] | None = None,
    ) -> Value:
        """A convolution, and the batch norm after it.

        Args:
            x: (B, C, h, w).
            conv: its weights, stride and padding.
            norm: batch norm or identity.
            weight: replaces the stored weight, where there is no norm.
            pads: top, left, bottom and right; those of the convolution by default.
        """
        self._check(conv, nn.Conv2d, Conv2d, StdConv, StridedConv)
        kernel, bias = (conv.weight, conv.bias) if norm is None else fold(conv, norm)
        kernel = kernel if weight is None else weight
        if pads is None:
            assert not isinstance(conv.padding, str)
            pads = [*conv.padding, *conv.padding]
        stored = self.tensor(conv, "bias", bias) if bias is not None else None
        return self.graph.op(
            "Conv",
            x,
            self.tensor(conv, "weight", kernel),
            stored,
            name=self._names[id(conv)],
            strides=list(conv.stride),
            pads=list(pads),
            kernel_shape=list(kernel.shape[2:]),
        )

    def conv_transpose(self, x: Value, conv: nn.ConvTranspose2d) -> Value:
        """A transposed convolution without padding."""
        weight = self.tensor(conv, "weight", conv.weight)
        bias = None if conv.bias is None else self.tensor(conv, "bias", conv.bias)
        return self.graph.op(
            "ConvTranspose",
            x,
            weight,
            bias,
            name=self._names[id(conv)],
            strides=list(conv.stride),
            kernel_shape=list(conv.kernel_size),
        )

    def conv_bn_relu(self, x: Value, module: nn.Module) -> Value:
        """``ConvBnRelu``."""
        assert isinstance(module, ConvBnRelu)
        conv, norm, _ = module
        assert isinstance(conv, nn.Conv2d)
        pads = (1, 1, 1, 1) if isinstance(conv, StridedConv) else None  # which pads by itself
        return self.graph.op("Relu", self.conv(x, conv, norm, pads=pads))

    def residual_unit(self, x: Value, unit: ResidualUnit) -> Value:
        """``ResidualUnit``."""
        y = self.conv(self.graph.op("Relu", x), unit.conv1, unit.bn1)
        return self.conv(self.graph.op("Relu", y), unit.conv2, unit.bn2) + x

    def group_norm(self, x: Value, norm: nn.GroupNorm) -> Value:
        """(B, C, h, w) -> the same; groups are normalised as the instances of a reshaped map."""
        groups, channels = norm.num_groups, norm.num_channels
        ones, zeros = (self.graph.constant(np.full(groups, fill, np.float32)) for fill in (1, 0))
        flat = self.graph.op("InstanceNormalization", x.reshape(0, groups, -1), ones, zeros, epsilon=norm.eps)
        y = self.graph.op("Reshape", flat, self.graph.op("Shape", x))
        weight = self.tensor(norm, "weight", norm.weight.view(channels, 1, 1))
        return y * weight + self.tensor(norm, "bias", norm.bias.view(channels, 1, 1))

    def normalised(self, x: Value) -> Value:
        """``F.normalize`` over the last axis."""
        length = self.graph.op("ReduceL2", x, self.graph.ints(-1), keepdims=1)
        return x / self.graph.op("Max", length, 1e-12)

    def activation(self, x: Value, function: object) -> Value:
        """One of the activations of a feed-forward layer."""
        g = self.graph
        if function is ACTIVATIONS["gelu"]:
            return g.op("Gelu", x)
        if function is ACTIVATIONS["gelu_tanh"]:
            return g.op("Gelu", x, approximate="tanh")
        if function is ACTIVATIONS["quick_gelu"]:
            return x * g.op("Sigmoid", x * 1.702)
        if function is ACTIVATIONS["relu"]:
            return g.op("Relu", x)
        raise ConfigError(f"activation {function!r} cannot be exported; use one of {', '.join(ACTIVATIONS)}")

    def block(self, x: Value, block: nn.Module, rotation: "GraphRotation | None" = None) -> Value:
        """A transformer block on (B, T, C)."""
        assert isinstance(block, Block)
        x = x + self.attention(self.layer_norm(x, block.norm1), block.attn, rotation, _gamma(block.ls1))
        return x + self.feed_forward(self.layer_norm(x, block.norm2), block.mlp, _gamma(block.ls2))

    def attention(self, x: Value, attn: Attention, rotation: "GraphRotation | None", scale: Tensor | None) -> Value:
        """Multi-head self-attention on (B, T, C)."""
        g = self.graph
        heads = attn.num_heads
        width = attn.proj.in_features // heads
        qkv = self.linear(x, attn.qkv).reshape(0, 0, 3, heads, width).transpose(2, 0, 3, 1, 4)
        q, k, v = (qkv.take(g.value(index), 0) for index in range(3))  # each (B, heads, T, C / heads)
        if rotation is not None:
            q, k = self._rotated(q, rotation), self._rotated(k, rotation)
        with g.scope(self._names[id(attn)]):
            logits = g.op("MatMul", q * float(width**-0.5), k.transpose(0, 1, 3, 2), name="scores")
            mixed = g.op("MatMul", g.op("Softmax", logits, axis=-1), v, name="mixed")
        joined = self.layer_norm(mixed.transpose(0, 2, 1, 3).reshape(0, 0, -1), attn.norm)
        return self.linear(joined, attn.proj, scale)

    def _rotated(self, x: Value, rotation: "GraphRotation") -> Value:
        """The patches' queries or keys in (B, heads, P + N, D), rotated."""
        g, start = self.graph, rotation.num_prefix
        patches = x.slice(2, start) if start else x
        if rotation.neighbours:
            pairs = patches.reshape(0, 0, 0, -1, 2)
            first, second = g.ops("Split", 2, pairs, axis=-1, num_outputs=2)  # each (B, heads, N, D / 2, 1)
            perpendicular = g.op("Reshape", g.concat([-second, first], -1), g.op("Shape", patches))
        else:
            first, second = g.ops("Split", 2, patches, axis=-1, num_outputs=2)
            perpendicular = g.concat([-second, first], -1)
        rotated = patches * rotation.cos + perpendicular * rotation.sin
        return g.concat([x.slice(2, 0, start), rotated], 2) if start else rotated

    def feed_forward(self, x: Value, mlp: nn.Module, scale: Tensor | None) -> Value:
        """``Mlp`` or ``Swiglu`` on (B, T, C)."""
        if isinstance(mlp, Mlp):
            return self.linear(self.activation(self.linear(x, mlp.fc1), mlp.activation), mlp.fc2, scale)
        assert isinstance(mlp, Swiglu)
        g = self.graph
        gate, value = g.ops("Split", 2, self.linear(x, mlp.fc1), axis=-1, num_outputs=2)
        return self.linear(self.layer_norm(gate * g.op("Sigmoid", gate) * value, mlp.norm), mlp.fc2, scale)


def _gamma(scale: nn.Module) -> Tensor | None:
    return scale.gamma if isinstance(scale, LayerScale) else None


def map_of(tokens: Value, grid: tuple[Value, Value], channels: int) -> Value:
    """Tokens (B, N, C) -> maps (B, C, h, w)."""
    return tokens.transpose(0, 2, 1).reshape(0, channels, *grid)
