"""Typed values out of plain data, with messages that name the file, the key and what is accepted."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from densevit_runtime.errors import CheckpointError

Rgb = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_T = TypeVar("_T")


class Reader:
    """Takes the values of a mapping, one key after the other, each through its check."""

    def __init__(self, data: Any, where: str, cls: type[Any]) -> None:
        self.where = where
        if not isinstance(data, dict):
            raise CheckpointError(f"{where} hold {type(data).__name__}; a mapping is accepted; export the model again")
        known = [one.name for one in fields(cls)]
        if unknown := sorted(set(data) - set(known)):
            raise CheckpointError(f"{where} have the unknown key {unknown[0][:60]!a}; {', '.join(known)} are accepted")
        self.data = data

    def __call__(self, key: str, check: Callable[[Any], _T], *default: Any) -> _T:
        """The value of a key; the default, if there is one, where the key is absent."""
        if key not in self.data and default:
            value: _T = default[0]
            return value
        if key not in self.data:
            raise CheckpointError(f"{self.where} lack the key {key!r}; export the model again")
        try:
            return check(self.data[key])
        except ValueError as error:
            given = repr(self.data[key])
            given = f"{given[:60]}..." if len(given) > 60 else given
            raise CheckpointError(
                f"{self.where} have {key} {given}; {error} accepted; export the model again"
            ) from None

    def build(self, cls: type[_T], **values: Any) -> _T:
        """The object; what it refuses itself is said of the file."""
        try:
            return cls(**values)
        except CheckpointError as error:
            raise CheckpointError(f"{self.where}: {error}; export the model again") from None


def _check(condition: bool, accepted: str) -> None:
    if not condition:
        raise ValueError(accepted)


def text(value: Any) -> str:
    """Check: text."""
    _check(isinstance(value, str), "text is")
    return str(value)


def flag(value: Any) -> bool:
    """Check: true or false."""
    _check(isinstance(value, bool), "true or false is")
    return bool(value)


def whole(value: Any) -> int:
    """Check: a whole number."""
    _check(isinstance(value, int) and not isinstance(value, bool), "a whole number is")
    return int(value)


def size(value: Any) -> int:
    """Check: a positive whole number."""
    _check(isinstance(value, int) and not isinstance(value, bool) and value > 0, "positive whole numbers are")
    return int(value)


def number(value: Any) -> float:
    """Check: a number."""
    _check(isinstance(value, int | float) and not isinstance(value, bool), "a number is")
    return float(value)


def mapping(value: Any) -> dict[str, Any]:
    """Check: a mapping."""
    _check(isinstance(value, dict), "a mapping is")
    return dict(value)


def numbers(value: Any) -> dict[str, float]:
    """Check: a mapping to numbers."""
    return {key: number(one) for key, one in mapping(value).items()}


def one_of(accepted: tuple[Any, ...]) -> Callable[[Any], Any]:
    """A check: one of these texts."""

    def check(value: Any) -> Any:
        _check(isinstance(value, str) and value in accepted, f"{' or '.join(map(repr, accepted))} is")
        return value

    return check


def optional(check: Callable[[Any], _T]) -> Callable[[Any], _T | None]:
    """A check: null, or what another accepts."""
    return lambda value: None if value is None else check(value)


def list_of(check: Callable[[Any], _T]) -> Callable[[Any], tuple[_T, ...]]:
    """A check: a list of what another accepts."""

    def check_all(value: Any) -> tuple[_T, ...]:
        _check(isinstance(value, list), "a list is")
        return tuple(check(one) for one in value)

    return check_all


def pair_of(check: Callable[[Any], int]) -> Callable[[Any], tuple[int, int]]:
    """A check: two numbers that another accepts."""

    def check_both(value: Any) -> tuple[int, int]:
        _check(isinstance(value, list) and len(value) == 2, "a list of two numbers is")
        return check(value[0]), check(value[1])

    return check_both


def triple_of(check: Callable[[Any], int]) -> Callable[[Any], tuple[int, int, int]]:
    """A check: three numbers that another accepts."""

    def check_all(value: Any) -> tuple[int, int, int]:
        _check(isinstance(value, list) and len(value) == 3, "a list of three numbers is")
        return check(value[0]), check(value[1]), check(value[2])

    return check_all


def colour(value: Any) -> Rgb:
    """Check: red, green and blue."""
    rgb = triple_of(whole)(value)
    _check(all(0 <= part <= 255 for part in rgb), "numbers from 0 to 255 are")
    return rgb
