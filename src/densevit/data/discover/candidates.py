"""Ways to read a data set, and those that names tell."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from densevit.data.discover.contents import role_by_content
from densevit.data.discover.given import given_groups, labelme_groups, merged
from densevit.data.discover.groups import FOLDER, Group, Key, group
from densevit.data.discover.pairing import Match, common_start, match, settle, widen
from densevit.data.discover.roles import OLD, SET, Role, words_of
from densevit.data.discover.tree import Tree
from densevit.data.sample import TargetFolder

KINDS: tuple[TargetFolder, ...] = ("masks", "depth", "values")

_MOST_GROUPS, _MOST_FOLDERS, _DEEPEST, _MOST_CHOICES = 200, 8, 4, 20
_ROLES: tuple[Role, ...] = ("images", *KINDS)

_MOST = 0.5
"""A target that fewer photos have is of other photos, unless all targets have a photo."""


@dataclass
class Candidate:
    """A way to read a data set.

    Attributes:
        photos: their group.
        targets: the group of each kind; those of a file of COCO are not in it.
        pairs: keys of the photos with targets.
        keys: of ``FolderConfig``, besides what the groups say.
        remarks: sentences on what was found, assumed and passed over.
        unused: number of photos in each split that has no target at all.
        files: names of further files that it uses.
    """

    photos: Group
    targets: dict[TargetFolder, Group]
    pairs: frozenset[Key]
    keys: dict[str, Any] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    unused: dict[str, int] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    def config_keys(self) -> dict[str, Any]:
        """All keys of ``FolderConfig``."""
        found: dict[str, Any] = {"images": Path(self.photos.template())}
        found |= {kind: Path(group.template()) for kind, group in self.targets.items()}
        return found | self.keys

    @property
    def splits(self) -> list[str]:
        """The splits that folders or files name, if any."""
        return sorted({key[0] for key in self.pairs if key[0]})


def by_names(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos and targets of matching names, the most photos first; several targets of a kind are several candidates."""
    drawn = labelme_groups(tree)
    named = {kind: given_groups(tree, kind, given, drawn) for kind in _ROLES}
    groups = [*group(tree.pixels)[:_MOST_GROUPS], *drawn]
    if given.get("masks") is not None and not named["masks"]:  # annotations of COCO
        groups = [one for one in groups if one.role != "masks"]
    found = _pair(groups, named)
    for told in (False, True):
        if not found:
            _look_inside(tree, groups, told=told)
            found = _pair(groups, named)
    return _best(found)


def by_folders(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos and targets in folders whose names do not say what they hold, told by the files."""
    drawn = labelme_groups(tree)
    named = {kind: given_groups(tree, kind, given, drawn) for kind in _ROLES}
    for level in range(_DEEPEST):
        names = {file.folders[level] for file in tree.pixels if len(file.folders) > level}
        if 1 < len(names) <= _MOST_FOLDERS:
            groups = [*group(tree.pixels, names)[:_MOST_GROUPS], *drawn]
            _look_inside(tree, groups, told=False)
            if found := _pair(groups, named):
                return _best(found)
    return []


def _pair(groups: Sequence[Group], named: Mapping[Role, list[Group]]) -> list[Candidate]:
    """The candidates of each group of photos."""
    photos = named["images"] or merged([one for one in groups if one.role == "images"])
    return [one for own in photos for one in combine(own, _targets(own, groups, named))]


def _targets(
    photos: Group, groups: Sequence[Group], named: Mapping[Role, list[Group]]
) -> dict[TargetFolder, list[Match]]:
    """The groups of each kind that most photos have a target in."""
    found: dict[TargetFolder, list[Match]] = {}
    for kind in KINDS:
        options = named[kind] or merged([one for one in groups if one.role == kind])
        matches = [one for option in options if (one := match(photos, option)) is not None and _is_most(photos, one)]
        plain = [one for one in matches if not one.targets.coloured]
        if chosen := plain or matches:
            most = max(len(one.keys) for one in chosen)
            chosen = [one for one in chosen if len(one.keys) >= _MOST * most]
            found[kind] = [one for one in chosen if not any(_is_further(one, other) for other in chosen)]
    return found


def _is_further(one: Match, other: Match) -> bool:
    """Whether these are further targets of photos that have the other one: a_mask_1 next to a_mask."""
    (folders, prefix, suffix), (*place, start) = one.targets.form, other.targets.form
    numbered = start and re.fullmatch(rf"{re.escape(start)}[_\-. ]?\d+", suffix)
    return [folders, prefix] == place and bool(numbered)


def _is_most(photos: Group, one: Match) -> bool:
    """Whether most photos of the splits that have any target have one, or all targets are of one."""
    splits = {key[0] for key in one.keys}
    complete = len(one.keys) == len(one.targets.files) > 1
    return complete or len(one.keys) >= _MOST * sum(key[0] in splits for key in one.photos.files)


def combine(photos: Group, targets: Mapping[TargetFolder, list[Match]]) -> list[Candidate]:
    """A candidate for each choice of one target of each kind."""
    if not targets:
        return []
    choices = itertools.islice(itertools.product(*targets.values()), _MOST_CHOICES)
    return [_candidate(photos, dict(zip(targets, choice, strict=True))) for choice in choices]


def _candidate(photos: Group, chosen: Mapping[TargetFolder, Match]) -> Candidate:
    first = next(iter(chosen.values()))
    same = {kind: one for kind, one in chosen.items() if one.photos.form == first.photos.form}
    keys = _current(frozenset.intersection(*(one.keys for one in same.values())))
    splits = {key[0] for key in keys}
    unused: dict[str, int] = {}
    remarks: list[str] = []
    for key in first.photos.files:
        if key[0] not in splits:
            unused[key[0]] = unused.get(key[0], 0) + 1
    if len(folders := sorted({key[1] for key in keys})) > 1:
        remarks.append(f"photos of {len(folders)} folders, such as {folders[0]} and {folders[1]}, are one data set")
    groups, left = settle([first.photos, *(one.targets for one in same.values())], keys)
    wide = widen(groups[0], groups[1:])
    before = {id(file): key for key, file in wide[0].files.items()}
    left = frozenset(before[id(groups[0].files[key])] for key in left)
    targets = dict(zip(same, wide[1:], strict=True))
    return Candidate(wide[0], targets, left, remarks=remarks, unused=unused)


def _best(found: list[Candidate]) -> list[Candidate]:
    """Without those that have a small part of the photos, or whose folders say that nobody uses them any more."""
    if not found:
        return []
    most = max(len(one.pairs) for one in found)
    current = [one for one in found if not is_old(folder_of(one))] or found
    chosen = [one for one in current if len(one.pairs) >= 0.1 * most or len(one.pairs) >= 20]
    for one in found:
        if one not in chosen:
            size = f"{len(one.pairs)} photos of {folder_of(one)} are passed over; name this folder to use them"
            chosen[0].remarks.append(size)
    return sorted(chosen, key=lambda one: -len(one.pairs))


def is_old(folder: str) -> bool:
    """Whether a folder is one of a former version, a copy or the like, by its name."""
    return not OLD.isdisjoint(words_of(folder))


def _current(keys: frozenset[Key]) -> frozenset[Key]:
    """The keys without those of old folders, where the others have a folder that tells them apart."""
    current = frozenset(key for key in keys if not is_old(key[1]))
    return current if common_start(tuple(key[1].split("/")) for key in current) not in ((), ("",)) else keys


def folder_of(one: Candidate) -> str:
    """The folder that all photos and targets of a candidate are in, below the root; "." for the root itself."""
    groups = (one.photos, *one.targets.values())
    return "/".join(common_start(file.folders for group in groups for file in group.files.values())) or "."


def sets_of(one: Candidate) -> dict[str, int]:
    """Folders that are data sets by their names, such as Dataset 1 and Dataset 2, with the number of photos."""
    if FOLDER not in one.photos.folders:
        return {}
    sets: dict[str, int] = {}
    for key in one.pairs:
        if not SET.search(top := key[1].split("/")[0]):
            return {}
        sets[top] = sets.get(top, 0) + 1
    return sets if len(sets) > 1 else {}


def _look_inside(tree: Tree, groups: Sequence[Group], *, told: bool) -> None:
    """Take the roles from the files where names tell nothing, or also where they are ``told`` and the same of all."""
    roles = {one.role for one in groups if one.role not in ("", "none")}
    largest = max((len(one.files) for one in groups), default=0)
    for one in groups:
        unknown = one.role == "" or (told and len(roles) < 2 and one.role != "none")
        if unknown and 20 * len(one.files) >= largest and ".json" not in one.endings:
            one.role = role_by_content(tree, one)
