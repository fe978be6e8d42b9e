"""Store the weights of a graph small, for a download: int8 with a scale per output channel, or float16.

The graph still computes in float32: DequantizeLinear or Cast gives each weight back under its name. Engines do that
when they load the graph, or before each use, which takes less memory and hardly more time.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from densevit.export.quantise_layers import rounded

Storage = Literal["int8", "float16", "float32"]

STORAGES: tuple[Storage, ...] = ("int8", "float16", "float32")

LARGE = 4096
"""Bytes from which a tensor counts as a weight."""

_OUTPUT_AXIS = {"MatMul": -1, "Conv": 0, "ConvTranspose": 1}
"""Axis of the output channels of the second input of operators that multiply by weights."""

_RESTORED = ".restored"
"""End of the names of the operators that give weights back."""

_LARGEST_HALF = 65504.0


def store_small(model: onnx.ModelProto, storage: Storage) -> onnx.ModelProto:
    """A copy of a model with small weights.

    Matrices and kernels in int8 are symmetric: ``round(w / scale)``, where the scale is the largest ``|w| / 127`` of
    the output channel. Other large tensors, such as positions, become float16.

    Args:
        model: with float32 weights inside.
        storage: of matrices and kernels.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    if storage == "float32":
        return small
    axes = _output_axes(small.graph)
    stored: list[onnx.TensorProto] = []
    restored: list[onnx.NodeProto] = []
    for tensor in small.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.raw_data) < LARGE:
            stored.append(tensor)
            continue
        tensors, node = _stored(tensor.name, numpy_helper.to_array(tensor), axes.get(tensor.name), storage)
        stored += tensors
        restored += [] if node is None else [node]
    nodes = [*restored, *small.graph.node]
    del small.graph.initializer[:], small.graph.node[:]
    small.graph.initializer.extend(stored)
    small.graph.node.extend(nodes)
    return small


def _stored(
    name: str, weight: NDArray[Any], axis: int | None, storage: Storage
) -> tuple[list[onnx.TensorProto], onnx.NodeProto | None]:
    """What is stored for a weight, and the operator that restores it."""
    if storage == "int8" and axis is not None:
        codes, scales = rounded(weight, axis)
        parts = [
            numpy_helper.from_array(codes, f"{name}.int8"),
            numpy_helper.from_array(scales, f"{name}.scale"),
        ]
        names = [part.name for part in parts]
        return parts, helper.make_node("DequantizeLinear", names, [name], name=name + _RESTORED, axis=axis)
    if np.abs(weight).max() > _LARGEST_HALF:
        return [numpy_helper.from_array(weight, name)], None
    half = numpy_helper.from_array(weight.astype(np.float16), f"{name}.half")
    return [half], helper.make_node("Cast", [half.name], [name], name=name + _RESTORED, to=TensorProto.FLOAT)


def restore(small: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of what ``store_small`` gave, with float32 weights again: those that its first operators make.

    The stored weights are checked in this form. On x86, ONNX Runtime fuses DequantizeLinear with the product behind it
    and rounds activations to int8 too, by which a layer is off by half a per cent; in browsers it does not.
    """
    model = onnx.ModelProto()
    model.CopyFrom(small)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if not node.name.endswith(_RESTORED):
            nodes.append(node)
            continue
        codes = numpy_helper.to_array(stored.pop(node.input[0])).astype(np.float32)
        if node.op_type == "DequantizeLinear":
            scales = numpy_helper.to_array(stored.pop(node.input[1]))
            codes *= scales.reshape([-1 if i == node.attribute[0].i % codes.ndim else 1 for i in range(codes.ndim)])
        stored[node.output[0]] = numpy_helper.from_array(codes, node.output[0])
    kept = [*stored.values()]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes)
    return model


def _output_axes(graph: onnx.GraphProto) -> dict[str, int]:
    """The axis of the output channels of each weight that all its users multiply by in the same way."""
    dims = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    found: dict[str, set[int | None]] = {}
    for node in _nodes(graph):
        for place, name in enumerate(node.input):
            axis = _OUTPUT_AXIS.get(node.op_type) if place == 1 else None
            found.setdefault(name, set()).add(axis if axis is None else axis % max(dims.get(name, 1), 1))
    agreed = {name: axes.pop() for name, axes in found.items() if len(axes) == 1 and dims.get(name, 0) > 1}
    return {name: axis for name, axis in agreed.items() if axis is not None}


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, also those of the bodies of loops."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def move_weights(models: Sequence[onnx.ModelProto], file_name: str) -> bytes:
    """Take the large tensors out of some models; they share a file, where equal ones are stored once.

    Args:
        models: changed in place.
        file_name: of the file, next to those of the models.

    Returns:
        The content of the file.
    """
    content = bytearray()
    places: dict[bytes, int] = {}
    for model in models:
        for tensor in model.graph.initializer:
            raw = tensor.raw_data
            if len(raw) < LARGE:
                continue
            if raw not in places:
                content += bytes(-len(content) % 64)
                places[raw] = len(content)
                content += raw
            onnx.external_data_helper.set_external_data(tensor, file_name, places[raw], len(raw))
            tensor.ClearField("raw_data")
    return bytes(content)
