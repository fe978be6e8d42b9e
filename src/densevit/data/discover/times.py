"""Photos and depth of cameras that name their files after the time, which is never quite the same."""

import re
from collections.abc import Mapping
from typing import Any

from densevit.data.discover.candidates import KINDS, Candidate
from densevit.data.discover.groups import Group, Key, group
from densevit.data.discover.tree import Tree, counted
from densevit.data.nearest import nearest_names

STAMP = re.compile(r"\d{9,19}(?:\.\d+)?")
MOST_S = 0.02
"""Frames of one moment are at most so many seconds apart, as in associate.py of TUM RGB-D."""

_UNITS = ((18, 1e9), (15, 1e6), (12, 1e3))
"""Digits of today's time in nanoseconds, microseconds and milliseconds since 1970, and how many are a second."""


def by_times(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos with the depth, or another target, that was taken nearest to them in time."""
    if given.keys() & {"images", *KINDS}:
        return []
    groups = [one for one in group(tree.pixels) if all(STAMP.fullmatch(name) for _, _, name in one.files)]
    for photos in (one for one in groups if one.role == "images"):
        for kind in KINDS:
            for targets in (one for one in groups if one.role == kind):
                if (found := _candidate(photos, targets)) is not None:
                    return [found]
    return []


def _candidate(photos: Group, targets: Group) -> Candidate | None:
    kind = next(kind for kind in KINDS if kind == targets.role)
    digits = max(len(name.partition(".")[0]) for _, _, name in photos.files)
    second = next((number for least, number in _UNITS if digits > least), 1.0)
    paired: set[Key] = set()
    for place in {key[:2] for key in photos.files}:
        ours, theirs = ([name for *at, name in one.files if tuple(at) == place] for one in (photos, targets))
        paired |= {(*place, name) for name in nearest_names(ours, theirs, MOST_S * second)}
    if not paired:
        return None
    text = (
        f"{counted(len(paired), 'photo')} take the {kind} that is nearest in time, at most {MOST_S} s apart (nearest)"
    )
    return Candidate(photos, {kind: targets}, frozenset(paired), {"nearest": MOST_S * second}, [text])
