"""Read configs written in Python as data; nothing in them is run.

Literals, names assigned before, ``dict(...)``, items of these, and arithmetic on them are computed. Every other value
is ``Unknown``: it hurts only whoever reads it, through ``Settings``.
"""

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from densevit.errors import CheckpointError
from densevit.limits import limits, too_much
from densevit.plain_data import check_scalar, check_size

MAX_LENGTH = 1_000_000  # characters of Python; real configs have tens of thousands
MAX_EXPONENT = 64
LARGEST = 2**63
WHOLE = "**"  # the key of a mapping whose other keys cannot be relied on, such as that of dict(a=1, **f())
_MUTATORS = frozenset(
    {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault", "sort", "update"}
)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True)
class Unknown:
    """A value that only running the config would give.

    Attributes:
        node: what it is computed by.
    """

    node: ast.AST

    def __repr__(self) -> str:
        try:
            text = " ".join(ast.unparse(self.node).split())
        except RecursionError:
            return "..."
        return text if len(text) <= 80 else f"{text[:77]}..."


class Settings(Mapping[str, Any]):
    """A config, or a part of one, whose unknown values are refused when they are read."""

    def __init__(self, data: Mapping[str, Any], source: str, place: str = "") -> None:
        """Take the data of ``read_literals``; ``source`` and ``place``, such as "model.neck", are for messages."""
        self._data, self._source, self._place = data, source, place

    def __getitem__(self, name: str) -> Any:
        return self._known(self._whole()[name], f"{self._place}.{name}".lstrip("."))

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __contains__(self, name: object) -> bool:
        return name in self._whole()

    def __or__(self, over: Mapping[str, Any]) -> "Settings":
        return Settings({**self._data, **over}, self._source, self._place)

    def __repr__(self) -> str:
        return repr(self._data)

    def _whole(self) -> Mapping[str, Any]:
        self._known(self._data.get(WHOLE), self._place or "the whole config")
        return self._data

    def _known(self, value: Any, place: str) -> Any:
        if isinstance(value, Unknown):
            raise CheckpointError(
                f"{self._source}: {place} is computed in the config ({value!r}), and nothing in it is run; write its "
                "value, or give the complete config that the training program wrote into its work folder"
            )
        if isinstance(value, dict):
            return Settings(value, self._source, place)
        if isinstance(value, list | tuple):
            return type(value)(self._known(item, f"{place}[{index}]") for index, item in enumerate(value))
        return value


def read_literals(text: str, source: str) -> dict[str, Any]:
    """The assignments of a config in Python, with ``Unknown`` where only running it would give the value.

    Args:
        text: such as the ``cfg`` that mmsegmentation stores in a checkpoint.
        source: what messages call it.

    Raises:
        CheckpointError: if it is not Python, or its values are too many.
    """
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"{len(text)} characters")
        reader = _Reader()
        for statement in ast.parse(text).body:
            reader.read(statement)
        check_values(reader.names)  # names can double what they name, again and again
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"the config of {source} cannot be read ({type(error).__name__}: {error}); give the model's config file, "
            "which is Python, to `densevit convert` by --config, or the options that replace it"
        ) from None
    return reader.names


def check_values(data: Mapping[str, Any]) -> None:
    """``check_plain`` for data with unknown values."""
    check_size(data, _items)


class _Reader:
    """Values by name, which share lists and mappings as they would when the config is run."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}
        self.num_copied = 0

    def read(self, statement: ast.stmt) -> None:
        """Follow one statement of the top level."""
        match statement:
            case ast.Assign(targets=targets, value=node):
                value = self.value(node)
                self.follow_calls(node, _MUTATORS)
                for target in targets:
                    self.assign(target, value, statement)
            case ast.AnnAssign(target=target, value=ast.expr() as node):
                value = self.value(node)
                self.follow_calls(node, _MUTATORS)
                self.assign(target, value, statement)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                self.names[name] = Unknown(ast.Name(name))
            case ast.Expr(value=ast.Constant()) | ast.AnnAssign():
                pass
            case _:
                self.give_up(statement)

    def assign(self, target: ast.expr, value: Any, statement: ast.stmt) -> None:
        """Bind a name, several, or an item of what a name holds."""
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=elts) | ast.List(elts=elts) if not any(isinstance(e, ast.Starred) for e in elts):
                fits = isinstance(value, list | tuple) and len(value) == len(elts)
                for one, item in zip(elts, value if fits else [Unknown(statement)] * len(elts), strict=True):
                    self.assign(one, item, statement)
            case ast.Subscript(value=holder, slice=index):
                place, key = self.value(holder), self.value(index)
                if isinstance(place, dict) and isinstance(key, str):
                    place[key] = value
                else:
                    self.give_up(statement)
            case _:
                self.give_up(statement)

    def give_up(self, statement: ast.stmt) -> None:
        """Make unknown whatever a statement may bind or change."""
        unknown = Unknown(statement)
        for node in ast.walk(statement):
            match node:
                case ast.AugAssign(target=ast.Name(id=name)):
                    self.spoil(self.names.get(name), unknown)  # a list grows under all its names
                case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                    self.names[name] = unknown
                case ast.Subscript(ctx=ast.Store() | ast.Del()) | ast.Attribute(ctx=ast.Store() | ast.Del()):
                    self.spoil_root(node, unknown)
                case ast.alias(name=name, asname=other):
                    self.names[WHOLE if name == "*" else other or name.partition(".")[0]] = unknown
        self.follow_calls(statement, None)

    def follow_calls(self, tree: ast.AST, methods: frozenset[str] | None) -> None:
        """Make unknown what calls may change: of the methods the owner; if these are None, all arguments too."""
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="print")):
                    pass
                case ast.Call(func=function, args=args, keywords=keywords):
                    unknown = Unknown(node)
                    if isinstance(function, ast.Attribute) and (methods is None or function.attr in methods):
                        self.spoil_root(function, unknown)
                    for argument in [*args, *(k.value for k in keywords)] if methods is None else ():
                        self.spoil_root(argument, unknown)
                case ast.NamedExpr(target=ast.Name(id=name)):
                    self.names[name] = Unknown(node)

    def spoil_root(self, node: ast.AST, unknown: Unknown) -> None:
        """Make unknown what the name at the start of ``a.b['c']`` holds."""
        while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            node = node.value
        if isinstance(node, ast.Name) and node.id in self.names:
            self.spoil(self.names[node.id], unknown)

    def spoil(self, value: Any, unknown: Unknown) -> None:
        """Make all unknown that a value holds, under whatever names."""
        queue, seen = [value], set()
        while queue:
            held = queue.pop()
            if id(held) in seen or not isinstance(held, dict | list | tuple):
                continue
            seen.add(id(held))
            queue += held.values() if isinstance(held, dict) else held
            self.spend(len(held))
            if isinstance(held, dict):
                held.clear()
                held[WHOLE] = unknown
            elif isinstance(held, list):
                held[:] = [unknown]

    def value(self, node: ast.expr) -> Any:
        """What an expression is, without running anything."""
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return value
            case ast.Name(id=name):
                return self.names.get(name, Unknown(node))
            case ast.List(elts=items) | ast.Tuple(elts=items) if not any(isinstance(i, ast.Starred) for i in items):
                values = [self.value(item) for item in items]
                return values if isinstance(node, ast.List) else tuple(values)
            case ast.Dict(keys=keys, values=dict_values):
                return self.mapping(node, zip(keys, dict_values, strict=True))
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords) if "dict" not in self.names:
                named = [(ast.Constant(k.arg) if k.arg else None, k.value) for k in keywords]
                return self.mapping(node, [*((None, argument) for argument in args), *named])
            case ast.Subscript(value=holder, slice=index):
                return _item(self.value(holder), self.value(index), node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.arithmetic(node, operator.sub, 0, self.value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return self.arithmetic(node, _ARITHMETIC[type(op)], self.value(left), self.value(right))
        return Unknown(node)

    def mapping(self, node: ast.expr, pairs: Iterable[tuple[ast.expr | None, ast.expr]]) -> dict[Any, Any]:
        """A mapping of keys, None for ``**``, and values."""
        made: dict[Any, Any] = {}
        for key_node, value_node in pairs:
            value = self.value(value_node)
            if key_node is None:
                made.update(value if isinstance(value, dict) else {WHOLE: Unknown(value_node)})
                self.spend(len(made))
                continue
            key = self.value(key_node)
            made |= {key: value} if isinstance(key, str | int) else {WHOLE: Unknown(node)}
        return made

    def arithmetic(self, node: ast.expr, compute: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
        """The result for two numbers, or the sum of two texts, lists or tuples, if it is plain and small."""
        numbers = all(isinstance(value, int | float) and abs(value) < LARGEST for value in (left, right))
        if not numbers and not (
            compute is operator.add and type(left) is type(right) and isinstance(left, str | list | tuple)
        ):
            return Unknown(node)
        if compute is operator.pow and abs(right) > MAX_EXPONENT:
            return Unknown(node)
        try:
            result = -right if isinstance(node, ast.UnaryOp) else compute(left, right)
            if not isinstance(result, list | tuple):
                check_scalar(result)
        except (ArithmeticError, ValueError):
            return Unknown(node)
        if not numbers:
            self.spend(len(result))
        return result

    def spend(self, amount: int) -> None:
        """Bound what is copied in all."""
        self.num_copied += amount
        if self.num_copied > limits().nodes:
            raise ValueError(too_much("it copies more values", "nodes"))


def _item(holder: Any, key: Any, node: ast.expr) -> Any:
    whole = isinstance(holder, dict | list | tuple) and not (isinstance(holder, dict) and WHOLE in holder)
    try:
        return operator.getitem(holder, key) if whole and isinstance(key, str | int) else Unknown(node)
    except (LookupError, TypeError):
        return Unknown(node)


def _items(value: Any) -> Iterable[Any] | None:
    """The values inside one, for ``check_size``."""
    if isinstance(value, dict):
        return [item for pair in value.items() for item in pair]
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, Unknown):
        check_scalar(value)
    return None
