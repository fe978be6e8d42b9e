"""Which groups of files belong together as photos and targets, and how their templates are written then."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from densevit.data.discover.groups import FOLDER, Group, Key, literal
from densevit.data.discover.tree import File
from densevit.data.splits import split_key


@dataclass(frozen=True)
class Match:
    """Photos and targets that belong together.

    Attributes:
        photos, targets: the groups, with the affixes under which they match.
        keys: of the pairs, as those of the photos.
    """

    photos: Group
    targets: Group
    keys: frozenset[Key]


def match(photos: Group, targets: Group) -> Match | None:
    """Pair two groups by their names, which may have constant parts that the words do not explain."""
    best: Match | None = None
    if (alike := _with_folders_of(photos, targets)) is None:
        return None
    for ours in (*_variants(photos), *([_whole(photos)] if targets.fixed else [])):
        for theirs in _variants(alike):
            keys = _common(ours, theirs)
            if keys and (best is None or len(keys) > len(best.keys)):
                best = Match(ours, theirs, keys)
    return best


def _with_folders_of(photos: Group, targets: Group) -> Group | None:
    """Targets without a split and folders that photos lack; None if these differ among the targets."""
    for index, mark in ((0, "{split}"), (1, FOLDER)):
        values = {key[index] for key in targets.files}
        if values == {""} or any(key[index] for key in photos.files):
            continue
        if len(values) > 1 or targets.fixed:
            return None
        value = literal(values.pop())
        folders = tuple(value if part == mark else part.replace(mark, value) for part in targets.folders)
        files = {(key[0] * (index > 0), key[1] * (index < 1), key[2]): file for key, file in targets.files.items()}
        suffix = targets.suffix.replace("{split}", value if mark == "{split}" else "{split}")
        targets = replace(targets, folders=folders, suffix=suffix, files=files)
    return targets


def _common(photos: Group, targets: Group) -> frozenset[Key]:
    """The keys of photos that have a target; a split or folder that only one of them has does not matter.

    No key where a target would be of several photos, or a photo would have several targets.
    """
    reduced = _reducer(photos, targets)
    theirs = {reduced(key) for key in targets.files}
    ours = {key: form for key in photos.files if (form := reduced(key)) in theirs}
    if len(theirs) < len(targets.files) or len({*ours.values()}) < len(ours):
        return frozenset()
    return frozenset(ours)


def _reducer(photos: Group, targets: Group) -> Callable[[Key], Key]:
    """What two groups are compared by: the parts of keys that both have."""
    keep = [any(key[i] for key in photos.files) and any(key[i] for key in targets.files) for i in (0, 1)]
    return lambda key: (split_key(key[0]) * keep[0], key[1] * keep[1], key[2])


def file_pairs(photos: Group, targets: Group) -> Iterator[tuple[File, File]]:
    """The photos of two groups that match, each with its target."""
    reduced = _reducer(photos, targets)
    theirs = {reduced(key): file for key, file in targets.files.items()}
    for key, file in photos.files.items():
        if (target := theirs.get(reduced(key))) is not None:
            yield file, target


def _variants(one: Group) -> list[Group]:
    """A group as it is, and without what all its names begin and end with."""
    names = [name for _, _, name in one.files]
    if one.fixed or "{name}" in one.folders or len(names) < 2:
        return [one]
    head = re.sub(r"[0-9]+\Z", "", _prefix(names))
    tail = _prefix([name[len(head) :][::-1] for name in names])[::-1]
    tail = tail if re.match(r"[_\-. ]", tail) else re.sub(r"\A[0-9]+", "", tail)
    if not head and not tail:
        return [one]
    cut = {
        (split, folder, name[len(head) : len(name) - len(tail)]): file
        for (split, folder, name), file in one.files.items()
    }
    if len(cut) < len(one.files) or any(not key[2] for key in cut):
        return [one]
    return [one, replace(one, prefix=one.prefix + head, suffix=tail + one.suffix, files=cut)]


def _whole(one: Group) -> Group:
    """A group whose names are the whole stems, as a given template may have them."""
    if one.fixed or "{name}" in one.folders:
        return one
    files = {(*key[:2], f"{one.prefix}{key[2]}{one.suffix}"): file for key, file in one.files.items()}
    return replace(one, prefix="", suffix="", files=files)


def _prefix(names: Sequence[str]) -> str:
    """What all names begin with."""
    if not names:
        return ""
    low, high = min(names), max(names)
    return low[: next((i for i, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))]


def common_start(paths: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that all paths begin with."""
    paths = {*paths}
    if not paths:
        return ()
    low, high = min(paths), max(paths)
    return low[: next((i for i, pair in enumerate(zip(low, high, strict=False)) if pair[0] != pair[1]), len(low))]


def widen(photos: Group, targets: Sequence[Group]) -> list[Group]:
    """Give back to the name what the affixes of photos and all targets share: frame-1.color, frame-1.depth."""
    groups = [photos, *targets]
    if any(one.fixed or "{name}" in one.folders for one in groups):
        return groups
    head = _prefix([one.prefix[::-1] for one in groups])[::-1]
    tail = _prefix([one.suffix for one in groups])
    if any(len(one.prefix) > len(head) for one in groups):  # only whole words
        ends = [one.prefix[: len(one.prefix) - len(head)] for one in groups]
        head = head if head[:1].isalnum() and all(not end or not end[-1].isalnum() for end in ends) else ""
    if any(len(one.suffix) > len(tail) for one in groups):
        ends = [one.suffix[len(tail) :] for one in groups]
        tail = tail if tail[-1:].isalnum() and all(not end or not end[0].isalnum() for end in ends) else ""
    return [
        replace(
            one,
            prefix=one.prefix[: len(one.prefix) - len(head)],
            suffix=one.suffix[len(tail) :],
            files={(split, folder, f"{head}{name}{tail}"): file for (split, folder, name), file in one.files.items()},
        )
        for one in groups
    ]


def settle(groups: Sequence[Group], keys: Iterable[Key]) -> tuple[list[Group], frozenset[Key]]:
    """Write a split or folders that are the same for all pairs as they are, instead of placeholders."""
    keys = frozenset(keys)
    if any(one.fixed for one in groups):
        return [*groups], keys
    splits, folders = {key[0] for key in keys}, [key[1].split("/") if key[1] else [] for key in keys]
    split = splits.pop() if len(splits) == 1 else ""
    common = common_start(tuple(parts) for parts in folders)
    shared = "/".join(common)
    settled = []
    for one in groups:
        own = [part.replace("{split}", split) if split else part for part in one.folders]
        files, suffix = dict(one.files), one.suffix
        if split:
            suffix = suffix.replace("{split}", literal(split))
            files = {("", *key[1:]): file for key, file in one.files.items() if key[0] in (split, "")}
        if shared and FOLDER in own and not one.fixed:
            place = own.index(FOLDER)
            flat = all(len(parts) == len(common) for parts in folders)
            own[place : place + 1] = [*map(literal, common), *([] if flat else [FOLDER])]
            files = {
                (key[0], key[1].removeprefix(shared).strip("/"), key[2]): file
                for key, file in files.items()
                if f"{key[1]}/".startswith(f"{shared}/")
            }
        settled.append(replace(one, folders=tuple(own), suffix=suffix, files=files))
    left = frozenset(
        (key[0] * (not split), key[1].removeprefix(shared).strip("/") if shared else key[1], key[2]) for key in keys
    )
    return settled, left
