"""Masks that are drawn from shapes: COCO's annotations and labelme's files, as the data set's readers take them."""

from collections.abc import Sequence
from math import inf
from pathlib import PureWindowsPath

from densevit.data import ClassTable
from densevit.data.files import name_key
from densevit.data.folder import mask_reader
from densevit.data.pairs import Pairs
from densevit.data.polygons import PassedOver, background_index
from densevit.data.regions import RegionReader, class_indices
from densevit.data.shapes import CocoReader, LabelmeReader, read_coco_files
from densevit.doctor.context import Context
from densevit.doctor.drawing import StoredMask
from densevit.doctor.facts import ShapeFacts
from densevit.doctor.layout import Split
from densevit.doctor.rules import Findings, listed
from densevit.errors import DataError, DensevitError


def set_readers(
    splits: Sequence[Split], classes: ClassTable | None, findings: Findings, *, most_bytes: float = inf
) -> ClassTable | None:
    """Give the splits whose masks are drawn their reader; what is wrong with COCO's annotations becomes findings.

    Args:
        splits: all of them.
        classes: those that are listed.
        findings: the list that grows.
        most_bytes: annotations in larger files are not opened, nor looked at.

    Returns:
        The classes, which COCO's annotations also name.
    """
    for split in splits:
        files = {paths[0] for paths in split.targets.get("masks", {}).values()} if split.shapes == "coco" else set()
        if sum(path.stat().st_size for path in files) > most_bytes:
            split.targets.pop("masks")
        elif split.shapes == "coco":
            _read_coco(split, classes, findings)
        elif classes is not None and "masks" in split.targets:
            try:
                _set_reader(split, classes)
            except DensevitError as error:
                findings.add("annotations-broken", str(error), split=split.name)
    readers = [s.reader for s in splits if isinstance(s.reader, CocoReader) and s.reader.files]
    for reader in readers[1:]:
        if reader.classes.names != readers[0].classes.names:
            first, other = (next(iter(reader.files)) for reader in (readers[0], reader))
            text = f"{first.name} and {other} have different categories"
            hint = f"Set classes to the names of all: {listed(readers[0].classes.names, 8)}."
            findings.add("annotations-broken", text, [first, other], hint=hint)
    return readers[0].classes if readers else classes


def _set_reader(split: Split, classes: ClassTable) -> None:
    """Set the reader of labelme's files, of regions, or of images whose numbers stand for others."""
    config = split.config.model_copy(update={"merge": {}, "drop": ()})
    if split.shapes == "labelme":
        background_index(classes, config.background)
        split.reader = LabelmeReader(classes, config.background)
    elif split.regions:
        masks, regions = split.targets["masks"], {name for names in split.regions.values() for name in names}
        index = class_indices(sorted(regions), classes, str(config.masks))
        files = {
            split.photos[name]: tuple((index[region], path) for region, path in zip(own, masks[name], strict=True))
            for name, own in split.regions.items()
        }
        split.reader = RegionReader(files, background_index(classes, config.background))
        split.class_names = classes.names
    elif config.class_values is not None or (classes.palette and config.mask_format != "index"):
        rule = config.rule(classes)
        split.stored = StoredMask(mask_reader(config, classes, rule.ignore_index), rule)


def _read_coco(split: Split, classes: ClassTable | None, findings: Findings) -> None:
    """Read a split's annotations, and keep as its masks those of the photos that they list."""
    masks = split.targets.get("masks", {})
    files = {split.photos[name]: paths[0] for name, paths in masks.items()}
    unique = list(dict.fromkeys(files.values()))
    try:
        reader = read_coco_files(files, classes, split.config.background)
    except DataError as error:
        findings.add("annotations-broken", str(error), unique[:1], split=split.name)
        split.targets.pop("masks", None)
        return
    split.targets["masks"] = {name: paths for name, paths in masks.items() if split.photos[name] in reader.entries}
    names = listed([file.name for file in unique], 3)
    if files and not reader.entries:
        text = f"{names} lists none of the photos; its file_name must be theirs"
        findings.add("annotations-broken", text, unique, split=split.name)
        return
    missing = [photo for photo in files if photo not in reader.entries]
    text = f"photos are not listed in {names} and left out"
    findings.add_share("annotations-passed-over", missing, len(files), text, split=split.name)
    for file, coco in reader.files.items():
        for warning in coco.warnings:
            findings.add("annotations-passed-over", warning, [file], split=split.name)
    split.reader = reader


def check_listed(splits: Sequence[Split], pairs: Pairs, findings: Findings) -> None:
    """Find photos that COCO's annotations list and that are not there."""
    names = {name_key(pair.image.name) for pair in pairs.pairs}
    files = {file: coco for s in splits if isinstance(s.reader, CocoReader) for file, coco in s.reader.files.items()}
    for file, coco in files.items():
        absent = [entry for entry in coco.photos if name_key(PureWindowsPath(entry).name) not in names]
        if absent:
            total = len(coco.photos)
            text = f"{len(absent)} of {total} photos that {file.name} lists are not there: {listed(absent, 3)}"
            findings.add("annotations-no-photo", text, [file])


def check_shapes(context: Context, findings: Findings) -> None:
    """Find shapes that are passed over, labels that are no class, and classes without a shape."""
    files = [shapes for _, shapes in context.of(ShapeFacts)]
    if not files:
        return
    passed = PassedOver()
    for shapes in files:
        for reason, count in shapes.passed_over.counts.items():
            passed.add(reason, shapes.passed_over.examples[reason], count)
    if passed.total:
        number = sum(sum(shapes.labels.values()) for shapes in files)
        text = f"{passed.total} of {passed.total + number} shapes are passed over: {passed}"
        findings.add("annotations-passed-over", text, [shapes for shapes in files if shapes.passed_over.total])
    if context.classes is None:
        return
    names = {*context.classes.names}
    unknown = [shapes for shapes in files if {*shapes.labels} - names]
    odd = sorted({label for shapes in unknown for label in shapes.labels} - names)
    text = f"files have labels that are no class: {listed(odd, 8)}"
    findings.add_share("annotations-broken", unknown, len(files), text)
