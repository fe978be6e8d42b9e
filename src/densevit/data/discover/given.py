"""The groups of files that options name, and those of labelme."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densevit.data.discover.groups import Group, group
from densevit.data.discover.roles import Role
from densevit.data.discover.tree import File, Tree
from densevit.data.templates import Template, is_template
from densevit.errors import DataError
from densevit.io import ZipPath, read_json

_MOST = 200


def given_groups(tree: Tree, kind: Role, given: Mapping[str, Any], drawn: Sequence[Group]) -> list[Group]:
    """The groups that a given folder or template has; empty where none is given, or annotations of COCO.

    Args:
        tree: the data set.
        kind: the key of ``given``.
        given: folders and templates below the root, or from the working directory.
        drawn: the groups of labelme's files.

    Raises:
        DataError: it has no file.
    """
    if (value := given.get(kind)) is None or (kind == "masks" and is_annotations(Path(value))):
        return []
    shapes = {id(file) for one in drawn for file in one.files.values()}
    files = [*tree.pixels, *(file for file in tree.having(".json") if id(file) in shapes)]
    for text in below(tree, Path(value)):
        found = _from_template(files, text, kind) if is_template(Path(text)) else _from_folder(files, text)
        for one in found:
            one.role = kind
        if found:
            return merged(found)
    raise DataError(
        f"{kind} is {value}, where {tree.root} has no file that can be read ({_examples(tree.files)}); a folder or a "
        f"template of names below it, such as {kind}/{{name}}.png, is accepted; check it"
    )


def is_annotations(path: Path) -> bool:
    """Whether a path is one of COCO's annotations, and not of one file of labelme for each photo."""
    return path.suffix.lower() == ".json" and "{name}" not in path.name


def below(tree: Tree, path: Path) -> Iterator[str]:
    """What a given path may be below the root of a tree."""
    text = path.as_posix().removeprefix("./").rstrip("/")
    yield text
    root = tree.root.as_posix().rstrip("/")
    for start in (root, tree.root.name):
        if text.startswith(f"{start}/"):
            yield text.removeprefix(f"{start}/")
    if not isinstance(tree.root, ZipPath):
        here, there = path.absolute(), tree.root.absolute()
        if here.is_relative_to(there):
            yield here.relative_to(there).as_posix()


def _from_folder(files: Sequence[File], text: str) -> list[Group]:
    folders = tuple(part for part in text.split("/") if part not in ("", "."))
    found = group((file for file in files if file.folders[: len(folders)] == folders), {*folders})
    return [one for one in found if one.role != "none"] or found


def _from_template(files: Sequence[File], text: str, kind: Role) -> list[Group]:
    template = Template(text, [])
    one = Group((), role=kind, fixed=text)
    for file in files:
        if (values := template.match(file.inside)) is not None:
            name = "/".join(filter(None, (values.get("name"), values.get("rest"))))
            key = (values.get("split", ""), values.get("folder", ""), name)
            one.files.setdefault(key, file)
            one.endings.add(file.suffix.lower())
    return [one] if one.files else []


def _examples(files: Sequence[File]) -> str:
    shown = ", ".join(file.inside for file in files[:3])
    return f"it has {shown}{', ...' if len(files) > 3 else ''}" if files else "it is empty"


def merged(groups: Iterable[Group]) -> list[Group]:
    """Groups that differ in their extensions only become one, where no name occurs twice."""
    merged: dict[object, Group] = {}
    for one in groups:
        key = (one.form, one.role) if not one.fixed else one.fixed
        other = merged.get(key)
        if other is None:
            merged[key] = one
        elif other.files.keys() & one.files.keys() or (".json" in other.endings | one.endings):
            merged[(key, *one.endings)] = one
        else:
            both = {**other.files, **one.files}
            endings = other.endings | one.endings
            merged[key] = Group(one.folders, one.prefix, one.suffix, one.role, one.coloured, both, endings)
    return [*merged.values()]


def labelme_groups(tree: Tree) -> list[Group]:
    """Groups of .json files that are labelme's."""
    found = []
    for one in group(tree.having(".json"))[:_MOST]:
        if any(_is_labelme(tree.path(file)) for file in one.sample(3)):
            one.role = "masks"
            found.append(one)
    return found


def _is_labelme(path: Path) -> bool:
    try:
        data = read_json(path, "a file of labelme")
    except DataError:
        return False
    return isinstance(data, Mapping) and isinstance(data.get("shapes"), list)
