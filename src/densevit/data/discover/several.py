"""Several masks for a photo: Label Studio's brush masks of regions, and a mask for each class."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from densevit.data.discover.candidates import Candidate
from densevit.data.discover.coco_layout import read_if_json
from densevit.data.discover.contents import SAMPLES, read_masks
from densevit.data.discover.given import below, given_groups
from densevit.data.discover.groups import FOLDER, Group, Key, group, literal
from densevit.data.discover.pairing import settle
from densevit.data.discover.tree import Tree, counted
from densevit.data.regions import files_of
from densevit.data.templates import Template, is_template
from densevit.errors import DataError

BACKGROUNDS = frozenset({"background", "_background_", "bg"})
"""Names, in lower case, of classes that already are the background."""

_BRUSH = re.compile(r"task-(\d+)-annotation-([^-]+)-by-([^-]*)-([^-]+)-(.+)-(\d+)\Z")


def with_background(classes: list[str]) -> tuple[tuple[str, ...], str]:
    """The classes with one for what no shape covers, first unless there is one, and its name."""
    own = next((name for name in classes if name.lower() in BACKGROUNDS), None)
    return (tuple(classes), own) if own is not None else (("background", *classes), "background")


def brushes(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Label Studio's brush masks, one for each region, named after the task; a JSON export says which photo it is."""
    named = [(file, found) for file in tree.pixels if (found := _BRUSH.match(file.stem)) is not None]
    if not named or given.get("masks") is not None:
        return []
    folders = {file.folders for file, _ in named}
    tags = {found[4] for _, found in named}
    tasks = [file for file in tree.having(".json") if _has_tasks(read_if_json(tree.path(file)))]
    if len(folders) > 1 or not tasks:
        raise DataError(
            f"{tree.root} has {len(named)} brush masks of Label Studio, such as {named[0][0].inside}, and no JSON "
            "export of the same tasks, which says of which photos they are; export JSON too, and put it next to them"
        )
    photos = [one for one in group(tree.pixels) if not any(_BRUSH.match(file.stem) for file in one.files.values())]
    images = [one for one in photos if one.role in ("images", "")]
    if not images:
        return []
    place = "".join(f"{literal(folder)}/" for folder in named[0][0].folders)
    tag = literal(tags.pop()) if len(tags) == 1 else "*"
    template = f"{place}task-{{task}}-annotation-*-by-*-{tag}-{{class}}-*{named[0][0].suffix}"
    classes = sorted({found[5] for _, found in named})
    names, background = with_background(classes)
    keys = {"masks": Path(template), "tasks": Path(tasks[0].inside), "classes": names, "background": background}
    remarks = [
        f"{len(named)} brush masks of Label Studio, one for each region, become one mask for each photo of "
        f"{tasks[0].inside}; pixels of no region are {background!r}"
    ]
    used = frozenset(file.inside for file in (*(file for file, _ in named), tasks[0]))
    return [Candidate(images[0], {}, frozenset(images[0].files), keys, remarks, files=used)]


def given_regions(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """Photos for a given template of masks with ``{class}`` or ``{task}``."""
    if given.get("masks") is None or not is_template(Path(given["masks"])):
        return []
    for text in below(tree, Path(given["masks"])):
        template = Template(text, [])
        matches = {file: found for file in tree.pixels if (found := template.match(file.inside)) is not None}
        if not matches or not template.fields & {"class", "task"}:
            continue
        rest = [file for file in tree.pixels if file not in matches]
        photos = given_groups(tree, "images", given, ()) or [one for one in group(rest) if one.role in ("images", "")]
        classes = sorted({found["class"] for found in matches.values() if "class" in found})
        names, background = with_background(classes)
        keys = {"masks": Path(text), **({"classes": names, "background": background} if classes else {})}
        used = frozenset(file.inside for file in matches)
        remarks = [f"{len(matches)} files become the masks of their photos; pixels of none are {background!r}"]
        return [Candidate(one, {}, frozenset(one.files), keys, remarks, files=used) for one in photos[:1]]
    return []


def _has_tasks(data: Any) -> bool:
    rows = [row for row in data[:5] if isinstance(row, Mapping)] if isinstance(data, list) else []
    return any("id" in row and any(files_of(row)) for row in rows)


def further_masks(tree: Tree, one: Candidate, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys for masks of which some photos have more than one, such as a_mask.png and a_mask_1.png.

    Args:
        tree: the data set.
        one: the candidate, whose ``files`` get the further masks.
        found: the keys for its classes; only those of a background and a foreground are merged.
    """
    masks = one.targets.get("masks")
    if masks is None or masks.fixed or not masks.suffix or found.get("classes") != ("background", "foreground"):
        return {}, []
    form = re.compile(rf"{re.escape(masks.prefix)}(.+){re.escape(masks.suffix)}[_\-. ]?\d+")
    known = {(file.folders, name) for (_, _, name), file in masks.files.items()}
    stems = [(file, match[1]) for file in tree.pixels if (match := form.fullmatch(file.stem)) is not None]
    more = [file for file, name in stems if (file.folders, name) in known]
    if not more or "stray_values" in found:
        return {}, []
    one.files |= {file.inside for file in more}
    stem, dot, ending = masks.template().rpartition(".")
    text = (
        f"{counted(len(more), 'further mask')} of the same photos, such as {more[0].inside}, are merged with the first"
    )
    return {"masks": Path(f"{stem}*{dot}{ending}"), "background": "background"}, [f"{text}; nonzero is foreground"]


def masks_by_class(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """A mask for each class of a photo: in folders of classes, or in a folder for each photo."""
    if given.get("masks") is not None:
        return []
    groups = group(tree.pixels)
    found = []
    for photos in [one for one in groups if one.role == "images"]:
        names = {key[2]: key for key in photos.files}
        for masks in [one for one in groups if one.role == "masks"]:
            for form in ("{class}/{name}", "{name}/{class}", "{name}_{class}"):
                if (one := _by_class(photos, names, masks, form)) is not None and _show_one(tree, masks):
                    found.append(one)
                    break
    return found[:1]


def _show_one(tree: Tree, masks: Group) -> bool:
    """Whether each mask shows one class or none, as far as can be seen."""
    held = read_masks(tree, masks, 4 * SAMPLES)
    return held.lossy or all(len(values) <= 2 for values, _ in (*held.values, *held.colours))


def masks_by_object(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """A mask for each object of a photo, with a name that says nothing: photo/images/a.png and photo/masks/*.png."""
    if given.get("masks") is not None:
        return []
    groups = group(tree.pixels)
    for photos in [one for one in groups if one.role == "images"]:
        for masks in [one for one in groups if one.role == "masks" and FOLDER in one.folders]:
            if (one := _by_object(tree, photos, masks)) is not None:
                return [one]
    return []


def _by_object(tree: Tree, photos: Group, masks: Group) -> Candidate | None:
    """The candidate if each folder of masks is of one photo, by the folder or the name of the photo."""
    by_folder = FOLDER in photos.folders
    place_of = {key: (key[0], key[1] if by_folder else key[2]) for key in photos.files}
    theirs = {key[:2] for key in masks.files}
    covered = frozenset(key for key, place in place_of.items() if place in theirs)
    alone = len({*place_of.values()}) == len(place_of)
    if not alone or len(covered) < 0.5 * len(theirs) or not covered or len(theirs) == len(masks.files):
        return None
    if read_masks(tree, masks, 4 * SAMPLES).judge().keys.get("classes") != ("background", "foreground"):
        return None
    used = frozenset(file.inside for file in masks.files.values())
    (photos, masks), keys = settle([photos, masks], covered)
    names = [key[1] for key in masks.files]
    place = "{folder}/{name}/" if by_folder and any("/" in name for name in names) else "{name}/"
    ending = next(iter(masks.files.values())).suffix
    template = f"{masks.place.replace(FOLDER, place)}{literal(masks.prefix)}*{literal(masks.suffix)}{ending}"
    if by_folder:  # the folder is the name of the photo
        written = photos.template().replace(FOLDER, "{folder}/").replace("{name}", "*").replace("{folder}/", place)
        named = {key: (key[0], key[1].rpartition("/")[0], key[1].rpartition("/")[2]) for key in photos.files}
        photos = replace(photos, fixed=written, files={named[key]: file for key, file in photos.files.items()})
        keys = frozenset(named[key] for key in keys)
    found = {"masks": Path(template), "classes": ("background", "foreground"), "background": "background"}
    text = f"{len(used):,} masks of one object each ({template}) become one for each photo, of the class foreground"
    return Candidate(photos, {}, keys, found, [text], files=used)


def _by_class(photos: Group, names: Mapping[str, Key], masks: Group, form: str) -> Candidate | None:
    """The candidate if masks have this form: each class is of several photos, and most photos have one."""
    classes: Counter[str] = Counter()
    covered: set[Key] = set()
    tails: set[tuple[str, str]] = set()
    for split, folder, name in masks.files:
        if form == "{name}_{class}":
            photo = _photo_of(name, names)
            cls = name[len(photo) + 1 :] if photo else ""
        elif form == "{class}/{name}":
            photo, cls = name if name in names else _photo_of(name, names), folder
            tails.add((cls, name[len(photo) :]))
        else:
            photo, cls = folder, name
        if photo not in names or not cls or "/" in cls or (split and names[photo][0] not in ("", split)):
            return None
        classes[cls] += 1
        covered.add(names[photo])
    if not classes or len(classes) > max(len(names), 64) or len(covered) < 0.5 * len(names):
        return None
    if form != "{class}/{name}" and max(classes.values()) < 2 <= len(names):
        return None  # numbers of objects, not classes
    if (FOLDER in masks.folders) != (form != "{name}_{class}") or len(tails) > len(classes):
        return None
    ending = next(iter(masks.files.values())).suffix
    tail = next((f"{end[0]}*" for _, end in tails if end), "")  # Exudates/a_EX.tif, Discs/a_OD.tif
    named = {"{class}/{name}": ("{class}/", f"{{name}}{tail}"), "{name}/{class}": ("{name}/", "{class}")}
    folder, name = named.get(form) or ("", _joined(masks, names))
    template = f"{masks.place.replace(FOLDER, folder)}{literal(masks.prefix)}{name}{literal(masks.suffix)}{ending}"
    ordered = sorted(classes)
    listed, background = with_background(ordered)
    keys = {"masks": Path(template), "classes": listed, "background": background}
    remarks = [
        f"each class has masks of its own ({template}): {', '.join(ordered[:8])}; pixels of none are {background!r}"
    ]
    used = frozenset(file.inside for file in masks.files.values())
    return Candidate(photos, {}, frozenset(covered), keys, remarks, files=used)


def _joined(masks: Group, names: Mapping[str, Key]) -> str:
    """``{name}_{class}`` with the sign that joins them."""
    name = next(iter(masks.files))[2]
    return f"{{name}}{name[len(_photo_of(name, names))]}{{class}}"


def _photo_of(name: str, names: Mapping[str, Key]) -> str:
    """The photo whose name the name of a mask begins with, before a sign; "" if there is none."""
    return next((name[:i] for i in range(len(name) - 1, 0, -1) if name[i] in "_-." and name[:i] in names), "")
