"""Bound what a pickle of torch.save may make, before ``torch.load`` makes it.

``torch.load(weights_only=True)`` runs no code, but a few hundred bytes can still ask it for gigabytes: codecs inside
codecs, byte arrays by their length, lists that are copied again and again, storages larger than the file. Here the same
instructions are followed with stand-ins that only know their size. Instructions that torch does not know end the check.
"""

import pickle
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from densevit.checkpoints.pickle_stubs import STUBBED_NAMES
from densevit.limits import limits, too_much

# Instructions for each value of a config's budget: a checkpoint also holds the state of its optimiser.
STEPS_PER_NODE = 20
FREE_UNITS, LARGEST_PICKLE = 2**20, 2**26

STORAGES = {
    **dict.fromkeys(("Untyped", "Byte", "Char", "Bool", "QInt8", "QUInt8", "QUInt4x2", "QUInt2x4"), 1),
    **dict.fromkeys(("Short", "Half", "BFloat16"), 2),
    **dict.fromkeys(("Int", "Float", "QInt32"), 4),
    **dict.fromkeys(("Long", "Double", "ComplexFloat"), 8),
    "ComplexDouble": 16,
}
"""Bytes of an element by the name of the storage class."""

GEOMETRIES = {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor"}
CONTAINERS = {"collections.OrderedDict", "collections.Counter", "builtins.set"}
HARMLESS = {
    "torch.nn.parameter.Parameter",
    "torch.device",
    "torch.serialization._get_layout",
    "builtins.complex",
    *STUBBED_NAMES,
}


class Stream(Protocol):
    """What is read of a file."""

    def read(self, size: int, /) -> bytes:
        """As of files."""
        ...

    def readline(self) -> bytes:
        """As of files."""
        ...


@dataclass(slots=True)
class Value:
    """The stand-in for a value.

    Attributes:
        kind: such as "int", "text", "tuple", "container", "global", "storage", "tensor", "other".
        size: number of values inside, with shared ones counted as often as they are used, or of bytes of a text.
        depth: of tuples inside tuples.
        data: the int, a short text, the items of a tuple, the name of a global, or (bytes, bytes per element) of a
            storage.
    """

    kind: str
    size: int = 1
    depth: int = 0
    data: Any = None


OTHER = Value("other")

# Instruction -> bytes that follow and make one value of no further interest.
_CONSTANTS = {pickle.NONE: 0, pickle.NEWTRUE: 0, pickle.NEWFALSE: 0, pickle.BINFLOAT: 8}
_INTS = {pickle.BININT: "<i", pickle.BININT1: "<B", pickle.BININT2: "<H"}
_EMPTY = (pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET)
_TUPLES = {pickle.TUPLE1: 1, pickle.TUPLE2: 2, pickle.TUPLE3: 3, pickle.EMPTY_TUPLE: 0}


class PickleCheck:
    """Follows pickles of one file.

    Args:
        size: bytes of the pickles, or of the file that they are in.
        records: bytes of every stored storage by its key; None where storages follow the pickle.
    """

    def __init__(self, size: int, records: Mapping[str, int] | None) -> None:
        self.size, self.records = size, records
        self.units = FREE_UNITS + 4 * min(size, LARGEST_PICKLE)
        self.steps = STEPS_PER_NODE * limits().nodes
        self.claimed: dict[str, int] = {}

    def follow(self, stream: Stream) -> bool:
        """Follow one pickle to its end; False if it is cut short.

        Raises:
            pickle.UnpicklingError: if it holds more than tensors.
            ValueError: if it makes more than the budget, or a storage or tensor claims more than the file holds.
            LookupError: if it is damaged.
        """
        self.stack: list[Value] = []
        self.marks: list[list[Value]] = []
        memo: dict[int, Value] = {}
        while op := stream.read(1):
            self.steps -= 1
            if self.steps < 0:
                raise ValueError(too_much("its pickle has more instructions than 20 for each value", "nodes"))
            if op == pickle.STOP:
                return True
            try:
                if op in (pickle.BINGET, pickle.LONG_BINGET):
                    self.stack.append(memo[_int(stream, "<B" if op == pickle.BINGET else "<I")])
                elif op in (pickle.BINPUT, pickle.LONG_BINPUT):
                    memo[_int(stream, "<B" if op == pickle.BINPUT else "<I")] = self.stack[-1]
                elif not self._read_value(op, stream):
                    self._combine(op)
            except struct.error:
                return False
        return False

    def _read_value(self, op: bytes, stream: Stream) -> bool:
        """Follow an instruction that reads a value from the file; False if it is another one."""
        if op in _INTS:
            self.stack.append(Value("int", data=_int(stream, _INTS[op])))
        elif op == pickle.BINUNICODE:
            self._push_text(stream.read(_int(stream, "<I")))
        elif op == pickle.SHORT_BINSTRING:
            self._push_text(stream.read(_int(stream, "<B")))
        elif op == pickle.GLOBAL:
            module, name = (stream.readline()[:-1].decode("utf-8", "replace") for _ in range(2))
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[(module, name)]
            self.stack.append(Value("global", data=f"{IMPORT_MAPPING.get(module, module)}.{name}"))
        elif op == pickle.LONG1:
            self.stack.append(Value("int", data=pickle.decode_long(stream.read(_int(stream, "<B")))))
        elif op in _CONSTANTS:
            stream.read(_CONSTANTS[op])
            self.stack.append(OTHER)
        elif op == pickle.PROTO:
            stream.read(1)
        else:
            return False
        return True

    def _push_text(self, text: bytes) -> None:
        self.stack.append(Value("text", 1 + len(text), data=text if len(text) <= 256 else None))

    def _combine(self, op: bytes) -> None:
        """Follow an instruction that makes values of those on the stack."""
        stack = self.stack
        if op in _EMPTY:
            stack.append(Value("container"))
        elif op in _TUPLES:
            count = _TUPLES[op]
            items = [stack.pop() for _ in range(count)][::-1]
            stack.append(_tuple(items))
        elif op == pickle.MARK:
            self.marks.append(stack)
            self.stack = []
        elif op == pickle.TUPLE:
            items = self._pop_mark()
            self.stack.append(_tuple(items))
        elif op in (pickle.APPEND, pickle.SETITEM):
            items = [stack.pop() for _ in range(1 if op == pickle.APPEND else 2)][::-1]
            self._fill(items, keys=op == pickle.SETITEM)
        elif op in (pickle.APPENDS, pickle.SETITEMS):
            self._fill(self._pop_mark(), keys=op == pickle.SETITEMS)
        elif op in (pickle.REDUCE, pickle.NEWOBJ):
            arguments = stack.pop()
            stack[-1] = self._call(stack[-1], arguments)
        elif op == pickle.BUILD:
            state = stack.pop()
            self._spend(state.size)
            if stack[-1].kind == "tensor" and state.kind == "tuple" and len(state.data) == 4:
                _check_geometry(state.data, None)
        elif op == pickle.BINPERSID:
            stack.append(self._storage(stack.pop()))
        else:
            raise pickle.UnpicklingError(f"Unsupported operand {op[0]}")

    def _pop_mark(self) -> list[Value]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _fill(self, items: list[Value], *, keys: bool) -> None:
        """Put items into the container on the stack; the keys of a mapping are hashed, which looks at all of each."""
        target = self.stack[-1]
        if keys:
            self._spend(sum(key.size for key in items[::2]))
        target.size = min(target.size + sum(item.size for item in items), 2**62)

    def _spend(self, units: int) -> None:
        self.units -= units
        if self.units < 0:
            raise ValueError("its pickle makes far more than it holds")

    def _call(self, function: Value, arguments: Value) -> Value:
        if function.kind != "global" or arguments.kind != "tuple":
            raise ValueError("its pickle calls what is no function")
        name, given = str(function.data), list(arguments.data)
        size = 1 + sum(value.size for value in given)  # now, since a list may have grown since the tuple was made
        self._spend(size)
        module, _, short = name.rpartition(".")
        if module == "torch._utils" and short.startswith("_rebuild_"):
            if short in GEOMETRIES:
                _check_geometry(given, given[6] if short == "_rebuild_tensor_v3" and len(given) > 6 else None)
            return Value("tensor")
        if name == "torch._tensor._rebuild_from_type_v2" and given:
            return self._call(given[0], given[2]) if len(given) > 2 else OTHER
        if name in HARMLESS:
            return Value("tensor") if name.endswith("Parameter") else Value("stub")
        kinds = [value.kind for value in given]
        if name == "torch.Size" and kinds == ["tuple"]:
            return given[0]
        if name in CONTAINERS and kinds in ([], ["tuple"], ["container"]):
            return Value("container", size)
        if name in ("_codecs.encode", "builtins.bytearray") and kinds and set(kinds) == {"text"}:
            codec = given[1].data if len(given) > 1 else b"latin1"
            if codec in (b"latin1", b"latin-1"):
                return Value("text", given[0].size)
        elif not given and (module.startswith("torch") or name == "builtins.bytearray"):
            return Value("tensor") if short.endswith("Tensor") else OTHER
        raise pickle.UnpicklingError(f"GLOBAL {name.removeprefix('builtins.')} with such arguments is not allowed")

    def _storage(self, identity: Value) -> Value:
        """The stand-in for a storage that a tensor names as ("storage", class, key, device, elements, view)."""
        if identity.kind != "tuple" or len(identity.data) < 5:
            return OTHER  # which torch refuses
        _, kind, key, _, elements, *view = identity.data
        item_size = STORAGES.get(str(kind.data).rpartition(".")[2].removesuffix("Storage"))
        if item_size is None or key.data is None or elements.kind != "int":
            raise ValueError("its pickle names a storage in an unknown way")
        name = key.data.decode("utf-8", "replace") if isinstance(key.data, bytes) else str(key.data)
        claim = elements.data * item_size
        if self.records is None:
            self.claimed[name] = max(claim, self.claimed.get(name, 0))
            available = self.size - sum(self.claimed.values()) + claim if claim else 0
        else:
            available = self.records.get(name, 0)
        if not 0 <= claim <= available:
            raise ValueError(
                f"storage {name[:40]} claims {claim:,} bytes and the file has {max(available, 0):,} for it"
            )
        if view and view[0].kind == "tuple":
            ints = _ints(view[0].data[1:])
            if len(ints) != 2 or min(ints) < 0 or sum(ints) > elements.data:
                raise ValueError(f"a view of storage {name[:40]} goes beyond it")
            claim = ints[1] * item_size
        return Value("storage", data=(claim, item_size))


def _int(stream: Stream, form: str) -> int:
    (value,) = struct.unpack(form, stream.read(struct.calcsize(form)))
    return int(value)


def _tuple(items: list[Value]) -> Value:
    size = 1 + sum(item.size for item in items)
    depth = 1 + max((item.depth for item in items), default=0)
    if depth > limits().nesting:
        raise ValueError(too_much(f"its pickle has tuples in tuples {depth} levels deep", "nesting"))
    return Value("tuple", min(size, 2**62), depth, tuple(items))


def _ints(values: Any) -> list[int]:
    return [value.data for value in values if value.kind == "int"]


def _check_geometry(arguments: Any, dtype: Value | None) -> None:
    """Refuse a tensor, given by (storage, offset, size, stride, ...), that goes beyond its storage."""
    storage, offset, size, stride, *_ = arguments if len(arguments) >= 4 else [OTHER] * 4
    if storage.kind != "storage" or offset.kind != "int" or {size.kind, stride.kind} != {"tuple"}:
        raise ValueError("its pickle describes a tensor in an unknown way")
    lengths, steps = _ints(size.data), _ints(stride.data)
    if len(lengths) != len(size.data) or len(lengths) != len(steps) or min([0, offset.data, *lengths, *steps]) < 0:
        raise ValueError("its pickle describes a tensor of impossible sizes")
    held, item_size = storage.data
    if dtype is not None:
        named = getattr(torch, str(dtype.data).removeprefix("torch."), None)
        item_size = named.itemsize if isinstance(named, torch.dtype) else item_size
    last = sum((length - 1) * step for length, step in zip(lengths, steps, strict=True))
    if 0 not in lengths and (offset.data + last + 1) * item_size > held:
        raise ValueError(f"a tensor of {lengths} goes beyond its storage of {held:,} bytes")
