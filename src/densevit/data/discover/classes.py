"""The classes of masks: from the lists that tools write next to them, from labels, or from the masks themselves."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from densevit.data.class_list import read_class_list
from densevit.data.class_names import PASCAL_VOC, voc_colour
from densevit.data.coco import read_coco
from densevit.data.discover.candidates import Candidate
from densevit.data.discover.class_files import Listed, listed_classes
from densevit.data.discover.contents import Held, read_masks
from densevit.data.discover.several import with_background
from densevit.data.discover.tree import File, Tree
from densevit.data.labelme import parse_labelme, read_labelme
from densevit.data.sample import ClassTable, Rgb
from densevit.errors import DataError
from densevit.io import read_image
from densevit.limits import limits

_DRAWN = 20
"""Photos whose outlines are drawn, to say how much they cover."""


def classes_of_masks(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys for the classes of a candidate, and sentences on them.

    Raises:
        DataError: the masks hold no classes, as far as can be seen.
    """
    if "masks" not in one.targets:
        shapes = str(one.keys.get("masks", "")).endswith(".json")
        return _background_of_coco(tree, one, given) if shapes else ({}, [])
    if ".json" in one.targets["masks"].endings:
        return _labelme(tree, one, given)
    if given.get("classes") is not None:
        return {}, []
    if (own := next(iter(tree.named(lambda name: name == "classes.json")), None)) is not None:
        return _classes_json(tree, own)
    held = read_masks(tree, one.targets["masks"])
    listed, said = listed_classes(tree)
    keys, remarks = _named(held, listed, one) if listed is not None else _unnamed(tree, held, one)
    remarks += said
    total = len(one.targets["masks"].files)
    return keys, [*remarks, *([f"{held.number} of {total:,} masks were read for this"] if held.number < total else [])]


def _unnamed(tree: Tree, held: Held, one: Candidate) -> tuple[dict[str, Any], list[str]]:
    """Classes of masks that nothing names."""
    if (voc := _voc(held, one)) is not None:
        return voc
    template = one.targets["masks"].template()
    judged = held.judge()
    if judged.problem:
        lossy = " (they are JPEG files, which blur classes)" if held.lossy else ""
        raise DataError(
            f"{tree.root}: {judged.problem}{lossy} in {template}; class numbers, some grey values or some colours are "
            "accepted; are these photos, numbers of instances, or values of a regression (.npy with --values)? Name "
            "other masks with --masks, or their classes in classes.json"
        )
    return judged.keys, [judged.found]


def _named(held: Held, listed: Listed, one: Candidate) -> tuple[dict[str, Any], list[str]]:
    """Keys for classes that a file lists, fitted to what the masks hold."""
    keys: dict[str, Any] = {"classes": listed.names}
    text = f"{len(listed.names)} classes of {listed.source}"
    if listed.palette and (held.colours or _paints(held, listed.palette)):
        keys["palette"] = listed.palette
        if held.values or held.by_colour:
            keys["mask_format"] = "colour"
        if held.lossy:
            keys["unknown_colours"] = "nearest"
        return keys, [f"{text} with their colours{', to the nearest of which JPEG files are read' * held.lossy}"]
    numbers = sorted({int(value) for values, _ in held.values for value in values})
    judged = held.judge()
    values = judged.keys.get("class_values", ())
    greys = tuple(red for red, green, blue in listed.palette if red == green == blue)
    if len(greys) == len(listed.names) and {*(values or numbers)} <= {*greys}:
        return judged.keys | keys | {"class_values": greys}, [f"{text} with their grey values"]
    if listed.values and listed.values[0] > 0 and {*numbers} == {0, *listed.values}:
        keys["classes"] = ("background", *listed.names)
        if (stored := (0, *listed.values)) != tuple(range(len(stored))):
            keys["class_values"] = stored
        return keys, [f"{text} with their numbers in masks, after background for 0"]
    if listed.values and listed.values != tuple(range(len(listed.names))):
        return keys | {"class_values": listed.values}, [f"{text} with their numbers in masks"]
    if len(values) == len(listed.names):
        return judged.keys | keys, [f"{text}, in the order of the values {', '.join(map(str, values))} in masks"]
    if values and len(values) == len(listed.names) + 1 and values[0] == 0:
        keys["classes"] = ("background", *listed.names)
        shown = ", ".join(map(str, values))
        return judged.keys | keys, [f"{text}, after background, in the order of the values {shown} in masks"]
    named = [number for number in numbers if number != 255] or numbers
    if named and named[-1] < len(listed.names) and numbers != [0, 255]:
        if held.spread_out:
            keys["class_values"] = tuple(range(len(listed.names)))
        return keys, [text]
    if held.values and named == [*range(len(listed.names) + 1)][-len(named) :]:
        if 0 in named:
            keys["classes"] = ("background", *listed.names)
            return keys, [f"{text} for the numbers from 1 on, after background for 0; set classes to change it"]
        keys["class_values"] = tuple(range(1, len(listed.names) + 1))
        return keys, [f"{text}, counted from 1 in the masks (class_values)"]
    raise DataError(
        f"{listed.source} lists {len(listed.names)} classes, but {one.targets['masks'].template()} holds "
        f"{judged.held or 'something else'}; a name for each number is accepted; fix the list, or set classes and "
        "class_values"
    )


def _paints(held: Held, palette: Sequence[Rgb]) -> bool:
    """Whether palette images have these colours where they are used."""
    used = {int(value) for values, _ in held.values for value in values}
    return bool(held.palette) and all(value < len(held.palette) and held.palette[value] in palette for value in used)


def _voc(held: Held, one: Candidate) -> tuple[dict[str, Any], list[str]] | None:
    """The classes of Pascal VOC, where masks have its folder and its colours."""
    if "SegmentationClass" not in one.targets["masks"].place or "JPEGImages" not in one.photos.place:
        return None
    palette = tuple(voc_colour(index) for index in range(len(PASCAL_VOC)))
    void = voc_colour(255)
    numbers = {int(value) for values, _ in held.values for value in values} - {255}
    if numbers and held.palette[: len(palette)] == palette and max(numbers) < len(palette):
        return {"classes": PASCAL_VOC}, ["masks have the palette of Pascal VOC, and its 21 classes; 255 is ignored"]
    codes = {int(value) for values, _ in held.colours for value in values}
    known = {red << 16 | green << 8 | blue for red, green, blue in (*palette, void)}
    if codes and codes <= known:
        keys = {"classes": PASCAL_VOC, "palette": palette, "unknown_colours": "ignore"}
        return keys, ["masks have the colours of Pascal VOC, and its 21 classes; others, as of borders, are ignored"]
    return None


def _labelme(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The labels of labelme's files, sorted, and the background."""
    group = one.targets["masks"]
    files = [parse_labelme(tree.path(file)) for file in group.files.values()]
    labels = sorted({shape.label for file in files for shape in file.shapes})
    if len(labels) > limits().classes or not labels:
        raise DataError(f"{tree.root}: {group.template()} has {len(labels)} labels; one or more are accepted; check it")
    names = _given_names(given) or labels
    text = f"{len(labels)} classes are the labels of {len(files)} files of labelme: {', '.join(labels[:8])}"
    paths = {key: tree.path(file) for key, file in group.files.items()}
    photos = {key: tree.path(file) for key, file in one.photos.files.items()}
    table = ClassTable(tuple(names))

    def uncovered(key: Any) -> float:
        size = parse_labelme(paths[key]).size or read_image(photos[key]).shape[:2]
        return float((read_labelme(paths[key], table, -1, (size[0], size[1])) == -1).mean())

    keys, remarks = _background([*names], _share(uncovered, [key for key in paths if key in photos]), given)
    return keys, [text, *remarks]


def _background_of_coco(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The background of annotations whose classes are known."""
    names = _given_names(given) or [*one.keys["classes"]]
    template, masks = str(one.keys["masks"]), {}
    for split in one.splits or [""]:
        masks[split] = read_coco(tree.root / template.replace("{split}", split), ClassTable((*names,)), None)
    entries = [(split, entry) for split, coco in masks.items() for entry, photo in coco.photos.items() if photo.size]

    def uncovered(key: Any) -> float:
        coco = masks[key[0]]
        size = coco.photos[key[1]].size
        assert size is not None
        return float((coco.labels(key[1], size) == coco.background).mean())

    return _background(names, _share(uncovered, entries), given)


def _given_names(given: Mapping[str, Any]) -> list[str]:
    """The classes that are given, which may be their number; empty without them."""
    classes = given.get("classes") or ()
    return [f"class {index}" for index in range(classes)] if isinstance(classes, int) else [*classes]


def _share(uncovered: Callable[[Any], float], keys: Sequence[Any]) -> float:
    """The share of the pixels of some photos that no shape covers."""
    chosen = keys[:: max(len(keys) // _DRAWN, 1)][:_DRAWN]
    return float(np.mean([uncovered(key) for key in chosen])) if chosen else 1.0


def _background(names: list[str], share: float, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    if (own := given.get("background")) is not None:
        if own in names or given.get("classes") is not None:
            return {}, []
        return {"classes": (own, *names)}, [f"pixels that no outline covers are the class {own!r}"]
    if share < 0.001:
        return {"classes": tuple(names)}, ["outlines cover the photos, so that there is no background"]
    listed, own = with_background(names)
    text = f"outlines leave {share:.1%} of the photos uncovered"
    if given.get("classes") is not None and own not in names:
        return {}, [f"{text}, which is ignored; set background to one of the classes to change it"]
    text += f", which is the class {own!r}"
    return {"classes": listed, "background": own}, [f"{text}; set background to another class, or null to ignore it"]


def _classes_json(tree: Tree, file: File) -> tuple[dict[str, Any], list[str]]:
    """Keys for a class list of our own form; one with coarser views stays in its file."""
    table = read_class_list(tree.path(file))
    remarks = [f"{len(table.names)} classes of {file.inside}"]
    if table.views and not file.folders:
        return {}, remarks
    keys: dict[str, Any] = {"classes": table.names, "ignore_index": table.ignore_index}
    return keys | ({"palette": table.palette} if table.palette else {}), remarks
