"""Groups of files whose names are of one form, and which groups belong together as photos and targets."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from densevit.data.discover.roles import Affixes, Role, affixes_of, is_coloured, is_joint, role_of, split_of, words_of
from densevit.data.discover.tree import File

FOLDER = "{folder}/"
"""Stands for any number of folders in the folders of a group."""

_MOST_TAILS = 8
"""More ends of names are numbers of something."""

_ENUMERATED = re.compile(r"\A\w{1,2}(?=[.)] )")
"""What numbers the folders of splits: "a. Training Set", "b. Testing Set"."""

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
        own = groups.setdefault(
            form, Group(folders, affixes.prefix, affixes.suffix, affixes.role, affixes.coloured, {}, {ending})
        )
        own.files.setdefault(key, file)
    names: dict[object, set[Key]] = {}
    for one in groups.values():
        names.setdefault(one.form, set()).update(one.files)
    tails = [(one, _tails(one, names[one.form])) for one in groups.values()]
    places: dict[str, set[tuple[str, ...]]] = {}
    for one, found in tails:
        for tail in found:
            places.setdefault(tail, set()).add(one.folders)
    # What photos and masks in folders of their own both have, such as a_flip, does not tell them apart.
    result = [part for one, found in tails for part in _divided(one, [t for t in found if len(places[t]) == 1])]
    _take_roles(result)
    return sorted(result, key=lambda one: (-len(one.files), one.place, one.prefix, one.suffix))


def _form(file: File, affixes: Affixes, known: Collection[str]) -> tuple[tuple[str, ...], Key]:
    """The folders with placeholders; split and folder, and the name where a folder is it, otherwise the core."""
    form: list[str] = []
    free: list[str] = []
    split = ""
    parts = [split_of(folder) for folder in file.folders]
    parted = any(found and not is_joint(found) for _, found in parts)
    for folder, (text, found) in zip(file.folders, parts, strict=True):
        if is_joint(found) and parted:  # a folder around those of train and val
            form.append(literal(folder))
        elif found and split in ("", found):
            split = found
            form.append(_ENUMERATED.sub("*", literal(text)))
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
        if one.role == "none" and any("semantic" in part for part in words):  # coloured by instance, they say
            one.role = ""
        if not said or one.role == "none" or (told_apart and one.role):
            continue
        role, coloured = said[-1]
        if role != "images" or not one.role:
            one.role = role
            one.coloured |= coloured


def _tails(one: Group, names: set[Key]) -> list[str]:
    """The ends of many names that are those of others with something more: 001_L next to 001; none that is a word.

    Args:
        one: the group.
        names: of the files of its form, with any extension.
    """
    if one.role not in ("", "images") or "{name}" in one.folders or len(names) < 2:
        return []
    tails: Counter[str] = Counter()
    for split, folder, name in one.files:
        for found in re.finditer(r"(?<=[^_\-. ])[_\-. ]+(?=[^_\-. ])", name):
            if (split, folder, name[: found.start()]) in names and re.search("[A-Za-z]", name[found.start() :]):
                tails[name[found.start() :]] += 1
                break
    most = max(tails.values(), default=0)
    chosen = [tail for tail, number in tails.items() if 2 * number >= most]
    return chosen if sum(tails[tail] for tail in chosen) >= 0.4 * len(one.files) and len(chosen) <= _MOST_TAILS else []


def _divided(one: Group, tails: Sequence[str]) -> list[Group]:
    """Photos 001 and masks 001_L in one folder as groups by themselves, whose roles their files tell."""
    parts: list[Group] = []
    rest = dict(one.files)
    for tail in sorted(tails, key=len, reverse=True):
        ended = {key: file for key, file in rest.items() if key[2].endswith(tail)}
        rest = {key: file for key, file in rest.items() if key not in ended}
        named = {(split, folder, name.removesuffix(tail)): file for (split, folder, name), file in ended.items()}
        parts.append(replace(one, suffix=f"{tail}{one.suffix}", files=named, role="", endings={*one.endings}))
    return [replace(one, files=rest, endings={*one.endings}), *parts] if rest else parts
