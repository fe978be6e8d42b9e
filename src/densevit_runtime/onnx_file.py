"""What an ONNX file claims, checked before an engine opens it; only the structure is read, never the weights.

The numbers of the fields are those of onnx.proto3.
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

from densevit_runtime.errors import CheckpointError
from densevit_runtime.io.decode import reason, require_file
from densevit_runtime.limits import limits, too_much
from densevit_runtime.metadata import KEY
from densevit_runtime.protobuf import Message, message, signed

_EXTERNAL = 1
# Bits of an element by TensorProto.DataType; strings (8) have no fixed size, and no graph of ours has any.
_BITS = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
}
_INT64 = 7
# The input of an operator that says how large its result is, which may be a constant.
_SIZES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}


def read_onnx(path: Path) -> str:
    """Check an ONNX file, and read densevit's entry of its metadata.

    Args:
        path: the file.

    Returns:
        The entry as text, which ``Metadata.parse`` reads.

    Raises:
        DataError: if there is no such file.
        CheckpointError: if it is not ONNX, damaged, or not an export of densevit; if it keeps data in other files, or
            claims more than it holds or than ``limits`` allow.
    """
    require_file(path)
    if path.stat().st_size > limits().file_bytes:
        raise CheckpointError(too_much(f"{path} has {path.stat().st_size:,} bytes", "file_bytes"))
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_model(path, message(data))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({reason(error)}); check path and permissions") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not an ONNX file, or is damaged ({error}); copy it again, or export the model again"
        ) from None


def _read_model(path: Path, model: Message) -> str:
    """``ModelProto``: its producer, graph, functions and metadata."""
    found: str | None = None
    producer, graphs = "", 0
    for number, value in model.fields():
        if not isinstance(value, Message):
            continue
        if number == 2:
            producer = value.text()
        elif number == 7:
            graphs += 1
            _check_graph(path, value, limits().nesting)
        elif number == 14:
            key, text = _entry(value)
            found = text if key == KEY else found
        elif number == 25:  # a function, whose nodes are its field 7
            _check_nodes(path, value, 7, {}, limits().nesting)
    if graphs != 1:
        raise ValueError(f"it has {graphs} graphs; one is accepted")
    if found is None:
        by = f" (it was made by {producer[:60]!a})" if producer else ""
        raise CheckpointError(
            f"{path} is an ONNX file without densevit's metadata{by}; files that densevit export has written are "
            "accepted; export the model with it"
        )
    return found


def _entry(entry: Message) -> tuple[str, str]:
    """``StringStringEntryProto``; the value only if it is ours."""
    parts = {number: value for number, value in entry.fields() if isinstance(value, Message)}
    key = parts[1].text() if 1 in parts else ""
    return key, parts[2].text(limits().config_bytes) if key == KEY and 2 in parts else ""


def _check_graph(path: Path, graph: Message, nesting: int) -> None:
    """``GraphProto``: its tensors (5, sparse 15) and nodes (1)."""
    if nesting < 1:
        raise ValueError(too_much("its graphs are nested deeper", "nesting"))
    constants: dict[str, tuple[int, ...]] = {}
    for number, value in graph.fields():
        if number == 5 and isinstance(value, Message):
            name, integers = _check_tensor(path, value)
            constants[name] = integers
        elif number == 15 and isinstance(value, Message):
            _check_sparse(path, value)
    _check_nodes(path, graph, 1, constants, nesting)


def _check_nodes(path: Path, graph: Message, field: int, constants: dict[str, tuple[int, ...]], nesting: int) -> None:
    for number, node in graph.fields():
        if number != field or not isinstance(node, Message):
            continue
        inputs, outputs, operator = [], [], ""
        for part, value in node.fields():
            if not isinstance(value, Message):
                continue
            if part == 1:
                inputs.append(value.text())
            elif part == 2:
                outputs.append(value.text())
            elif part == 4:
                operator = value.text()
            elif part == 5:
                for integers in _check_attribute(path, value, nesting):
                    constants.update(dict.fromkeys(outputs, integers) if operator in ("", "Constant") else {})
        place = _SIZES.get(operator)
        if place is not None and place < len(inputs):
            _check_elements(f"{path}: operator {operator}", constants.get(inputs[place], ()))


def _check_attribute(path: Path, attribute: Message, nesting: int) -> Iterator[tuple[int, ...]]:
    """``AttributeProto``: tensors (5, 10), graphs (6, 11), sparse tensors (22, 23); yields integers of tensors."""
    for number, value in attribute.fields():
        if not isinstance(value, Message):
            continue
        if number in (5, 10):
            yield _check_tensor(path, value)[1]
        elif number in (6, 11):
            _check_graph(path, value, nesting - 1)
        elif number in (22, 23):
            _check_sparse(path, value)


def _check_sparse(path: Path, sparse: Message) -> None:
    """``SparseTensorProto``: values (1), indices (2), and the dimensions (3) of the dense tensor."""
    dims: list[int] = []
    for number, value in sparse.fields():
        if number in (1, 2) and isinstance(value, Message):
            _check_tensor(path, value)
        elif number == 3:
            dims += value.integers() if isinstance(value, Message) else [signed(value)]
    _check_elements(f"{path}: a sparse tensor", tuple(dims))


def _check_tensor(path: Path, tensor: Message) -> tuple[str, tuple[int, ...]]:
    """``TensorProto``: it must hold as many bytes as its dimensions need. Its name, and its values if they are few."""
    dims: list[int] = []
    kind = raw = None
    name, stored, location = "", 0, ""
    integers: list[int] = []
    for number, value in tensor.fields():
        if isinstance(value, Message):
            if number == 1:
                dims += value.integers()
            elif number == 8:
                name = value.text()
            elif number == 9:
                raw = value
            elif number == 13:
                location = _location(value) or location or "another file"
            elif number in (4, 5, 6, 7, 10, 11):
                stored += len(value)
                integers += value.integers() if number == 7 and len(value) <= 160 else ()
        elif number == 1:
            dims.append(signed(value))
        elif number == 2:
            kind = value
        elif number == 14 and value == _EXTERNAL:
            location = location or "another file"
        elif number in (5, 7, 11):
            stored += 1
            integers.append(signed(value))
    if location:
        raise CheckpointError(
            f"{path} keeps tensor {name[:60]!a} in {location[:100]!a}; files that hold their own weights are accepted; "
            "export the model again"
        )
    elements = _check_elements(f"{path}: tensor {name[:60]!a}", tuple(dims))
    if raw is None:  # an integer takes at least a byte
        needed, stored = (elements, stored) if elements else (0, 0)
    else:
        needed, stored = -(-elements * _BITS.get(kind or 0, 0) // 8), len(raw)
    if needed > stored or (raw is not None and kind in _BITS and needed != stored):
        raise ValueError(f"tensor {name[:60]!a} needs {needed:,} bytes for {dims[:8]} and holds {stored:,}")
    if raw is not None and kind == _INT64 and len(raw) <= 64:
        content = raw.bytes(64)
        integers = [int.from_bytes(content[i : i + 8], "little", signed=True) for i in range(0, len(content), 8)]
    return name, tuple(integers[:16])


def _location(entry: Message) -> str:
    parts = [value.text() for _, value in entry.fields() if isinstance(value, Message)]
    return parts[1] if parts[:1] == ["location"] and len(parts) > 1 else ""


def _check_elements(what: str, dims: tuple[int, ...]) -> int:
    """The elements of a tensor of these sides; dimensions below 0 are left to the engine."""
    if len(dims) > limits().nesting:
        raise CheckpointError(too_much(f"{what} has {len(dims):,} dimensions", "nesting"))
    elements = math.prod(max(side, 0) for side in dims)
    if elements > limits().pixels:
        raise CheckpointError(too_much(f"{what} has {elements:,} elements", "pixels"))
    return elements
