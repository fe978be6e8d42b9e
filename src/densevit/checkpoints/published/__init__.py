"""Published weights by name: the table of what others publish and densevit reads exactly."""

from collections.abc import Mapping
from types import MappingProxyType

from densevit.checkpoints.published.depth_anything import DEPTH_ANYTHING
from densevit.checkpoints.published.dinov2 import DINOV2
from densevit.checkpoints.published.dpt import DPT
from densevit.checkpoints.published.mmseg import MMSEG
from densevit.checkpoints.published.row import Origin, Published
from densevit.checkpoints.published.segmenter import SEGMENTER

__all__ = ["PUBLISHED", "Origin", "Published", "find_published"]

_ROWS = (*MMSEG, *SEGMENTER, *DPT, *DINOV2, *DEPTH_ANYTHING)

PUBLISHED: Mapping[str, Published] = MappingProxyType({row.name: row for row in _ROWS})
"""The rows by name."""

# Of several rows of one preset, the first is meant by the preset's name unless one has that name.
_SPELLINGS = {spelling: row for row in reversed(_ROWS) for spelling in (row.preset, *row.aliases)}
_SPELLINGS |= PUBLISHED


def find_published(name: str) -> Published | None:
    """The row that a name means: its own, one of its aliases, or that of a preset with published weights."""
    return _SPELLINGS.get(name)
