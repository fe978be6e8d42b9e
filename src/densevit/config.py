"""Typed configuration: frozen pydantic models <-> YAML, with ``--set a.b=c`` and helpful refusals."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from densevit.errors import ConfigError


class Config(BaseModel):
    """Base of every config: immutable, and unknown keys are refused with the nearest known name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, source: str = "config") -> Self:
        """Validate plain data.

        Raises:
            ConfigError: every problem on a line of its own, with the nearest accepted name for unknown keys.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            problems = "\n".join(f"  {_explain(problem, cls)}" for problem in error.errors())
            raise ConfigError(f"{source} is not a valid {cls.__name__}:\n{problems}") from None

    def plain(self) -> dict[str, Any]:
        """The config as data that YAML and JSON can hold; ``parse`` takes it back."""
        return self.model_dump(mode="json")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: if the file is missing, not YAML, or not a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}; give the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}; mend the line named") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds {type(data).__name__}, but a config is a mapping of keys to values")
    return data


def to_yaml(config: Config) -> str:
    """The config as YAML text, keys in the order of definition."""
    return yaml.safe_dump(config.plain(), sort_keys=False, allow_unicode=True, width=120)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over`` laid on top, mapping by mapping; lists and scalars are replaced whole.

    A mapping whose ``kind`` changes is replaced whole too: its other keys belong to the old kind.
    """
    return {**base, **{key: _over(base.get(key), value) for key, value in over.items()}}


def _over(old: Any, new: Any) -> Any:
    if isinstance(old, Mapping) and isinstance(new, Mapping) and new.get("kind", old.get("kind")) == old.get("kind"):
        return merge(old, new)
    return new


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str], *, option: str = "--set") -> dict[str, Any]:
    """Lay ``a.b=c`` pairs over plain data; values are read as YAML, so ``3e-5``, ``true`` and ``[1, 2]`` work.

    A number in a key counts the items of a list: ``sources.0.batch_size=4``.

    ``option`` is the name under which the pairs were given, for messages.

    Raises:
        ConfigError: if a pair has no ``=`` or its key walks through something that has no keys, or beyond a list.
    """
    merged = dict(data)
    for pair in overrides:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            example = {"--set": " optim.lr=3e-5"}.get(option, " key=value")
            raise ConfigError(f"{option} got {pair!r} but takes KEY=VALUE, for example {option}{example}")
        merged = _lay(merged, key.strip().split("."), _scalar(text), f"{option} got {pair!r}")
    return merged


def _lay(data: Any, path: Sequence[str], value: Any, what: str, passed: tuple[str, ...] = ()) -> Any:
    """``data`` with a value laid over what is at the path below it; a number in the path counts the items of a list."""
    if not path:
        return _over(data, value)
    part, rest, where = path[0], path[1:], ".".join(passed)
    if data is None or isinstance(data, Mapping):
        found = data or {}
        return _over(found, {part: _lay(found.get(part), rest, value, what, (*passed, part))})
    if not isinstance(data, list | tuple):
        raise ConfigError(f"{what} but {where} is {data!r}, which has no keys; set {where} as a whole")
    if not part.isdecimal() or int(part) >= len(data):
        numbers = f"its items are {where}.0 to {where}.{len(data) - 1}; " if data else ""
        raise ConfigError(f"{what} but {where} is a list of {len(data)}; {numbers}or set {where} as a whole")
    index = int(part)
    return [*data[:index], _lay(data[index], rest, value, what, (*passed, part)), *data[index + 1 :]]


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if re.fullmatch(r"[-+]?\d+\.?\d*[eE][-+]?\d+", text.strip()):  # YAML 1.1 wants "3.0e-5" where people write "3e-5"
        return float(text)
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close, else nothing."""
    close = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` when a known name is close, else the list of known names."""
    options = sorted(set(known))
    return did_you_mean(name, options) or f"; known: {', '.join(options)}"


def _explain(problem: Any, model: type[BaseModel]) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{location}: unknown key{nearest(str(problem['loc'][-1]), _field_names(model))}"
    given = problem.get("input")
    shown = "" if isinstance(given, dict | list | BaseModel) or problem["type"] == "missing" else f" (got {given!r})"
    return f"{location or 'config'}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _field_names(model: type[BaseModel]) -> set[str]:
    names: set[str] = set()
    seen: set[type[BaseModel]] = set()
    queue = [model]
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        for name, field in current.model_fields.items():
            names.add(name)
            queue.extend(_models_in(field.annotation))
    return names


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        yield annotation
        yield from annotation.__subclasses__()
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
