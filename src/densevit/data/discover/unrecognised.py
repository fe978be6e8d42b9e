"""Why a tree is not recognised: exports of other tools, names that do not match, or one half only."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from densevit.data.discover.coco_layout import read_if_json, why_not
from densevit.data.discover.given import labelme_groups
from densevit.data.discover.groups import Group, group
from densevit.data.discover.times import MOST_S, STAMP
from densevit.data.discover.tree import File, Tree, counted
from densevit.data.pair_list import column_name
from densevit.errors import DataError
from densevit.io import read_lines, read_rows
from densevit.io.stored import read_numbers

_ACCEPTED = "masks as images, COCO with segmentation, labelme's files, or CVAT's 'Segmentation mask 1.1' are accepted"
_UNREAD = (".npz", ".mat", ".h5", ".hdf5", ".nii", ".gz", ".dcm", ".pkl")
_PACKED = (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".rar", ".7z")
_MOST = 20
"""Files of a kind that are looked into."""


def unrecognised(tree: Tree) -> str:
    """The message for a tree that no rule explains."""
    if reason := why_not(tree) or _foreign(tree):
        return f"{tree.root}: {reason}"
    if shapes := labelme_groups(tree):
        return (
            f"{tree.root}: {counted(sum(len(one.files) for one in shapes), 'file')} of labelme, such as "
            f"{_example(shapes[0])}, and no photo; photos inside of them (imageData) are not read; put the photos next "
            "to them"
        )
    kinds = Counter(file.suffix.lower() or "no extension" for file in tree.files).most_common(5)
    held = ", ".join(f"{number} {kind}" for kind, number in kinds) or "no file"
    example = f", such as {tree.pixels[0].inside}" if tree.pixels else ""
    if arrays := tree.having(*_UNREAD):
        example += f"; {arrays[0].suffix} is not read, so save the arrays as .npy"
    if tables := pair_lists(tree):
        example += f"; {tables[0].inside} lists pairs, so give it with --pairs '{tree.path(tables[0])}'"
    if packed := [file for file in tree.files if file.name.lower().endswith(_PACKED)]:
        return (
            f"{tree.root} has {packed[0].inside}, an archive of a form that is not read; folders and .zip archives are "
            "accepted; unpack it and name the folder"
        )
    if (archives := tree.having(".zip")) and not tree.pixels:
        several = ", or unpack those of photos and masks into one folder and name it" * (len(archives) > 1)
        return (
            f"{tree.root} has {held} and no photo of its own; one data set as a folder or archive is accepted; name "
            f"the archive itself, such as '{tree.path(archives[0])}'{several}"
        )
    if reason := _no_image(tree):
        return f"{tree.root}: {reason}"
    if not tables and (reason := _unmatched(tree)):
        return f"{tree.root}: {reason}"
    return (
        f"{tree.root} has no photos with masks, depth or values that can be told by their names ({held}{example}); "
        "name them with templates such as --images 'photos/{name}.jpg' --masks 'masks/{name}.png', or with --pairs"
    )


def _no_image(tree: Tree) -> str:
    """Which files are named as images and are none, such as ETH3D's depth; "" without such."""
    for one in group(tree.pixels):
        for file in one.sample(1):
            try:
                read_numbers(tree.path(file))
            except DataError as error:
                return f"{error} (depth as raw floats without a header, as of ETH3D, can be saved as .npy)"
    return ""


def _yolo(tree: Tree, file: File) -> str:
    """A class and numbers from 0 to 1 on each line: five for a box, an odd number of seven and more for an outline."""
    rows = [line.split() for line in read_lines(tree.path(file), "outlines")[:_MOST]]
    if not all(
        len(row) >= 5 and row[0].isdigit() and all(_FRACTION.fullmatch(part) for part in row[1:]) for row in rows
    ):
        return ""
    return "YOLO's boxes" if all(len(row) == 5 for row in rows) else "YOLO's outlines"


def _xml(tree: Tree, file: File) -> str:
    text = "".join(read_lines(tree.path(file), "XML")[:500])
    if "<annotations" in text and "<image" in text:
        return "CVAT's XML"
    if "<Vertices" in text and "<Region" in text:
        return "outlines of Aperio ImageScope"
    if "<polygon" in text and "<annotation" in text:
        return "XML of LabelMe's web tool"
    return "Pascal VOC's boxes" if "<bndbox" in text else ""


def _json(tree: Tree, file: File) -> str:
    data = read_if_json(tree.path(file))
    found: Any = data.get("_via_img_metadata", data) if isinstance(data, Mapping) else data
    rows = list(found.values()) if isinstance(found, Mapping) else found if isinstance(found, list) else []
    first = rows[0] if rows else None
    if isinstance(first, Mapping) and "regions" in first and "filename" in first:
        return "annotations of the VGG Image Annotator (VIA)"
    if isinstance(data, Mapping) and isinstance(data.get("objects"), list):
        of_supervisely = "size" in data or any(
            "classTitle" in row for row in data["objects"] if isinstance(row, Mapping)
        )
        return "Supervisely's annotations" if of_supervisely else "polygons of Cityscapes"
    if isinstance(first, Mapping) and isinstance(first.get("data"), Mapping) and "annotations" in first:
        return "Label Studio's tasks as JSON"
    if isinstance(data, Mapping) and isinstance(data.get("item"), Mapping) and "annotations" in data:
        return "V7's annotations (Darwin JSON)"
    if isinstance(data, Mapping) and isinstance(data.get("dataset"), Mapping) and "samples" in data["dataset"]:
        return "a release of Segments.ai"
    return ""


def _lines_of_json(tree: Tree, file: File) -> str:
    return "annotations of Labelbox" if '"data_row"' in read_lines(tree.path(file), "JSON")[0] else ""


def _run_lengths(tree: Tree, file: File) -> str:
    head = read_lines(tree.path(file), "a table")[0].lower()
    return "a table of run lengths" if re.search("encodedpixels|rle|segmentation", head) else ""


_FRACTION = re.compile(r"[-+0-9.eE]+")
_TOOLS: tuple[tuple[str, Callable[[Tree, File], str]], ...] = (
    (".json", _json),
    (".txt", _yolo),
    (".xml", _xml),
    (".ndjson", _lines_of_json),
    (".csv", _run_lengths),
)
"""What recognises the annotations of a tool in files with an extension."""


def _foreign(tree: Tree) -> str:
    """Which tool's annotations, that are not read, a tree has; "" without such."""
    for ending, find in _TOOLS:
        for file in tree.having(ending)[:_MOST]:
            try:
                found = find(tree, file)
            except DataError:
                continue
            if found:
                return f"{file.inside} holds {found}, a form that is not read; {_ACCEPTED}; export the data again"
    return ""


def _unmatched(tree: Tree) -> str:
    """Why photos and targets that names tell apart are not paired; "" where their names tell nothing."""
    groups = group(tree.pixels)
    photos = [one for one in groups if one.role == "images"]
    targets = [one for one in groups if one.role in ("masks", "depth", "values")]
    if not targets or tree.having(".json"):
        return ""
    if not photos:
        return (
            f"{counted(sum(len(one.files) for one in targets), 'file')} such as {_example(targets[0])} are targets by "
            "their names, and there is no photo; export or copy the photos too, next to them"
        )
    return _differ(tree, photos[0], targets[0])


def _differ(tree: Tree, photos: Group, targets: Group) -> str:
    text = f"photos such as {_example(photos)} and {targets.role} such as {_example(targets)} have no names in common"
    ours, theirs = ({key[2] for key in one.files} for one in (photos, targets))
    if len({*map(_number, ours)} & {*map(_number, theirs)}) >= 0.5 * len(ours):
        return f"{text}, as their numbers have other leading zeros; rename one of them, or list the pairs with --pairs"
    if all(map(STAMP.fullmatch, [*ours, *theirs])):
        return f"{text}, and no time stamps within {MOST_S} s; set nearest to what they may differ by, or use --pairs"
    return f"{text}; rename them, give templates, or list the pairs in a table with --pairs"


def _number(name: str) -> str:
    """A name without leading zeros of its numbers."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", name)


def _example(one: Group) -> str:
    return min(file.inside for file in one.files.values())


def pair_lists(tree: Tree) -> list[File]:
    """The tables whose first line names photos and targets."""
    return [file for file in tree.having(".csv")[:_MOST] if _is_pair_list(tree.path(file))]


def _is_pair_list(path: Path) -> bool:
    try:
        head = {column_name(cell) for cell in read_rows(path, "a table")[1][0]}
    except (DataError, IndexError):
        return False
    return bool("image" in head and head & {"mask", "depth", "values"})
