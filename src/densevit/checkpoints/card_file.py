"""The README.md of a folder of weights: the licence in its YAML header, and whether a person has changed it."""

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import yaml

from densevit.plain_data import parse_yaml, read_text
from densevit_runtime.licences import usual_form

CARD_FILE = "README.md"
_HEADER = re.compile(r"\A---\s*\n(?P<yaml>.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_SEAL = "<!-- written by densevit; a card that a person has changed is kept: sha256 {} -->\n"
_log = logging.getLogger(__name__)


def seal(text: str) -> str:
    """The text of a card with its hash, by which ``is_sealed`` recognises it."""
    return text + _SEAL.format(hashlib.sha256(text.encode()).hexdigest())


def is_sealed(text: str) -> bool:
    """Whether a card is as densevit wrote it; git may have changed the ends of its lines."""
    body, _, last = text.replace("\r\n", "\n").rstrip("\n").rpartition("\n")
    return bool(body) and f"{last}\n" == _SEAL.format(hashlib.sha256(f"{body}\n".encode()).hexdigest())


def header_of(text: str) -> dict[str, Any]:
    """The YAML header of a card; empty if there is none.

    Raises:
        ValueError: if it is not YAML, or no mapping.
    """
    if (match := _HEADER.match(text)) is None:
        return {}
    try:
        data = parse_yaml(match["yaml"])
    except yaml.YAMLError as error:
        raise ValueError(f"its header is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise ValueError("its header is no mapping")
    return data


def licence_beside(weights: Path) -> str | None:
    """The licence that the card next to a weights file states; None if there is no card, or it states none.

    The hub's identifiers become SPDX's: Apache-2.0 for apache-2.0. For "other" it is the name of the licence.
    """
    path = weights.parent / CARD_FILE
    try:
        header = header_of(read_text(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        _log.warning("the licence in %s cannot be read (%s); state it with --licence", path, error)
        return None
    return licence_of(header)


def licence_of(header: dict[str, Any]) -> str | None:
    """The licence in the header of a card, several joined by AND; None if it states none."""
    stated = header.get("license")
    names = [name for name in (stated if isinstance(stated, list) else [stated]) if isinstance(name, str)]
    own = header.get("license_name")
    names = [own if name == "other" and isinstance(own, str) else name for name in names]
    found = [usual_form(name[:200]) for name in names]
    return " AND ".join(found) or None
