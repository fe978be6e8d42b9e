"""Typed configuration: frozen pydantic models <-> YAML, with ``--set a.b=c`` and helpful error messages."""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from densevit.errors import ConfigError
from densevit.limits import limits, too_much
from densevit.plain_data import check_scalar, parse_yaml, read_text


class Config(BaseModel):
    """Base of every config: immutable, and unknown keys are refused with the nearest known name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, source: str = "config") -> Self:
        """Validate plain data.

        Raises:
            ConfigError: listing every problem, with the nearest accepted name for unknown keys.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = "\n".join(f"  {_explain(problem, cls)}" for problem in _causes(error))
            raise ConfigError(f"{source} is not a valid {cls.__name__}:\n{problems}") from None
        except (ArithmeticError, RecursionError) as error:
            raise ConfigError(f"{source} is not a valid {cls.__name__}: a value is out of range ({error})") from None

    def plain(self) -> dict[str, Any]:
        """The config as plain data for YAML and JSON; the inverse of ``parse``."""
        return self.model_dump(mode="json")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: if the file is missing, not YAML, too large, or not a mapping.
    """
    try:
        data = parse_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}; give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}; correct the line named") from None
    except ValueError as error:
        raise ConfigError(f"config {path} cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, but a config is a mapping of keys to values")
    return data


def to_yaml(config: Config) -> str:
    """The config as YAML text, with keys in the order of definition."""
    return yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True, width=120)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge mappings recursively; values of ``over`` win, and lists and scalars are replaced as a whole.

    A mapping whose ``kind`` changes is replaced as a whole too, since its other keys belong to the old kind.
    """
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _merged(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping) and new.get("kind", old.get("kind")) == old.get("kind"):
        return merge(old, new)
    return new


def set_values(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Merge values into plain data; keys may be paths such as ``optim.lr``, and values mappings.

    Raises:
        ConfigError: if a key leads through a scalar or beyond the end of a list.
    """
    merged = dict(data)
    for key, value in values.items():
        keys = str(key).split(".")
        if len(keys) > limits().nesting:
            raise ConfigError(too_much(f"a key has {len(keys)} parts", "nesting"))
        merged = _set(merged, keys, value, f"{key} = {value!r:.100}")
    return merged


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Set ``a.b=c`` pairs in plain data; values are read as YAML, so ``3e-5``, ``true`` and ``[1, 2]`` work.

    A number in a key is an index into a list: ``sources.0.batch_size=4``.

    Args:
        data: the plain data, which is not changed.
        overrides: the pairs.
        option: the command-line option of the pairs, for messages.

    Raises:
        ConfigError: if a pair has no ``=``, or its key leads through a scalar or beyond the end of a list.
    """
    merged = dict(data)
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            example = {"--set": " optim.lr=3e-5"}.get(option, " key=value")
            raise ConfigError(f"{option} got {pair!r} but takes KEY=VALUE, for example {option}{example}")
        given = f"{option} got {pair if len(pair) < 200 else pair[:200] + '...'!r}"
        keys = key.strip().split(".")
        if len(keys) > limits().nesting:
            raise ConfigError(too_much(f"{given} with {len(keys)} keys in a row", "nesting"))
        try:
            value = _scalar(text)
        except ValueError as error:
            raise ConfigError(f"{given}: {error}; correct the value, or put a text in quotes") from None
        merged = _set(merged, keys, value, given)
    return merged


def _set(data: Any, path: Sequence[str], value: Any, given: str, parents: tuple[str, ...] = ()) -> Any:
    """A copy of ``data`` with a value merged at a path below it."""
    if not path:
        return _merged(data, value)
    key, rest = path[0], path[1:]
    where = ".".join(parents)
    if data is None or isinstance(data, Mapping):
        mapping = data or {}
        return _merged(mapping, {key: _set(mapping.get(key), rest, value, given, (*parents, key))})
    if not isinstance(data, list | tuple):
        raise ConfigError(f"{given} but {where} is {data!r}, which has no keys; set {where} as a whole")
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(data):
        numbers = f"its items are {where}.0 to {where}.{len(data) - 1}; " if data else ""
        raise ConfigError(f"{given} but {where} is a list of {len(data)}; {numbers}or set {where} as a whole")
    index = int(key)
    return [*data[:index], _set(data[index], rest, value, given, (*parents, key)), *data[index + 1 :]]


def _scalar(text: str) -> Any:
    if len(text) > limits().config_bytes:
        raise ValueError(too_much(f"the value has {len(text):,} characters", "config_bytes"))
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        value = text
    check_scalar(text)
    if re.fullmatch(r"[-+]?\d+\.?\d*[eE][-+]?\d+", text.strip()):  # YAML 1.1 reads "3e-5" as text
        return float(text)
    return value


def bounded(limit: str) -> AfterValidator:
    """A validator that refuses numbers above a limit of the budget, and more entries than that in a tuple."""

    def check(value: Any) -> Any:
        size = len(value) if isinstance(value, tuple) else value
        if size is not None and size > getattr(limits(), limit):
            raise ValueError(too_much(f"{size:,} is given", limit))
        return value

    return AfterValidator(check)


PositiveWidth = Annotated[int, Field(gt=0), bounded("width")]
"""Channels, or patches or pixels along one side."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close, else nothing."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close, else the list of known names."""
    options = sorted(set(known))
    return did_you_mean(name, options) or f"; known: {', '.join(options)}"


def _causes(error: ValidationError) -> list[Any]:
    """The problems, without those of lists that are too short only because their items are wrong."""
    problems = error.errors()
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(other is not problem and other["loc"][: len(problem["loc"])] == problem["loc"] for other in problems)
    ]


def _explain(problem: Any, model: type[BaseModel]) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{location}: unknown key{_suggest([str(part) for part in problem['loc']], model)}"
    given = problem.get("input")
    shown = "" if isinstance(given, dict | list | BaseModel) or problem["type"] == "missing" else f" (got {given!r})"
    return f"{location or 'config'}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _suggest(location: Sequence[str], model: type[BaseModel]) -> str:
    """What an unknown key may be: a key of this name elsewhere, else a close one here, else a close one elsewhere."""
    *parents, key = location
    paths = list(_field_paths(model))
    if same := [*dict.fromkeys(".".join(path) for path in paths if path[-1] == key)]:
        return f"; did you mean {' or '.join(map(repr, same[:3]))}?"
    depths = [_depth_below(parents, path[:-1]) for path in paths]
    here = [path[-1] for path, depth in zip(paths, depths, strict=True) if depth == max(depths)]
    if hint := did_you_mean(key, here):
        return hint
    close = difflib.get_close_matches(key, [path[-1] for path in paths], n=1, cutoff=0.6)
    shown = next((".".join(path) for path in paths if path[-1] in close), None)
    return f"; did you mean {shown!r}?" if shown else nearest(key, [path[-1] for path in paths])


def _depth_below(parents: Sequence[str], path: Sequence[str]) -> int:
    """Number of keys of a path if they occur in this order among the parents of a key, else -1."""
    names = [name for name in path if name not in _PLACEHOLDERS]
    left = iter(parents)
    return len(names) if all(name in left for name in names) else -1


def _field_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """The fields of a model and of the models inside it, each model once; short paths first."""
    visited: set[type[BaseModel]] = set()
    queue: list[tuple[tuple[str, ...], type[BaseModel]]] = [((), model)]
    for path, current in queue:
        if current in visited:
            continue
        visited.add(current)
        for name, field in current.model_fields.items():
            yield (*path, name)
            queue.extend(((*path, name, *inner), found) for inner, found in _models_in(field.annotation))


_PLACEHOLDERS = ("0", "NAME")
"""Stand for an item of a list and for a key of a mapping."""


def _models_in(annotation: Any) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """The models of an annotation, and placeholders that lead to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield (), annotation
        for subclass in annotation.__subclasses__():
            yield (), subclass
    origin = typing.get_origin(annotation)
    inner = ("0",) if origin in (list, tuple) else ("NAME",) if origin is dict else ()
    for argument in typing.get_args(annotation):
        for path, model in _models_in(argument):
            yield (*inner, *path), model
