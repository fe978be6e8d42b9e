"""Masks that are drawn from shapes: COCO's annotations and labelme's files, as the data set's readers take them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from densevit.data import ClassTable
from densevit.data.coco import CocoMasks, read_coco
from densevit.data.polygons import PassedOver
from densevit.data.shapes import coco_entries
from densevit.doctor.context import Context
from densevit.doctor.facts import PhotoFacts, SampleFacts, ShapeFacts
from densevit.doctor.layout import Split
from densevit.doctor.rules import Findings, listed
from densevit.errors import DataError


def read_annotations(splits: Sequence[Split], classes: ClassTable | None, findings: Findings) -> dict[str, CocoMasks]:
    """The COCO annotations of each split that has them, whose photos become its masks; others become findings."""
    found: dict[str, CocoMasks] = {}
    for split in splits:
        if split.coco is None:
            continue
        try:
            coco = read_coco(split.coco, classes, split.config.background)
            entries = coco_entries([*split.photos.values()], coco)
        except DataError as error:
            findings.add("annotations-broken", str(error), [split.coco], split=split.name)
            continue
        split.targets["masks"] = {stem: path for stem, path in split.photos.items() if path in entries}
        split.orphans["masks"] = []
        missing = [path for path in split.photos.values() if path not in entries]
        if len(missing) == len(split.photos):
            text = f"{split.coco.name} lists none of the photos; its file_name must be theirs"
            findings.add("annotations-broken", text, [split.coco], split=split.name)
            continue
        text = f"photos are not listed in {split.coco.name} and left out"
        findings.add_share("annotations-passed-over", missing, len(split.photos), text, split=split.name)
        for warning in coco.warnings:
            findings.add("annotations-passed-over", warning, [split.coco], split=split.name)
        found[split.name] = coco
    return found


def with_annotations(
    samples: list[SampleFacts], splits: Sequence[Split], annotations: Mapping[str, CocoMasks]
) -> list[SampleFacts]:
    """Add the shapes of COCO's annotations to the samples that they describe."""
    entries = {
        split.name: coco_entries([*split.photos.values()], annotations[split.name])
        for split in splits
        if split.name in annotations
    }
    photos = {split.name: split.photos for split in splits}
    completed = []
    for sample in samples:
        path = photos[sample.split].get(sample.stem)
        entry = entries.get(sample.split, {}).get(path) if path is not None else None
        if path is not None and entry is not None:
            sample = replace(sample, masks=_facts(path, annotations[sample.split], entry, sample))
        completed.append(sample)
    return completed


def _facts(path: Path, coco: CocoMasks, entry: str, sample: SampleFacts) -> ShapeFacts:
    photo = coco.photos[entry]
    size = sample.photo.upright_size if isinstance(sample.photo, PhotoFacts) else (0, 0)
    labels = Counter(coco.classes.names[shape.index] for shape in photo.shapes if not shape.crowd)
    return ShapeFacts(str(path), photo.size or size, labels, PassedOver())


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
        drawn = sum(sum(shapes.labels.values()) for shapes in files)
        text = f"{passed.total} of {passed.total + drawn} shapes are passed over: {passed}"
        findings.add("annotations-passed-over", text, [shapes for shapes in files if shapes.passed_over.total])
    if context.classes is None:
        return
    names = {*context.classes.names}
    unknown = [shapes for shapes in files if {*shapes.labels} - names]
    odd = sorted({label for shapes in unknown for label in shapes.labels} - names)
    text = f"files have labels that are no class: {listed(odd, 8)}"
    findings.add_share("annotations-broken", unknown, len(files), text)
    seen = {label for shapes in files for label in shapes.labels} | {s.config.background for s in context.splits}
    unseen = [name for name in context.classes.names if name not in seen]
    if unseen and not context.sampled and all(split.coco is not None or split.labelme for split in context.splits):
        text = f"{len(unseen)} of {len(names)} classes have no shape: {listed(unseen, 8)}"
        hint = "If one is the class of all that no shape covers, set train.background to its name."
        findings.add("class-unseen", text, hint=hint)
