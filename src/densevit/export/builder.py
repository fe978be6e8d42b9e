"""Write an ONNX graph as if it were array code: ``graph.op("Conv", x, weight)``, ``x * 2.0 + y``.

Sizes are int64 scalars of the graph. A Python int in an expression becomes an int64 constant, a float a float32 one.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 20
"""The first opset with GELU as an operator."""

IR_VERSION = 9
"""Version of the file format, from the time of that opset: older engines refuse newer ones."""

Operand = Union["Value", int, float]
Dims = Sequence[Operand]

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
UINT8, UINT16, INT32 = TensorProto.UINT8, TensorProto.UINT16, TensorProto.INT32


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph."""

    graph: "Graph"
    name: str

    def __add__(self, other: Operand) -> "Value":
        return self.graph.op("Add", self, other)

    def __radd__(self, other: Operand) -> "Value":
        return self.graph.op("Add", other, self)

    def __sub__(self, other: Operand) -> "Value":
        return self.graph.op("Sub", self, other)

    def __rsub__(self, other: Operand) -> "Value":
        return self.graph.op("Sub", other, self)

    def __mul__(self, other: Operand) -> "Value":
        return self.graph.op("Mul", self, other)

    def __rmul__(self, other: Operand) -> "Value":
        return self.graph.op("Mul", other, self)

    def __truediv__(self, other: Operand) -> "Value":
        return self.graph.op("Div", self, other)

    def __rtruediv__(self, other: Operand) -> "Value":
        return self.graph.op("Div", other, self)

    def __rfloordiv__(self, other: Operand) -> "Value":
        return self.graph.op("Div", other, self)

    def __floordiv__(self, other: Operand) -> "Value":
        """The quotient of integers that are not negative, rounded down."""
        return self.graph.op("Div", self, other)

    def __matmul__(self, other: "Value") -> "Value":
        return self.graph.op("MatMul", self, other)

    def __neg__(self) -> "Value":
        return self.graph.op("Neg", self)

    def as_float(self) -> "Value":
        """The value as float32."""
        return self.graph.op("Cast", self, to=FLOAT)

    def as_int(self) -> "Value":
        """The value as int64."""
        return self.graph.op("Cast", self, to=INT64)

    def size(self, axis: int) -> "Value":
        """The length of an axis, a scalar."""
        return self.graph.op("Gather", self.graph.op("Shape", self), axis, axis=0)

    def reshape(self, *dims: Operand) -> "Value":
        """Another shape; -1 is inferred, and 0 copies the axis."""
        return self.graph.op("Reshape", self, self.graph.dims(*dims))

    def transpose(self, *axes: int) -> "Value":
        """Permute the axes."""
        return self.graph.op("Transpose", self, perm=list(axes))

    def unsqueeze(self, *axes: int) -> "Value":
        """Insert axes of length 1."""
        return self.graph.op("Unsqueeze", self, self.graph.ints(*axes))

    def slice(self, axis: int, start: Operand, stop: Operand | None = None) -> "Value":
        """Entries ``start`` to ``stop`` of an axis; to its end by default."""
        g = self.graph
        end = np.iinfo(np.int64).max if stop is None else stop
        return g.op("Slice", self, g.dims(start), g.dims(end), g.ints(axis))

    def take(self, indices: "Value", axis: int) -> "Value":
        """The entries of an axis at some indices."""
        return self.graph.op("Gather", self, indices, axis=axis)

    def sum(self, axis: int) -> "Value":
        """The sum over an axis, which stays with length 1."""
        return self.graph.op("ReduceSum", self, self.graph.ints(axis), keepdims=1)


@dataclass
class Graph:
    """A graph under construction.

    Attributes:
        nodes: the operators, in the order of execution.
        weights: constant tensors by name; those of the model have the names of its state dict.
        inputs: inputs as ``onnx`` describes them.
        outputs: outputs as ``onnx`` describes them.
    """

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    _scope: list[str] = field(default_factory=list)
    _used: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Put a name in front of the names of all nodes that are added inside."""
        self._scope.append(name)
        try:
            yield
        finally:
            self._scope.pop()

    def op(self, kind: str, *inputs: Operand | None, name: str | None = None, **attributes: Any) -> Value:
        """Add an operator with one output; None stands for an optional input that is left out.

        Args:
            kind: name of the operator.
            inputs: its operands.
            name: of the node, after the scope; that of the operator by default.
            attributes: as ONNX defines them.
        """
        return self.ops(kind, 1, *inputs, name=name, **attributes)[0]

    def ops(
        self, kind: str, count: int, /, *inputs: Operand | None, name: str | None = None, **attributes: Any
    ) -> tuple[Value, ...]:
        """Add an operator with several outputs."""
        unique = self._unique("/".join([*self._scope, name or kind]))
        names = [unique] if count == 1 else [f"{unique}.{i}" for i in range(count)]
        operands = ["" if x is None else self.value(x).name for x in inputs]
        while operands and not operands[-1]:
            operands.pop()
        self.nodes.append(helper.make_node(kind, operands, names, name=unique, **attributes))
        return tuple(Value(self, output) for output in names)

    def _unique(self, name: str) -> str:
        count = self._used[name] = self._used.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"

    def value(self, operand: Operand) -> Value:
        """A Python number as a constant; values of the graph as they are."""
        if isinstance(operand, Value):
            return operand
        return self.constant(np.array(operand, np.float32 if isinstance(operand, float) else np.int64))

    def constant(self, array: NDArray[Any]) -> Value:
        """A small constant; equal ones are stored once."""
        digest = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        name = f"constant/{array.dtype}{list(array.shape)}/{digest}"
        self.weights[name] = array
        return Value(self, name)

    def weight(self, name: str, tensor: Tensor) -> Value:
        """A tensor of the model, stored once under its name."""
        if name not in self.weights:
            self.weights[name] = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        return Value(self, name)

    def ints(self, *values: int) -> Value:
        """A constant int64 vector."""
        return self.constant(np.array(values, np.int64))

    def dims(self, *dims: Operand) -> Value:
        """An int64 vector of numbers and scalars."""
        if all(isinstance(dim, int) for dim in dims):
            return self.ints(*dims)  # type: ignore[arg-type]
        parts = [dim.unsqueeze(0) if isinstance(dim, Value) else self.ints(int(dim)) for dim in dims]
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=0)

    def range(self, length: Operand) -> Value:
        """0, 1, ..., length - 1."""
        return self.op("Range", 0, length, 1)

    def concat(self, values: Sequence[Value], axis: int) -> Value:
        """Join values along an axis."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def where(self, condition: Value, yes: Operand, no: Operand) -> Value:
        """Element by element, one or the other."""
        return self.op("Where", condition, yes, no)

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> Value:
        """Declare an input."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return Value(self, name)

    def output(self, name: str, value: Value, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare an output, under this name."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name], name=f"output/{name}"))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def loop(
        self, times: Value, body: "Loop", output_types: Sequence[tuple[int, Sequence[int | str | None]]]
    ) -> tuple[Value, ...]:
        """Run a body so many times; each of its outputs is stacked along a new first axis."""
        yes = self.constant(np.array(True))
        return self.ops("Loop", len(output_types), times, yes, body=body.proto(output_types))

    def model(self) -> onnx.ModelProto:
        """The model, with its weights inside."""
        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(self.nodes, "densevit", self.inputs, self.outputs, tensors)
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="densevit")


class Loop:
    """The body of a loop: nodes that are added to the graph inside ``with`` belong to it.

    Attributes:
        index: number of the run, from 0.
        outputs: what each run gives; set them inside.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.index = Value(graph, graph._unique("loop/index"))
        self._going = graph._unique("loop/going")
        self.outputs: tuple[Value, ...] = ()

    def __enter__(self) -> "Loop":
        self._outer, self.graph.nodes = self.graph.nodes, []
        return self

    def __exit__(self, *_: object) -> None:
        self.nodes, self.graph.nodes = self.graph.nodes, self._outer

    def proto(self, output_types: Sequence[tuple[int, Sequence[int | str | None]]]) -> onnx.GraphProto:
        """The body as ``onnx`` describes it."""
        still = f"{self._going}/still"
        nodes = [*self.nodes, helper.make_node("Identity", [self._going], [still], name=still)]
        inputs = [
            helper.make_tensor_value_info(self.index.name, INT64, []),
            helper.make_tensor_value_info(self._going, BOOL, []),
        ]
        outputs = [helper.make_tensor_value_info(still, BOOL, [])]
        for value, (dtype, shape) in zip(self.outputs, output_types, strict=True):
            outputs.append(helper.make_tensor_value_info(value.name, dtype, shape))
        return helper.make_graph(nodes, "body", inputs, outputs)
