"""Try each layer in int8 by itself: a copy of the graph in which every layer has a switch, and counts what it computes.

The arithmetic is that of the target engine, in float32, so that one session of ONNX Runtime serves all trials.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from densevit.errors import EngineError
from densevit.export.files import LARGEST_ONNX, Target, num_bytes
from densevit.export.quantise_graph import LayerRange, Nodes, to_bytes_and_back, token_scale
from densevit.export.quantise_layers import Layer, rounded
from densevit_runtime.engines import first_line

Pixels = NDArray[np.uint8]
Outputs = dict[str, NDArray[Any]]
_COUNTED = ("MatMul", "Conv", "ConvTranspose")


@dataclass(frozen=True)
class Survey:
    """What layers do on photos.

    Attributes:
        ranges: of their inputs.
        operations: of each layer on all photos, two for a multiplication and an addition.
        total: operations of all products and convolutions of the graph.
        expected: the outputs of the graph for each photo, in float32.
    """

    ranges: Mapping[Layer, LayerRange]
    operations: Mapping[Layer, int]
    total: int
    expected: Sequence[Outputs]

    def share(self, layers: Sequence[Layer]) -> float:
        """The share of all operations that some layers have."""
        return sum(self.operations[layer] for layer in layers) / max(self.total, 1)


def survey(model: onnx.ModelProto, layers: Sequence[Layer], photos: Sequence[Pixels], *, threads: int) -> Survey:
    """Run photos in float32 and note ranges and operations.

    Raises:
        EngineError: if ONNX Runtime is missing or cannot run the graph.
    """
    nodes = {node.name: node for node in model.graph.node}
    probes = Nodes("probe")
    watched = {layer: [_watch(probes, layer, nodes[name]) for name in layer.nodes] for layer in layers}
    counted = [(node, *_shapes(probes, node)) for node in model.graph.node if node.op_type in _COUNTED]
    probe_names = [name for found in watched.values() for names in found for name in names]
    probe_names += [name for _, *names in counted for name in names]
    run = _session(model, [*model.graph.node, *probes.nodes], probes.constants, probe_names, (), threads)
    heads = [output.name for output in model.graph.output]
    sums: dict[Layer, list[tuple[float, ...]]] = {layer: [] for layer in layers}
    operations: dict[str, int] = {}
    expected = []
    for photo in photos:
        values = run(photo, [*heads, *probe_names], ())
        expected.append({name: values[name] for name in heads})
        for layer, found in watched.items():
            sums[layer] += [tuple(float(values[name]) for name in names) for names in found]
        for node, out, other in counted:
            operations[node.name] = operations.get(node.name, 0) + _operations(node, values[out], values[other])
    return Survey(
        {layer: _range(found) for layer, found in sums.items()},
        {layer: sum(operations[name] for name in layer.nodes) for layer in layers},
        sum(operations.values()),
        expected,
    )


def _watch(probes: Nodes, layer: Layer, node: onnx.NodeProto) -> tuple[str, ...]:
    """Names of what ``_range`` takes: extremes of input and output, or of the input and the share below zero."""
    x = node.input[0]
    low, high = (probes.op(kind, x, keepdims=0) for kind in ("ReduceMin", "ReduceMax"))
    if layer.kind != "linear":
        return low, high, *(probes.op(kind, node.output[0], keepdims=0) for kind in ("ReduceMin", "ReduceMax"))
    zero = probes.number(0.0)
    below = probes.op("Neg", probes.op("Min", probes.op("ReduceMin", x, probes.ints(-1), keepdims=0), zero))
    above = probes.op("Max", probes.op("ReduceMax", x, probes.ints(-1), keepdims=0), zero)
    span = probes.op("Max", probes.op("Add", below, above), probes.number(1e-30))
    return low, high, probes.op("ReduceMean", probes.op("Div", below, span), keepdims=0)


def _range(found: Sequence[tuple[float, ...]]) -> LayerRange:
    """The range over all photos; that of a layer which gets values that are not finite is empty."""
    if not found or not np.isfinite(found).all():
        return LayerRange()
    columns = list(zip(*found, strict=True))
    low, high = min(0.0, *columns[0]), max(0.0, *columns[1])
    if len(columns) == 3:
        return LayerRange(low, high, negative=float(np.mean(columns[2])))
    return LayerRange(low, high, min(0.0, *columns[2]), max(0.0, *columns[3]))


def _shapes(probes: Nodes, node: onnx.NodeProto) -> tuple[str, str]:
    """Names of the shapes that tell how much a node computes."""
    per_value = node.input[int(node.op_type != "MatMul")]
    counted = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
    return probes.op("Shape", counted), probes.op("Shape", per_value)


def _operations(node: onnx.NodeProto, counted: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    depth = other[-1] if node.op_type == "MatMul" else np.prod(other[1:])
    return 2 * int(np.prod(counted)) * int(depth)


def trial(
    model: onnx.ModelProto, ranges: Mapping[Layer, LayerRange], target: Target, *, group: int, threads: int
) -> Callable[[Pixels, Layer], Outputs]:
    """A function that runs a photo with one layer in int8.

    Args:
        model: in float32.
        ranges: the layers, with the ranges of their inputs.
        target: the engine whose arithmetic is tried.
        group: channels of a token that share a scale in OpenVINO.
        threads: of ONNX Runtime.

    Raises:
        EngineError: if ONNX Runtime is missing or cannot run the graph.
    """
    by_node = {name: layer for layer in ranges for name in layer.nodes}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    switches = {layer: f"switch/{layer.name}" for layer in ranges}
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, NDArray[Any]] = {}
    for node in model.graph.node:
        layer = by_node.get(node.name)
        if layer is None:
            nodes.append(node)
            continue
        if f"{layer.weight}.int8" not in constants:
            values, scale = rounded(numpy_helper.to_array(weights[layer.weight]), layer.axis)
            scale = scale.reshape([-1 if axis == layer.axis else 1 for axis in range(values.ndim)])
            constants |= {f"{layer.weight}.int8": values, f"{layer.weight}.scale": scale}
        parts = Nodes(f"{node.name}/trial")
        output = _rounded_node(parts, node, layer, ranges[layer], target, group)
        constants |= parts.constants
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.output[0] = f"{node.output[0]}/plain"
        branches = {"then_branch": _branch(parts.nodes, output), "else_branch": _branch([plain], plain.output[0])}
        nodes.append(helper.make_node("If", [switches[layer]], [node.output[0]], name=node.name, **branches))
    run = _session(model, nodes, constants, (), tuple(switches.values()), threads)
    heads = [output.name for output in model.graph.output]
    return lambda photo, layer: run(photo, heads, (switches[layer],))


def _branch(nodes: Sequence[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)])


def _rounded_node(
    parts: Nodes, node: onnx.NodeProto, layer: Layer, found: LayerRange, target: Target, group: int
) -> str:
    """What a layer gives when it is rounded: the name of its output."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    changed.input[0] = _rounded_input(parts, node.input[0], layer, found, target, group)
    # Not DequantizeLinear, which ONNX Runtime 1.32 rewrites here and then misses the weight.
    whole = parts.op("Cast", f"{layer.weight}.int8", to=TensorProto.FLOAT)
    changed.input[1] = parts.op("Mul", whole, f"{layer.weight}.scale")
    changed.output[0] = f"{node.output[0]}/rounded"
    parts.nodes.append(changed)
    if layer.kind == "convolution" and target == "onnx":
        return to_bytes_and_back(parts, changed.output[0], *found.output_numbers)
    return changed.output[0]


def _rounded_input(parts: Nodes, x: str, layer: Layer, found: LayerRange, target: Target, group: int) -> str:
    """What rounding leaves of a layer's input, in float32."""
    if layer.kind == "stored":
        return x
    if layer.kind == "convolution":
        return to_bytes_and_back(parts, x, *found.input_numbers)
    if target == "onnx":
        zero = found.token_zero
        token = token_scale(parts, x, zero)
        steps = parts.op("Round", parts.op("Div", x, token))
        return parts.op("Mul", parts.op("Clip", steps, parts.number(-float(zero)), parts.number(255.0 - zero)), token)
    shape = parts.op("Shape", x)
    size = group if layer.depth % group == 0 else layer.depth
    grouped = parts.op("Reshape", x, parts.op("Concat", shape_without_last(parts, shape), parts.ints(-1, size), axis=0))
    largest = parts.op("ReduceMax", parts.op("Abs", grouped), parts.ints(-1), keepdims=1)
    token = parts.op("Max", parts.op("Div", largest, parts.number(127.0)), parts.number(1e-30))
    back = parts.op("Mul", parts.op("Round", parts.op("Div", grouped, token)), token)
    return parts.op("Reshape", back, shape)


def shape_without_last(parts: Nodes, shape: str) -> str:
    """All dimensions of a shape but the last."""
    return parts.op("Slice", shape, parts.ints(0), parts.ints(-1))


def _session(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, NDArray[Any]],
    more_outputs: Sequence[str],
    switches: Sequence[str],
    threads: int,
) -> Callable[[Pixels, Sequence[str], Sequence[str]], Outputs]:
    """A function from a photo, names of outputs and the switches to turn on, to these outputs."""
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"quantize tries the layers in onnxruntime, which is missing ({error}); pip install 'densevit[onnx]'"
        ) from None
    known = {tensor.name for tensor in model.graph.initializer}
    new = [numpy_helper.from_array(array, name) for name, array in constants.items() if name not in known]
    inputs = [*model.graph.input, *(helper.make_tensor_value_info(one, TensorProto.BOOL, []) for one in switches)]
    outputs = [*model.graph.output, *(helper.make_empty_tensor_value_info(name) for name in more_outputs)]
    graph = helper.make_graph(nodes, "trial", inputs, outputs, [*model.graph.initializer, *new])
    changed = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    if (size := num_bytes(changed)) > LARGEST_ONNX:
        raise EngineError(f"the layers of {size / 1e9:.1f} GB of weights cannot be tried; up to 2 GB are accepted")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    skipped = ["ConstantFolding"]  # it would keep every rounded weight in float32 as well
    try:
        session = onnxruntime.InferenceSession(
            changed.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=skipped
        )
    except Exception as error:
        raise EngineError(f"onnxruntime cannot run the graph ({first_line(error)}); update onnxruntime") from error
    name = model.graph.input[0].name

    def run(photo: Pixels, wanted: Sequence[str], on: Sequence[str]) -> Outputs:
        feed: dict[str, Any] = {name: photo[None], **{one: np.array(one in on) for one in switches}}
        return dict(zip(wanted, session.run(list(wanted), feed), strict=True))

    return run
