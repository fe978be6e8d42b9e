"""Read config files written in Python without running them: only literals, names assigned before, and ``dict(...)``."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from densevit.checkpoints.importers.base import Plain
from densevit.errors import CheckpointError

MAX_LENGTH = 1_000_000  # characters; real configs have tens of thousands
UNKNOWN = object()  # the value of an expression that is no literal; left out of the mapping that it is in


def read_literals(text: str, source: str) -> Plain:
    """The assignments of a config in Python; values that only running it would give are left out.

    Args:
        text: such as the ``cfg`` that mmsegmentation stores in a checkpoint.
        source: what messages call it.

    Raises:
        CheckpointError: if it is not Python.
    """
    try:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"{len(text)} characters")
        names: Plain = {}
        for statement in ast.parse(text).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = _value(value, names)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    names[name] = _value(value, names)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CheckpointError(
            f"the config of {source} cannot be read ({type(error).__name__}: {error}); give the model's config file, "
            "which is Python, by --config, or the options that replace it"
        ) from None
    return _known(names.items())


def read_config_file(path: Path, *, depth: int = 0) -> Plain:
    """A config file merged over its ``_base_`` files, as mmengine does.

    Raises:
        CheckpointError: if a file is missing, not Python, or nested too deep.
    """
    try:
        config = read_literals(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"cannot read the config {path} ({error}), which may be a base of another; give the complete config that "
            "the training program wrote into its work folder"
        ) from None
    bases = config.pop("_base_", [])
    merged: Plain = {}
    for base in [bases] if isinstance(bases, str) else bases:
        if depth > 8:
            raise CheckpointError(f"{path} has bases of bases beyond 8 levels; correct its _base_")
        merged = _merge(merged, read_config_file(path.parent / base, depth=depth + 1))
    return _merge(merged, config)


def _merge(base: Plain, over: Mapping[str, Any]) -> Plain:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict):
            old = merged.get(key)
            kept = old if isinstance(old, dict) and not value.get("_delete_") else {}
            merged[key] = _merge(kept, {name: item for name, item in value.items() if name != "_delete_"})
        else:
            merged[key] = value
    return merged


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name, UNKNOWN)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            values = [_value(item, names) for item in items]
            if any(value is UNKNOWN for value in values):
                return UNKNOWN
            return values if isinstance(node, ast.List) else tuple(values)
        case ast.Dict(keys=keys, values=values):
            pairs = [(_value(k, names) if k else None, _value(v, names)) for k, v in zip(keys, values, strict=True)]
            return _known(pairs)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return _known((keyword.arg, _value(keyword.value, names)) for keyword in keywords)
    return UNKNOWN


def _known(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The mapping of the pairs with known keys and values."""
    return {key: value for key, value in pairs if isinstance(key, str | int) and value is not UNKNOWN}
