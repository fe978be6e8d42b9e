"""Write layers of a graph as products of 8-bit integers, in the form that each engine runs fastest.

ONNX Runtime: tokens are divided by their scale, rounded to uint8 and multiplied as integers. OpenVINO: the weights are
stored in int8 and the engine rounds the tokens itself ("dynamic quantization"), in groups of channels; the products of
attention are in bfloat16. ADR 0021 has the figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from densevit.export.files import Target
from densevit.export.quantise_layers import Layer, rounded

CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

NO_BIAS = 1e-30
"""What stands for 0 in the bias of OpenVINO's integer convolutions.

If several operators read the output of one without a bias, OpenVINO 2026.4 applies its scale in the convolution and
again in front of each of them, and the output vanishes. An addition after the convolution prevents it, but one of zeros
is removed before. This one is fused into the convolution and costs nothing."""

_LAYOUT = ("Reshape", "Transpose", "Gather")


@dataclass(frozen=True)
class LayerRange:
    """The values of a layer's input and output on photos.

    Attributes:
        low, high: range of the input, 0 included.
        out_low, out_high: range of the output, 0 included (convolutions).
        negative: share of a token's range that is below zero, the mean over tokens (linear layers).
    """

    low: float = 0.0
    high: float = 0.0
    out_low: float = 0.0
    out_high: float = 0.0
    negative: float = 0.5

    @property
    def token_zero(self) -> int:
        """The uint8 that stands for 0 in a token: 128 for symmetric inputs, less after a GELU."""
        return int(np.clip(round(255 * self.negative), 1, 254)) if abs(self.negative - 0.5) > 0.1 else 128

    @property
    def input_numbers(self) -> tuple[float, int]:
        """Scale and zero point of uint8 for the whole input."""
        return _numbers(self.low, self.high)

    @property
    def output_numbers(self) -> tuple[float, int]:
        """Scale and zero point of uint8 for the whole output."""
        return _numbers(self.out_low, self.out_high)


def _numbers(low: float, high: float) -> tuple[float, int]:
    span = max(high - low, 1e-12)
    return span / 255, int(np.clip(round(-low / span * 255), 0, 255))


@dataclass
class Nodes:
    """Nodes and constants that replace a node.

    Attributes:
        prefix: of their names.
    """

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)

    def op(self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node; the name of its output."""
        name = f"{self.prefix}/{kind}_{len(self.nodes)}"
        node = helper.make_node(kind, list(inputs), [output or name], name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return output or name

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant; its name."""
        self.constants[name] = array
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(f"constant/float32/{float(value)!r}", np.array(value, np.float32))

    def byte(self, value: int) -> str:
        """A uint8 scalar."""
        return self.constant(f"constant/uint8/{value}", np.array(value, np.uint8))

    def ints(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(f"constant/int64/{'_'.join(map(str, values))}", np.array(values, np.int64))


def quantise_graph(
    model: onnx.ModelProto, layers: Mapping[Layer, LayerRange], target: Target, *, bfloat16: bool = True
) -> onnx.ModelProto:
    """A copy of a model with some layers in int8.

    Args:
        model: in float32, with its weights inside.
        layers: to round, with the ranges of their inputs.
        target: the engine.
        bfloat16: whether attention is in bfloat16 in OpenVINO; processors without it compute in float32.
    """
    by_node = {name: layer for layer in layers for name in layer.nodes}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    new: dict[str, NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []
    stored: set[str] = set()
    for node in model.graph.node:
        layer = by_node.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        parts = Nodes(node.name)
        if layer.weight not in stored:
            stored.add(layer.weight)
            in_product = layer.kind == "linear" and target == "onnx"
            _store(parts, layer, numpy_helper.to_array(weights[layer.weight]), dequantise=not in_product)
        _write(parts, node, layer, layers[layer], target)
        if layer.kind == "convolution" and target == "openvino":
            _write_bias(parts, layer, weights)
        nodes += parts.nodes
        new |= parts.constants
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in stored and tensor.name not in new]
    tensors = [*kept, *(numpy_helper.from_array(array, name) for name, array in new.items())]
    if target == "openvino" and bfloat16:
        nodes, tensors = attention_in_bfloat16(nodes, tensors)
    return _with_graph(model, nodes, tensors)


def _with_graph(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], tensors: Sequence[onnx.TensorProto]
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, tensors)
    opsets = [*model.opset_import]
    if any(node.domain == CONTRIB for node in nodes):
        opsets.append(helper.make_opsetid(CONTRIB, 1))
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=model.ir_version, producer_name=model.producer_name
    )


def _store(parts: Nodes, layer: Layer, weight: NDArray[np.float32], *, dequantise: bool) -> None:
    values, scale = rounded(weight, layer.axis)
    names = parts.constant(f"{layer.weight}.int8", values), parts.constant(f"{layer.weight}.scale", scale)
    if dequantise:
        parts.op("DequantizeLinear", *names, output=f"{layer.weight}.float", axis=layer.axis)


def _write(parts: Nodes, node: onnx.NodeProto, layer: Layer, found: LayerRange, target: Target) -> None:
    if layer.kind == "linear" and target == "onnx":
        parts.op("Mul", *_integer_product(parts, node.input[0], layer, found.token_zero), output=node.output[0])
        return
    replaced = onnx.NodeProto()
    replaced.CopyFrom(node)
    replaced.input[1] = f"{layer.weight}.float"
    if layer.kind == "convolution":
        replaced.input[0] = to_bytes_and_back(parts, node.input[0], *found.input_numbers)
    parts.nodes.append(replaced)
    if layer.kind == "convolution" and target == "onnx":  # whose integer convolution gives integers
        replaced.output[0] = f"{node.output[0]}/wide"
        to_bytes_and_back(parts, replaced.output[0], *found.output_numbers, output=node.output[0])


def _write_bias(parts: Nodes, layer: Layer, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Give the convolution that was just written a bias without zeros; ``NO_BIAS`` says why."""
    convolution = parts.nodes[-1]
    bias = np.zeros(weights[layer.weight].dims[layer.axis], np.float32)
    if len(convolution.input) > 2:
        bias = numpy_helper.to_array(weights[convolution.input[2]])
    name = parts.constant(f"{layer.weight}.bias", np.where(bias == 0, NO_BIAS, bias).astype(np.float32))
    convolution.input[2:] = [name]


def to_bytes_and_back(parts: Nodes, x: str, scale: float, zero: int, output: str | None = None) -> str:
    """Round to uint8 with one scale; engines join this with the operators around it."""
    numbers = (parts.number(scale), parts.byte(zero))
    return parts.op("DequantizeLinear", parts.op("QuantizeLinear", x, *numbers), *numbers, output=output)


def _integer_product(parts: Nodes, x: str, layer: Layer, zero: int) -> tuple[str, str]:
    """The product in units of the tokens' scales, and those scales."""
    scale = token_scale(parts, x, zero)
    ones = parts.number(1.0)
    rounded_tokens = parts.op("QuantizeLinear", parts.op("Div", x, scale), ones, parts.byte(zero))
    product = parts.op(
        "MatMulIntegerToFloat",
        rounded_tokens,
        f"{layer.weight}.int8",
        ones,
        f"{layer.weight}.scale",
        parts.byte(zero),
        domain=CONTRIB,
    )
    return product, scale


def token_scale(parts: Nodes, x: str, zero: int) -> str:
    """(..., T, C) -> (..., T, 1): the smallest scale with which a token fits into uint8 around a zero point."""
    highest = parts.op("Div", parts.op("ReduceMax", x, parts.ints(-1), keepdims=1), parts.number(255.0 - zero))
    lowest = parts.op("Div", parts.op("ReduceMin", x, parts.ints(-1), keepdims=1), parts.number(-float(zero)))
    return parts.op("Max", highest, lowest, parts.number(1e-30))


def attention_in_bfloat16(
    nodes: Sequence[onnx.NodeProto], tensors: Sequence[onnx.TensorProto]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Compute the two products of attention, and what only rearranges their inputs, in bfloat16."""
    producers = {output: node for node in nodes for output in node.output}
    consumers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    constants = {tensor.name: tensor for tensor in tensors}
    inside = _attention_nodes(nodes, producers, consumers, constants)
    new: list[onnx.NodeProto] = []
    cast: set[str] = set()
    made = {output for name in inside for output in inside[name].output}
    for node in nodes:
        if node.name not in inside:
            new.append(node)
            continue
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        for i, name in enumerate(_data_inputs(node)):
            if name in made:
                changed.input[i] = f"{name}/bfloat16"
            elif name:
                changed.input[i] = f"{name}/bfloat16"
                if name not in cast:
                    cast.add(name)
                    new.append(helper.make_node("Cast", [name], [changed.input[i]], to=TensorProto.BFLOAT16))
        for i, name in enumerate(node.output):
            changed.output[i] = f"{name}/bfloat16"
        new.append(changed)
        for name in node.output:
            if any(user.name not in inside for user in consumers.get(name, ())):
                new.append(helper.make_node("Cast", [f"{name}/bfloat16"], [name], to=TensorProto.FLOAT))
    return new, list(tensors)


def _data_inputs(node: onnx.NodeProto) -> list[str]:
    """The inputs of a node that are values, not shapes or indices."""
    return list(node.input[:1]) if node.op_type in _LAYOUT else list(node.input)


def _attention_nodes(
    nodes: Sequence[onnx.NodeProto],
    producers: Mapping[str, onnx.NodeProto],
    consumers: Mapping[str, list[onnx.NodeProto]],
    constants: Mapping[str, onnx.TensorProto],
) -> dict[str, onnx.NodeProto]:
    """Softmax, the products around it, and the nodes that only feed those by rearranging or scaling."""
    inside: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        before = producers.get(node.input[0]) if node.op_type == "Softmax" else None
        after = consumers.get(node.output[0], []) if before is not None else []
        if before is None or before.op_type != "MatMul" or [one.op_type for one in after] != ["MatMul"]:
            continue
        inside |= {one.name: one for one in (before, node, after[0])}
        pending = [*before.input, after[0].input[1]]
        while pending:
            one = producers.get(pending.pop())
            scales = one is not None and one.op_type == "Mul" and one.input[1] in constants
            if one is not None and (one.op_type in _LAYOUT or scales):
                inside[one.name] = one
                pending.append(one.input[0])
    while True:  # a node whose values are needed in float32 too stays outside, except for the last product
        products = {name for name, one in inside.items() if one.op_type == "MatMul"}
        leaking = [
            name
            for name, one in inside.items()
            if name not in products and any(user.name not in inside for user in consumers.get(one.output[0], ()))
        ]
        if not leaking:
            return inside
        for name in leaking:
            del inside[name]
