"""Annotations of COCO, as Roboflow, CVAT, Label Studio, FiftyOne and others lay them out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densevit.data.coco_rows import file_name_of, photo_names, unused_roots
from densevit.data.discover.candidates import Candidate
from densevit.data.discover.given import below
from densevit.data.discover.groups import FOLDER, Group, Key, literal
from densevit.data.discover.pairing import common_start
from densevit.data.discover.roles import split_of
from densevit.data.discover.tree import File, Tree, counted
from densevit.data.files import name_key
from densevit.errors import DataError
from densevit.io import read_json
from densevit.limits import limits

_MOST_FILES = 100
"""Files of COCO's annotations of one data set; more .json files are labelme's, or of another kind."""

_OTHER_TASKS = re.compile(r"(?i)keypoints|captions|panoptic|image_info|info_|deprecated")


@dataclass
class CocoFile:
    """A file of COCO's annotations.

    Attributes:
        file: where it is.
        names: of its categories in the order of their ids, without dummy roots.
        roots: dummy root categories.
        photos: file names.
        outlines: number of annotations with an outline.
        boxes: number of those without.
    """

    file: File
    names: list[str]
    roots: list[str]
    photos: list[str]
    outlines: int
    boxes: int


def coco(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """The photos and outlines of each set of annotations; several files are one set where they differ in the split."""
    sets: dict[str, list[CocoFile]] = {}
    for one in _coco_files(tree, given):
        if one.outlines or given.get("masks") is not None:
            sets.setdefault(_split_template(one.file)[0], []).append(one)
    found = [_coco_candidate(tree, template, files, given) for template, files in sets.items()]
    return [one for one in found if one is not None]


def why_not(tree: Tree) -> str:
    """Why annotations that are there cannot be used; "" without such."""
    for one in _coco_files(tree, {}):
        if one.outlines and one.photos:
            return (
                f"{one.file.inside} lists {counted(len(one.photos), 'photo')}, of which none is there "
                f"({', '.join(one.photos[:1])}); export the data with its images, or put them next to it"
            )
        if one.boxes:
            return (
                f"{one.file.inside} holds {one.boxes} boxes and no outline, from which no mask can be drawn; export "
                "the data with segmentation (polygons or run lengths)"
            )
    for file in tree.named(lambda name: name == "labels.json"):
        data = read_if_json(tree.path(file))
        if isinstance(data, Mapping) and isinstance(data.get("labels"), Mapping):
            return (
                f"{file.inside} is FiftyOne's list of boxes or classes, from which no mask can be drawn; export the "
                "data as COCODetectionDataset with segmentation, or as ImageSegmentationDirectory"
            )
    return ""


def _coco_files(tree: Tree, given: Mapping[str, Any]) -> list[CocoFile]:
    """The files of COCO's annotations, or those that are given."""
    files = tree.having(".json")
    if (masks := given.get("masks")) is not None:
        texts = {*below(tree, Path(masks))}
        files = [file for file in files if texts & {file.inside, _split_template(file)[0]}]
    if len(files) > _MOST_FILES:
        files = [file for file in files if re.search(r"(?i)coco|instances|annotations|result|labels", file.name)]
    found = []
    for file in files[:_MOST_FILES]:
        if masks is None and _OTHER_TASKS.search(file.stem):
            continue
        data = read_if_json(tree.path(file))
        if isinstance(data, Mapping) and all(
            isinstance(data.get(key), list) for key in ("images", "categories", "annotations")
        ):
            found.append(_coco_file(file, data))
    return found


def read_if_json(path: Path) -> Any:
    """The content of a JSON file; None if it is too large or no JSON."""
    try:
        if path.stat().st_size > limits().text_bytes:
            return None
        return read_json(path, "annotations")
    except DataError:
        return None


def _coco_file(file: File, data: Mapping[str, Any]) -> CocoFile:
    roots = unused_roots(data)
    rows = [row for row in data["categories"] if isinstance(row, Mapping)]
    rows.sort(key=lambda row: row["id"] if isinstance(row.get("id"), int) else 0)
    names = [str(row.get("name")) for row in rows if str(row.get("name")) not in roots]
    photos = [name for row in data["images"] if (name := file_name_of(row)) is not None]
    drawn = [bool(row.get("segmentation")) for row in data["annotations"] if isinstance(row, Mapping)]
    return CocoFile(file, list(dict.fromkeys(names)), roots, photos, sum(drawn), len(drawn) - sum(drawn))


def _split_template(file: File) -> tuple[str, str]:
    """The path of a file with ``{split}`` in it, and the split."""
    split, parts = "", []
    for part in (*file.folders, file.stem):
        text, found = split_of(part)
        if found and split in ("", found):
            split, part = found, literal(text)
        else:
            part = literal(part)
        parts.append(part)
    return "/".join(parts) + file.suffix, split


def _coco_candidate(tree: Tree, template: str, files: list[CocoFile], given: Mapping[str, Any]) -> Candidate | None:
    """The photos that some files of annotations list; None if they are not in the tree."""
    by_name: dict[str, list[File]] = {}
    for file in tree.pixels:
        by_name.setdefault(name_key(file.name), []).append(file)
    listed: dict[Key, File] = {}
    missing: list[str] = []
    for one in files:
        split = _split_template(one.file)[1]
        for entry in one.photos:
            options = next((by_name[name] for name in photo_names(entry) if name in by_name), [])
            if not options:
                missing.append(entry)
                continue
            photo = max(options, key=lambda file: (_same_place(file, one.file, entry), -len(file.folders)))
            listed[split, "/".join(photo.folders), photo.stem] = photo
    if not listed:
        return None
    if len({key[0] for key in listed}) == 1:
        template = files[0].file.inside
        listed = {(split, *key[1:]): file for key, file, split in _by_folders(listed)}
    photos = _photo_group(listed, any(key[0] for key in listed))
    classes = list(dict.fromkeys(name for one in files for name in one.names))
    keys: dict[str, Any] = {"masks": Path(template), "classes": tuple(classes)}
    remarks = [f"masks are drawn from {sum(one.outlines for one in files):,} outlines of COCO in {template}"]
    if roots := sorted({name for one in files for name in one.roots} - {*classes}):
        remarks.append(f"the category {', '.join(roots)} only groups the others and has no outline, so it is no class")
    if any(one.names != files[0].names for one in files):
        remarks.append("the files name different categories; the classes are those of all together")
    if boxes := sum(one.boxes for one in files):
        remarks.append(f"{boxes} annotations have no outline; the inside of their boxes is ignored")
    if missing:
        remarks.append(f"{len(missing)} photos of {template} are not there, such as {missing[0]}; they are left out")
    used = frozenset(one.file.inside for one in files)
    return Candidate(photos, {}, frozenset(photos.files), keys, remarks, files=used)


def _by_folders(listed: Mapping[Key, File]) -> list[tuple[Key, File, str]]:
    """The photos of one file with the splits that their folders name, if all have one and they differ; else ""."""
    named = [next((found for part in file.folders if (found := split_of(part)[1])), "") for file in listed.values()]
    told = all(named) and len({*named}) > 1
    return [(key, file, split * told) for (key, file), split in zip(listed.items(), named, strict=True)]


def _same_place(photo: File, annotations: File, entry: str) -> int:
    """How well the place of a photo fits to what its entry says, and to that of the annotations."""
    parts = [part for part in entry.replace("\\", "/").split("/") if part]
    ends = sum(1 for own, said in zip((*photo.folders, photo.name)[::-1], parts[::-1], strict=False) if own == said)
    split = _split_template(annotations)[1]
    near = photo.folders[: len(annotations.folders)] == annotations.folders
    return 100 * (bool(split) and any(split_of(part)[1] == split for part in photo.folders)) + 10 * ends + near


def _photo_group(listed: Mapping[Key, File], has_splits: bool) -> Group:
    """The group of the photos of annotations, whose folders are the same up to the split and what varies."""
    forms = {key: _folders_form(key, file, has_splits) for key, file in listed.items()}
    common = common_start(forms.values())
    deeper = any(len(form) > len(common) for form in forms.values())
    one = Group((*common, *([FOLDER] if deeper else [])), role="images")
    for key, file in listed.items():
        folder = "/".join(file.folders[len(common) :])
        one.files[key[0], folder, file.stem] = file
        one.endings.add(file.suffix.lower())
    return one


def _folders_form(key: Key, file: File, has_splits: bool) -> tuple[str, ...]:
    form = []
    for folder in file.folders:
        text, found = split_of(folder)
        own = has_splits and found and found == key[0]
        form.append(literal(text) if own else literal(folder))
    return tuple(form)
