"""Groups of files whose names are of one form, and which groups belong together as photos and targets."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from densevit.data.discover.roles import Affixes, Role, affixes_of, is_coloured, role_of, split_of, words_of
from densevit.data.discover.tree import File
from densevit.data.splits import split_key

FOLDER = "{folder}/"
"""Stands for any number of folders in the folders of a group."""

Key = tuple[str, str, str]
"""Split, folder and name of a file."""


@dataclass
class Group:
    """Files of one form of name.

    Attributes:
        folders: of the form, with ``{split}`` and ``FOLDER`` in them.
        prefix, suffix: what all stems have around the name.
        role: what the names say.
        coloured: masks in colours.
        files: by key.
        endings: the extensions, in lower case.
        fixed: a template that was given, instead of one from these parts.
    """

    folders: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""
    role: Role = ""
    coloured: bool = False
    files: dict[Key, File] = field(default_factory=dict)
    endings: set[str] = field(default_factory=set)
    fixed: str = ""

    @property
    def place(self) -> str:
        """The folders as text."""
        return "".join(folder if folder == FOLDER else f"{folder}/" for folder in self.folders)

    @property
    def form(self) -> tuple[tuple[str, ...], str, str]:
        """What the template says without the extension."""
        return self.folders, self.prefix, self.suffix

    def template(self) -> str:
        """The template of the files."""
        if self.fixed:
            return self.fixed
        ending = next(iter(self.endings)) if len(self.endings) == 1 else ".*"
        written = {file.suffix for file in self.files.values()}
        ending = written.pop() if len(written) == 1 else ending
        named = "" if "{name}" in self.place else "{name}"
        return f"{self.place}{literal(self.prefix)}{named}{literal(self.suffix)}{ending}"

    def sample(self, number: int) -> list[File]:
        """Some of the files, evenly spread."""
        files = [*self.files.values()]
        step = max(len(files) / number, 1)
        return [files[int(i * step)] for i in range(min(number, len(files)))]


def literal(text: str) -> str:
    """Text of a name in a template, in which braces and stars mean something; ``{split}`` stays."""
    return "{split}".join(re.sub(r"[{}*]+", "*", part) for part in text.split("{split}"))


def group(files: Iterable[File], known: Collection[str] = ()) -> list[Group]:
    """Sort files into groups by the form of their names, the largest first.

    Args:
        files: those to sort.
        known: names of folders that are written as they are, and not as ``{folder}``.
    """
    groups: dict[tuple[object, ...], Group] = {}
    for file in files:
        affixes = affixes_of(file.stem)
        folders, key = _form(file, affixes, known)
        if key[0] and (ended := re.fullmatch(rf"(.+)([_\-. ]){key[0]}", affixes.core)):  # test/01_test.tif
            key = (*key[:2], ended[1])
            affixes = replace(affixes, core=ended[1], suffix=f"{ended[2]}{{split}}{affixes.suffix}")
        ending = file.suffix.lower()
        if "{name}" not in folders and not affixes.core:
            affixes = Affixes("", file.stem, "", affixes.role, affixes.coloured)
        form = (folders, affixes.prefix, affixes.suffix, ending)
        found = groups.setdefault(
            form, Group(folders, affixes.prefix, affixes.suffix, affixes.role, affixes.coloured, {}, {ending})
        )
        found.files.setdefault(key, file)
    result = [part for one in groups.values() for part in _split_tails(one)]
    _take_roles(result)
    return sorted(result, key=lambda one: (-len(one.files), one.place, one.prefix, one.suffix))


def _form(file: File, affixes: Affixes, known: Collection[str]) -> tuple[tuple[str, ...], Key]:
    """The folders with placeholders; split and folder, and the name where a folder is it, otherwise the core."""
    form: list[str] = []
    free: list[str] = []
    split = ""
    for folder in file.folders:
        text, found = split_of(folder)
        if found and split in ("", found):
            split = found
            form.append(literal(text))
        elif folder in known or role_of(words_of(folder)):
            form.append(literal(folder))
        elif form[-1:] == [FOLDER] or FOLDER not in form:
            free.append(folder)
            form.extend([] if form[-1:] == [FOLDER] else [FOLDER])
        else:
            form.append("*")
    if not affixes.core and form[-1:] == [FOLDER]:  # a folder for each photo
        name = free.pop()
        form[-1:] = [*([FOLDER] if free else []), "{name}"]
        return tuple(form), (split, "/".join(free), name)
    return tuple(form), (split, "/".join(free), affixes.core or file.stem)


def _take_roles(groups: Sequence[Group]) -> None:
    """What the names of folders say, unless stems tell photos from targets within one folder."""
    roles: dict[tuple[str, ...], set[Role]] = {}
    for one in groups:
        roles.setdefault(one.folders, set()).add(one.role)
    for one in groups:
        words = [words_of(folder) for folder in one.folders if folder != FOLDER]
        said = [(role_of(part), is_coloured(part)) for part in words if role_of(part)]
        told_apart = "images" in roles[one.folders] and roles[one.folders] & {"masks", "depth", "values"}
        if not said or one.role == "none" or (told_apart and one.role):
            continue
        role, coloured = said[-1]
        if role != "images" or not one.role:
            one.role = role
            one.coloured |= coloured


def _split_tails(one: Group) -> list[Group]:
    """Divide photos 001 and masks 001_L in one folder, where the tail is no word that is known."""
    if one.role or "{name}" in one.folders or len(one.files) < 2:
        return [one]
    tails: Counter[str] = Counter()
    for split, folder, name in one.files:
        for found in re.finditer(r"(?<=[^_\-. ])[_\-. ]+(?=[^_\-. ])", name):
            if (split, folder, name[: found.start()]) in one.files and re.search("[A-Za-z]", name[found.start() :]):
                tails[name[found.start() :]] += 1
                break
    if not tails or (best := tails.most_common(1)[0])[1] < 0.4 * len(one.files):
        return [one]
    tail = best[0]
    ended = {key: file for key, file in one.files.items() if key[2].endswith(tail)}
    rest = {key: file for key, file in one.files.items() if key not in ended}
    named = {(split, folder, name.removesuffix(tail)): file for (split, folder, name), file in ended.items()}
    return [replace(one, files=rest, endings={*one.endings}), replace(one, suffix=tail, files=named)]


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
    for ours in _variants(photos):
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
    keep = [any(key[i] for key in photos.files) and any(key[i] for key in targets.files) for i in (0, 1)]

    def reduced(key: Key) -> Key:
        return (split_key(key[0]) * keep[0], key[1] * keep[1], key[2])

    theirs = {reduced(key) for key in targets.files}
    ours = {key: form for key in photos.files if (form := reduced(key)) in theirs}
    if len(theirs) < len(targets.files) or len({*ours.values()}) < len(ours):
        return frozenset()
    return frozenset(ours)


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
