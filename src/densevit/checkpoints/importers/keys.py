"""What an importer does with each key of a config file; a key that no table lists is an error."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from densevit.errors import CheckpointError

NOT_STATED = object()


@dataclass(frozen=True)
class Key:
    """One key of a config file.

    Attributes:
        handling: "used" by the importer, "checked" for the values that can be reproduced, or "ignored".
        note: what it is used for, which values are accepted, or why it is ignored.
        accepts: of a checked key, whether a value can be reproduced.
        default: of a checked key, the value where it is not stated, which is then checked too.
    """

    handling: Literal["used", "checked", "ignored"]
    note: str
    accepts: Callable[[Any], bool] | None = None
    default: Any = NOT_STATED


KeyTable = Mapping[str, Key]


def used(note: str, *names: str) -> dict[str, Key]:
    """Keys that the importer reads."""
    return dict.fromkeys(names, Key("used", note))


def ignored(reason: str, *names: str) -> dict[str, Key]:
    """Keys that do not matter for the model's output."""
    return dict.fromkeys(names, Key("ignored", reason))


def checked(*values: Any, default: Any = NOT_STATED) -> Key:
    """A key with one implementation here; sequences are compared as lists, text in any case."""
    texts = [repr(value) for value in values]
    note = f"only {' or '.join(texts)} can be reproduced"
    return Key("checked", note, lambda value: any(_equal(value, known) for known in values), default)


def checked_by(accepts: Callable[[Any], bool], note: str, default: Any = NOT_STATED) -> Key:
    """A key whose accepted values ``note`` describes, such as "only ReLU can be reproduced"."""
    return Key("checked", note, accepts, default)


def _equal(value: Any, known: Any) -> bool:
    if isinstance(value, str) and isinstance(known, str):
        return value.lower() == known.lower()
    if isinstance(value, list | tuple) and isinstance(known, list | tuple):
        return list(value) == list(known)
    return type(value) is not str and bool(value == known)


def check_keys(data: Mapping[Any, Any], table: KeyTable, *, where: str, source: str, program: str) -> None:
    """Refuse keys that the table does not list, and values that cannot be reproduced.

    Args:
        data: a config, or one part of it.
        table: every key that is known.
        where: what the messages call the config, such as "config.json".
        source: what they call the checkpoint.
        program: that can run the model as it is.

    Raises:
        CheckpointError: naming every unknown key, or the first value that cannot be reproduced.
    """
    refuse_unknown(data, table, where=where, source=source, program=program)
    for name, key in table.items():
        if key.accepts is None:
            continue  # not read here, since its value may be unknown
        stated = data.get(name, key.default)
        if stated is not NOT_STATED and not key.accepts(stated):
            said = f"{name}={stated!r}" if name in data else f"no {name}, which is {stated!r} by default,"
            raise CheckpointError(f"{source} has {said} in its {where}, but {key.note}; run the model with {program}")


def refuse_unknown(data: Mapping[Any, Any], known: Collection[str], *, where: str, source: str, program: str) -> None:
    """Refuse keys that are not known.

    Raises:
        CheckpointError: naming all of them.
    """
    unknown = [str(name)[:80] for name in data if name not in known]
    if unknown:
        raise CheckpointError(
            f"{source} has keys in its {where} that are not known: {', '.join(unknown[:20])}; nothing is guessed about "
            f"them; the known ones are in docs/reference/importer-keys.md; run the model with {program}, or, if they "
            "do not change the model's output, remove them from the config"
        )
