"""The layers of an exported graph that can be computed in 8-bit integers, and their rounded weights.

Weights are rounded to int8 with a scale for each output channel. The input of a linear layer is rounded when the graph
runs, with a scale for each token: scales per tensor lose four times as much, because the tokens of a ViT differ in
range. The input of a convolution has one range, found on photos.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LEAST_DEPTH = 64
"""Products that a value of an eligible layer sums at least, and channels of its input; fewer gain nothing."""

Kind = Literal["linear", "convolution", "stored"]
"""How a layer is rounded: tokens and weights; maps and weights; or its weights only, which makes the file smaller."""

GROUPS = (128, 64, 32)
"""Channels of a token that share a scale in OpenVINO: the first that divides the inputs of all layers."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be rounded; it may run several times in a graph.

    Attributes:
        name: of the module.
        weight: name of the tensor: (in, out) of a linear layer, (out, in, kh, kw) of a convolution.
        kind: how it is rounded.
        axis: of the weight that is the output channel.
        nodes: names of its nodes.
        depth: products that each of its values sums.
        problem: why it has to stay in float32; empty if it need not.
    """

    name: str
    weight: str
    kind: Kind
    axis: int
    nodes: tuple[str, ...]
    depth: int
    problem: str = ""


def find_layers(model: onnx.ModelProto) -> list[Layer]:
    """Linear layers and convolutions, in the order of the graph."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type in _AXES and len(node.input) > 1 and node.input[1] in weights:
            found.setdefault(node.input[1], []).append(node)
    layers = []
    for name, nodes in found.items():
        operator, shape = nodes[0].op_type, tuple(weights[name].dims)
        is_weight = weights[name].data_type == onnx.TensorProto.FLOAT and name.endswith((".weight", ".weight.T"))
        rank, axis = _AXES[operator]
        depth = int(np.prod(shape)) // shape[axis] if len(shape) == rank else 0
        if not is_weight or depth < LEAST_DEPTH or any(_grouped(node) for node in nodes):
            continue
        kind: Kind = "linear" if operator == "MatMul" else "stored"
        if operator == "Conv" and shape[1] >= LEAST_DEPTH:
            kind = "convolution"
        problem = weight_problem(numpy_helper.to_array(weights[name]))
        module = name.removesuffix(".T").removesuffix(".weight")
        layers.append(Layer(module, name, kind, axis, tuple(node.name for node in nodes), depth, problem))
    return layers


_AXES = {"MatMul": (2, 1), "Conv": (4, 0), "ConvTranspose": (4, 1)}
"""Operator -> rank of its weight, and the axis of its output channels."""


def _grouped(node: onnx.NodeProto) -> bool:
    return any(attribute.name == "group" and attribute.i != 1 for attribute in node.attribute)


def weight_problem(weight: NDArray[np.float32]) -> str:
    """Why a weight cannot be rounded; empty if it can."""
    if not np.isfinite(weight).all():
        return "its weights are not finite"
    if not weight.any():
        return "its weights are all zero"
    return ""


def rounded(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """A weight as int8 in -127..127, and the scale of each channel of an axis; channels of zeros have the scale 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.abs(weight).max(axis=others) / 127).astype(np.float32)
    scale[scale < np.finfo(np.float32).tiny] = 1  # zeros, and values so small that their scale would be none
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    return np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8), scale


def group_size(layers: Sequence[Layer]) -> int:
    """How many channels of a token share a scale in OpenVINO, where that is one number for the whole graph."""
    depths = [layer.depth for layer in layers if layer.kind == "linear"]
    return next((size for size in GROUPS if all(depth % size == 0 for depth in depths)), GROUPS[-1])
