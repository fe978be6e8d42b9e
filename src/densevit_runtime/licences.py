"""Licences of weights: what they allow, how that is said, and which of several is the strictest.

A licence is an SPDX identifier or expression, ``unstated`` (``unknown`` in older files), or the authors' own words.
"""

import logging
import re
from collections.abc import Iterable
from typing import Literal

Terms = Literal["permissive", "other", "unstated", "non-commercial"]
"""What a licence allows, from the most to the least; "other" is a licence that has to be read."""

UNSTATED = "unstated"
"""Licence of weights whose authors state none."""

PERMISSIVE = frozenset({"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-4.0", "CC0-1.0", "ISC", "MIT"})
"""SPDX identifiers of licences that allow any use, commercial included, for attribution and their text."""

_ORDER: tuple[Terms, ...] = ("permissive", "other", "unstated", "non-commercial")
_NOTHING = frozenset({"", "-", "none", "unknown", "unstated"})
# CC-BY-NC-4.0 and words such as "research use only"; the licences of Apple and NVIDIA say so only in their text.
_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non.?commercial|research|amlr|nvidia source code", re.IGNORECASE)
_USUAL = {name.lower(): name for name in PERMISSIVE}

_announced: set[tuple[str, str]] = set()


def usual_form(licence: str) -> str:
    """A licence in SPDX's spelling: Apache-2.0 for apache-2.0, CC-BY-NC-4.0 for cc-by-nc-4.0, unstated for unknown."""
    licence = " ".join(licence.split())
    if licence.lower() in _NOTHING:
        return UNSTATED
    lower = licence.lower()
    return _USUAL.get(lower, licence.upper() if re.fullmatch(r"cc-by[\w.-]*", lower) else licence)


def parts(licence: str) -> tuple[str, ...]:
    """The licences of an SPDX expression such as ``MIT AND CC-BY-NC-4.0``, all of which have to be kept."""
    return tuple(dict.fromkeys(usual_form(part) for part in re.split(r"\s+AND\s+", licence.strip())))


def terms(licence: str) -> Terms:
    """What a licence allows; of an expression, what its strictest part does."""
    return max((_terms(part) for part in parts(licence)), key=_ORDER.index)


def _terms(licence: str) -> Terms:
    if licence == UNSTATED:
        return "unstated"
    if _NON_COMMERCIAL.search(licence):
        return "non-commercial"
    return "permissive" if licence in PERMISSIVE else "other"


def is_stricter(one: str, other: str) -> bool:
    """Whether one licence allows less than another, as far as ``terms`` tells them apart."""
    return _ORDER.index(terms(one)) > _ORDER.index(terms(other))


def strictest(licences: Iterable[str]) -> str:
    """The licence of weights that were made from others: the strictest of theirs, several of them joined by AND.

    Of ``MIT`` and ``CC-BY-NC-4.0`` it is the latter; of ``MIT`` and ``Apache-2.0``, which allow the same, both.
    """
    found = tuple(dict.fromkeys(part for licence in licences for part in parts(licence)))
    if not found:
        return UNSTATED
    least = max(map(_terms, found), key=_ORDER.index)
    return " AND ".join(part for part in found if _terms(part) == least)


def in_words(licence: str) -> str:
    """A licence with what it means for use, such as ``CC-BY-NC-4.0 (non-commercial use only)``."""
    meaning = terms(licence)
    if meaning == "unstated":
        return "not stated; ask the authors before you use or share them"
    return f"{licence} (non-commercial use only)" if meaning == "non-commercial" else licence


def announce(name: str, licence: str, log: logging.Logger, *, has_publisher: bool = False) -> None:
    """Log the licence of weights, once per process; as a warning where commercial use is not allowed.

    Args:
        name: by which they were loaded.
        licence: on their card.
        log: of the caller.
        has_publisher: whether somebody publishes them, so that it is news if they state none.
    """
    if (name, licence) in _announced or (terms(licence) == "unstated" and not has_publisher):
        return
    _announced.add((name, licence))
    level = logging.WARNING if terms(licence) == "non-commercial" else logging.INFO
    log.log(level, "licence of the weights of %s: %s", name, in_words(licence))
