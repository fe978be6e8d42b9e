"""Files that list the photos of splits: a text file or table for each, or one for all of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from densevit.config import read_yaml
from densevit.data.discover.roles import is_joint, split_of
from densevit.data.discover.tree import File, Tree
from densevit.data.files import name_key
from densevit.data.splits import split_key
from densevit.errors import DensevitError
from densevit.io import read_json, read_lines, read_rows

_MOST = 50
"""Files that are read."""

_SPLIT_COLUMNS = ("split", "set", "subset", "partition")


@dataclass
class Lists:
    """Lists that belong together, such as train.txt and val.txt of one folder.

    Attributes:
        files: where they are.
        names: split -> names of photos; a name may be in several.
    """

    files: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, split: str, names: Iterable[str]) -> None:
        """Add photos to a split, each once."""
        self.names[split] = [*dict.fromkeys((*self.names.get(split, ()), *names))]


def read_lists(tree: Tree, known: Mapping[str, str]) -> tuple[list[Lists], list[str]]:
    """The lists of a tree, and the files that may be such lists but cannot be read.

    Args:
        tree: the data set.
        known: how lists may write a photo -> its name.
    """
    families: dict[str, Lists] = {}
    unread: list[str] = []
    files = [file for file in tree.having(".txt", ".lst", ".json", ".yaml", ".yml") if _may_list(file)]
    files += tree.having(".csv", ".tsv")  # the header says whether they have splits
    for file in files[:_MOST]:
        found = {split: names for split, names in _read(tree, file, known).items() if names}
        if not found:
            named = _may_list(file) and "meta" not in file.stem.lower() and file.suffix.lower() not in (".txt", ".lst")
            unread += [file.inside] * named
            continue
        form = split_of(file.stem)[0]
        lists = families.setdefault("/".join((*file.folders, re.sub("(?i)trainval", "{split}", form))), Lists())
        lists.files.append(file.inside)
        for split, names in found.items():
            lists.add(split, names)
    for lists in families.values():  # what train and val are together says nothing next to them, and train without
        both = lists.names.pop("trainval", [])
        if both and "train" not in lists.names:
            lists.add("train", both)
    return [*families.values()], unread


def _split_in(stem: str) -> str:
    """The split that the name of a list says, "trainval" for both; "" if it says none."""
    split = split_of(stem)[1]
    return "trainval" if is_joint(split) or "trainval" in stem.lower() else split_key(split)


def _may_list(file: File) -> bool:
    stem, table = file.stem.lower(), file.suffix.lower() not in (".txt", ".lst")
    if "coco" in stem or "instances" in stem or "captions" in stem:
        return False
    return bool(_split_in(file.stem)) or (table and bool(re.search("split|fold|meta", stem)))


def _read(tree: Tree, file: File, known: Mapping[str, str]) -> dict[str, list[str]]:
    """Split -> the photos of a file; empty if it lists something else."""
    path, suffix, own = tree.path(file), file.suffix.lower(), _split_in(file.stem)
    try:
        if suffix in (".txt", ".lst"):
            lines = read_lines(path, "names of photos")
            return {own: _mostly(lines, [_photo((line, line.split()[0]), known) for line in lines])}
        if suffix in (".csv", ".tsv"):
            return _of_table(read_rows(path, "a table of photos")[1], own, known)
        return _of_mapping(read_json(path, "splits") if suffix == ".json" else read_yaml(path), known)
    except DensevitError:
        return {}


def _of_table(rows: Sequence[Sequence[str]], own: str, known: Mapping[str, str]) -> dict[str, list[str]]:
    """The photos of a table: each with its split, or all of the split that its file is named after."""
    head = [cell.casefold() for cell in rows[0]] if rows else []
    column = next((place for place, cell in enumerate(head) if cell in _SPLIT_COLUMNS), None)
    found: dict[str, list[str]] = {}
    if column is None and not own:
        return {}
    rows = [row for row in rows if column is None or len(row) > column]
    photos = [_photo(row, known) for row in rows]
    for row, name in zip(rows, photos, strict=True):
        if name is not None:
            found.setdefault(own if column is None else split_key(row[column]), []).append(name)
    return found if _mostly(rows, photos) else {}


def _of_mapping(data: Any, known: Mapping[str, str]) -> dict[str, list[str]]:
    """The photos of {"train": [...], "val": [...]}."""
    found: dict[str, list[str]] = {}
    for key, value in data.items() if isinstance(data, Mapping) else ():
        if isinstance(value, list) and (split := _split_in(str(key))):
            listed = [str(name) for name in value]
            found[split] = _mostly(listed, [_photo((name,), known) for name in listed])
    return found


def _mostly(entries: Sequence[object], photos: Sequence[str | None]) -> list[str]:
    """The photos, if at least half of the entries, or many, are of one."""
    names = [name for name in photos if name is not None]
    return names if 2 * len(names) >= len(entries) or len(names) >= 20 else []


def _photo(entries: Sequence[str], known: Mapping[str, str]) -> str | None:
    """The photo that one of some entries names, with as much of its path as they have."""
    forms: list[str] = []
    for entry in entries:
        parts = name_key(entry.replace("\\", "/")).strip("/").split("/")
        for path in ("/".join(parts[start:]) for start in range(len(parts))):
            forms += [path, path.rsplit(".", 1)[0]]
    return next((known[form] for form in sorted(forms, key=lambda form: -form.count("/")) if form in known), None)
