"""Published weights by name: the table of what others publish and densevit reads exactly."""

from collections.abc import Mapping
from types import MappingProxyType

from densevit.checkpoints.published.dpt import DPT
from densevit.checkpoints.published.row import PERMISSIVE, UNSTATED, Origin, Published

ROWS: tuple[Published, ...] = (*DPT,)

PUBLISHED: Mapping[str, Published] = MappingProxyType({row.name: row for row in ROWS})
"""The rows by name."""

_SPELLINGS = {spelling: row for row in reversed(ROWS) for spelling in (row.preset, *row.aliases) if spelling}
_SPELLINGS |= PUBLISHED


def find_published(name: str) -> Published | None:
    """The row that a name means: its own, one of its aliases, or that of a preset with published weights."""
    return _SPELLINGS.get(name)


__all__ = ["PERMISSIVE", "PUBLISHED", "UNSTATED", "Origin", "Published", "find_published"]
