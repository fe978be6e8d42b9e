"""Pairs whose names differ: one in each folder, told apart by a word in the middle, or listed in a table."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from densevit.data.discover.candidates import KINDS, Candidate, combine
from densevit.data.discover.given import given_groups, labelme_groups
from densevit.data.discover.groups import FOLDER, Group, Key, group, literal
from densevit.data.discover.lists import said_random
from densevit.data.discover.pairing import Match, file_pairs
from densevit.data.discover.roles import Role, affixes_of
from densevit.data.discover.tree import Tree, counted
from densevit.data.discover.unrecognised import pair_lists
from densevit.data.folder_config import FolderConfig
from densevit.data.pairs import find_pairs
from densevit.data.sample import TargetFolder
from densevit.data.splits import SplitConfig
from densevit.errors import DensevitError

if TYPE_CHECKING:
    from densevit.data.description import Described

_MOST = 0.5
"""So many of the photos need a target."""

_LOOKED_AT, _TRIED = 200, 20
"""Names in which words in the middle are looked for, and names of photos that are compared with them."""

_WORD = re.compile(r"[A-Za-z]+(?:[_\-. ][A-Za-z]+)*")


def by_table(tree: Tree, given: Mapping[str, Any]) -> "Described | None":
    """The pairs of the one table that lists some, such as list.csv, where all its files are there."""
    from densevit.data.description import Described, describe

    tables = pair_lists(tree)
    if len(tables) != 1 or given.keys() & {"images", *KINDS, "pairs"}:
        return None
    try:
        found = describe(tree.root, **{**given, "pairs": tree.path(tables[0])})
        assert isinstance(found.config, FolderConfig)
        pairs = find_pairs(found.config)
    except DensevitError:
        return None
    number = counted(len(pairs.pairs), "photo")
    remarks = [f"{number} with targets as {tables[0].inside} lists them, since their names do not tell", *found.remarks]
    if pairs.splits() or found.config.splits is not None:
        return Described(found.config, tuple(remarks))
    return Described(found.config.model_copy(update={"splits": SplitConfig()}), (*remarks, said_random()))


def by_place(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos and targets that are the only files in their folders: scene_1/image/a.jpg and scene_1/depth/b.png.

    Only where some of their names differ; otherwise the names say more.
    """
    groups = [*_alone(group(tree.pixels))]
    if not groups:
        return []
    kinds: tuple[Role, ...] = ("images", *KINDS)
    drawn = labelme_groups(tree)
    named = {kind: given_groups(tree, kind, given, drawn) for kind in kinds}
    found: list[Candidate] = []
    for photos in named["images"] or [one for one in groups if one.role == "images"]:
        targets: dict[TargetFolder, list[Match]] = {}
        for kind in KINDS:
            for one in named[kind] or [one for one in groups if one.role == kind]:
                keys = frozenset(photos.files.keys() & one.files.keys())
                if len(keys) >= _MOST * len(photos.files):
                    targets.setdefault(kind, []).append(Match(photos, one, keys))
        matches = [match for options in targets.values() for match in options]
        if matches and targets.keys() >= given.keys() & {*KINDS} and not all(map(_same_names, matches)):
            found += combine(photos, targets)
    return found


def _alone(groups: Sequence[Group]) -> Iterator[Group]:
    """The groups of one file in each folder, whatever its name, with the folder as the name."""
    places: dict[tuple[object, ...], list[Group]] = {}
    for one in groups:
        if FOLDER in one.folders and "{name}" not in one.folders:
            places.setdefault((one.folders, one.role), []).append(one)
    for same in places.values():
        whole: dict[Key, Any] = {}
        for split, folder, _, file in ((*key, file) for one in same for key, file in one.files.items()):
            above, _, last = folder.rpartition("/")
            whole[(split, above, last)] = file
        if len(whole) < 2 or len(whole) < sum(len(one.files) for one in same):
            continue
        endings = {file.suffix for file in whole.values()}
        place = "{folder}/{name}/" if any(above for _, above, _ in whole) else "{name}/"
        fixed = f"{same[0].place.replace(FOLDER, place)}*{endings.pop() if len(endings) == 1 else '.*'}"
        yield replace(same[0], files=whole, endings={file.suffix.lower() for file in whole.values()}, fixed=fixed)


def _same_names(match: Match) -> bool:
    pairs = file_pairs(match.photos, match.targets)
    return all(affixes_of(photo.stem).core == affixes_of(target.stem).core for photo, target in pairs)


def by_middle(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos and targets that differ by a word in the middle of their names, such as a_i0_1.jpg and a_d0_1.png."""
    if given.keys() & {"images", *KINDS}:
        return []
    groups = [one for one in group(tree.pixels) if "{name}" not in one.folders]
    found: list[Candidate] = []
    for photos in (one for one in groups if one.role == "images"):
        for kind in KINDS:
            for targets in (one for one in groups if one.role == kind):
                if (match := _by_middle(photos, targets)) is not None:
                    found += combine(match.photos, {kind: [match]})
    return found


def _by_middle(photos: Group, targets: Group) -> Match | None:
    """The match of two groups by what is around the words that differ; None if most photos have no target."""
    for ours, theirs in _middles(photos, targets):
        cut, other = _cut(photos, ours), _cut(targets, theirs)
        if cut is None or other is None or (_has_places(other) and not _has_places(cut)):
            continue
        covered = {photo.inside for photo, _ in file_pairs(cut, other)}
        keys = frozenset(key for key, file in cut.files.items() if file.inside in covered)
        if len(keys) >= max(_MOST * len(cut.files), 2):
            return Match(cut, other, keys)
    return None


def _has_places(one: Group) -> bool:
    """Whether splits or folders tell some of the files apart."""
    return any(split or folder for split, folder, _ in one.files)


def _middles(photos: Group, targets: Group) -> Iterator[tuple[str, str]]:
    """What may tell the names apart, the most frequent first, each with more and more of what both have before it."""
    theirs = [name for _, _, name in targets.files][:_LOOKED_AT]
    votes: Counter[tuple[str, str, str]] = Counter()
    for _, _, name in [*photos.files][:_TRIED]:
        for other in theirs:
            if (found := _middle(name, other)) is not None:
                votes[found] += 1
    for (before, ours, others), _ in votes.most_common(_TRIED):
        parts = re.findall(r"[^_\-. ]*[_\-. ]", before)
        for number in range(min(len(parts), 4)):
            length = len("".join(parts[-number:])) if number else 0
            common = before[-1 - length :]
            yield f"{common}{ours}", f"{common}{others}"


def _middle(name: str, other: str) -> tuple[str, str, str] | None:
    """What is before the only words in which two names differ, and these words; None if anything else differs."""
    low = next((i for i, pair in enumerate(zip(name, other, strict=False)) if pair[0] != pair[1]), 0)
    low = max((i + 1 for i in range(low) if name[i] in "_-. "), default=0)
    ours, others = (_WORD.match(text, low) for text in (name, other))
    if not low or ours is None or others is None or ours[0] == others[0]:
        return None
    tail = name[ours.end() :]
    sign = tail[:1] if tail[:1] in "_-. " else ""
    return (name[:low], ours[0] + sign, others[0] + sign) if tail and tail == other[others.end() :] else None


def _cut(one: Group, middle: str) -> Group | None:
    """A group by what is before and after a text that each name has once; None if some have not."""
    files = {}
    for (split, folder, name), file in one.files.items():
        head, found, tail = name.rpartition(middle)
        if not (found and head and tail) or middle in head:
            return None
        files[(split, folder, f"{head}/{tail}")] = file
    ending = one.template().rpartition("{name}")[2].removeprefix(literal(one.suffix))
    fixed = f"{one.place}{literal(one.prefix)}{{name}}{literal(middle)}{{rest}}{literal(one.suffix)}{ending}"
    return replace(one, files=files, fixed=fixed)
