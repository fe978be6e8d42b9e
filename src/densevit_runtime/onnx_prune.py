"""Cut an ONNX graph down to some of its outputs: ONNX Runtime would compute all of them, whatever is asked for."""

import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from densevit_runtime.protobuf import Message, encoded, message

_GRAPH = 7
_NODE, _INITIALIZER, _OUTPUT = 1, 5, 12


def with_outputs(path: Path, names: Collection[str]) -> bytes:
    """The content of a file that ``read_onnx`` has checked, with only what the named outputs need."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        memoryview(data) as view,
    ):
        parts: list[bytes | memoryview] = []
        for number, value, whole in message(data).entries():
            if number != _GRAPH or not isinstance(value, Message):
                parts.append(view[whole.start : whole.end])
                continue
            kept = list(_kept(value, names))
            parts.append(encoded(_GRAPH << 3 | 2) + encoded(sum(map(len, kept))))
            parts += [view[entry.start : entry.end] for entry in kept]
        content = b"".join(parts)  # one copy: the weights are most of it
        parts.clear()  # before the map is closed
    return content


@dataclass(frozen=True, slots=True)
class _Node:
    """A node, or an initializer, which has no inputs."""

    inputs: frozenset[str]
    outputs: frozenset[str]


def _kept(graph: Message, names: Collection[str]) -> Iterator[Message]:
    """The entries of a graph that the named outputs need."""
    entries = list(graph.entries())
    nodes = {
        whole.start: _node(value) if number == _NODE else _Node(frozenset(), frozenset({_text(value, 8)}))
        for number, value, whole in entries
        if number in (_NODE, _INITIALIZER) and isinstance(value, Message)
    }
    makers = {name: start for start, node in nodes.items() for name in node.outputs}
    needed: set[int] = set()
    waiting = [makers[name] for name in names if name in makers]
    while waiting:
        start = waiting.pop()
        if start not in needed:
            needed.add(start)
            waiting += [makers[name] for name in nodes[start].inputs if name in makers]
    for number, value, whole in entries:
        unwanted = number == _OUTPUT and isinstance(value, Message) and _text(value, 1) not in names
        if not unwanted and (whole.start in needed or whole.start not in nodes):
            yield whole


def _node(node: Message) -> _Node:
    """Names that a node reads, those that its subgraphs take from outside among them, and names that it writes."""
    inputs: set[str] = set()
    outputs: set[str] = set()
    for number, value in node.fields():
        if not isinstance(value, Message):
            continue
        if number == 1:
            inputs.add(value.text())
        elif number == 2:
            outputs.add(value.text())
        elif number == 5:  # an attribute, which may hold graphs
            for part, graph in value.fields():
                if part in (6, 11) and isinstance(graph, Message):
                    inputs |= _read_inside(graph)
    return _Node(frozenset(inputs), frozenset(outputs) - {""})


def _read_inside(graph: Message) -> set[str]:
    """All names that the nodes and outputs of a subgraph refer to; those of its own do no harm."""
    names: set[str] = set()
    for number, value in graph.fields():
        if number == _NODE and isinstance(value, Message):
            names |= _node(value).inputs
        elif number == _OUTPUT and isinstance(value, Message):
            names.add(_text(value, 1))
    return names


def _text(value: Message, field: int) -> str:
    """A field of text."""
    return next((part.text() for number, part in value.fields() if number == field and isinstance(part, Message)), "")
