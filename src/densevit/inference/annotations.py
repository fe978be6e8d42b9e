"""Predictions in the form in which people correct them: annotations of COCO, labelme and CVAT.

What is written is exactly the prediction: read as the masks of a data set it gives the same labels. Every connected
region of a class is one annotation; the background, if there is one, gets none.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from densevit.config import nearest
from densevit.data.class_names import voc_colour
from densevit.data.outlines import find_regions
from densevit.data.sample import Rgb
from densevit.errors import ConfigError
from densevit.io import atomic_path, claim, write_bytes_atomic, write_json, write_png
from densevit.tasks import Segmentation, Task
from densevit_runtime.colour import Picture

AnnotationKind = Literal["coco", "labelme", "cvat"]
ANNOTATION_KINDS: tuple[AnnotationKind, ...] = get_args(AnnotationKind)

BLACK = (0, 0, 0)
"""What CVAT takes for background."""


@dataclass(frozen=True)
class LabelSet:
    """The classes of annotations.

    Attributes:
        names: by label.
        colours: by label, all different; the background is black, and nothing else is.
        background: the label that gets no annotations; None if there is none.
    """

    names: tuple[str, ...]
    colours: tuple[Rgb, ...]
    background: int | None

    @classmethod
    def of(cls, task: Task) -> Self:
        """The classes of a head; its background is the one that it learnt, or the class of that name.

        Raises:
            ConfigError: if the task has no classes.
        """
        table = task.class_table
        if table is None:
            raise ConfigError(f"annotations are of classes, but the head does {task.kind}; name a segmentation head")
        learnt = task.background if isinstance(task, Segmentation) else None
        named = [name for name in table.names if name == learnt or name.strip("_").lower() == "background"]
        background = table.names.index(learnt or named[0]) if named else None
        return cls(table.names, _different(table.palette, background), background)

    @property
    def left_out(self) -> tuple[int, ...]:
        """Labels without annotations."""
        return () if self.background is None else (self.background,)


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and its prediction.

    Attributes:
        path: of the photo.
        name: of the photo below the folder of all photos, with slashes and suffix.
        stem: start of the names of its files, also with slashes.
        number: from 1, its id in COCO's file.
        read: gives the labels (H, W).
    """

    path: Path
    name: str
    stem: str
    number: int
    read: Callable[[], NDArray[np.integer[Any]]]


def coco_file(photos: Iterable[LabelledPhoto], classes: LabelSet) -> Iterator[str]:
    """The text of one COCO file for all photos, piece by piece.

    Category ids are labels plus 1, and the background is a category without annotations. A region is one annotation of
    one or more polygons.
    """
    categories = [{"id": label + 1, "name": name, "supercategory": ""} for label, name in enumerate(classes.names)]
    yield f'{{"info": {{"description": "predicted by densevit"}}, "categories": {_text(categories)}, "annotations": ['
    images: list[dict[str, Any]] = []
    number = 0
    for photo in photos:
        labels = photo.read()
        images.append(
            {"id": photo.number, "file_name": photo.name, "height": labels.shape[0], "width": labels.shape[1]}
        )
        for region in find_regions(labels, classes.left_out):
            annotation = {
                "id": number + 1,
                "image_id": photo.number,
                "category_id": region.label + 1,
                "segmentation": [polygon.ravel().tolist() for polygon in region.polygons],
                "area": region.area,
                "bbox": list(region.box),
                "iscrowd": 0,
            }
            yield (",\n" if number else "\n") + _text(annotation)
            number += 1
    yield f'\n], "images": {_text(images)}}}\n'


def labelme_file(labels: NDArray[np.integer[Any]], classes: LabelSet, image_path: str) -> dict[str, Any]:
    """Labelme's file for one photo; the pieces of a region with holes have one group_id."""
    shapes = [
        {
            "label": classes.names[region.label],
            "points": polygon.astype(float).tolist(),
            "group_id": number if len(region.polygons) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for number, region in enumerate(find_regions(labels, classes.left_out), 1)
        for polygon in region.polygons
    ]
    size = {"imageHeight": labels.shape[0], "imageWidth": labels.shape[1]}
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image_path, "imageData": None, **size}


def cvat_mask(labels: NDArray[np.integer[Any]], classes: LabelSet) -> Picture:
    """The colours (H, W, 3) of CVAT's "Segmentation mask 1.1"; what is no class is black."""
    colours = np.zeros((max(len(classes.names), int(labels.max())) + 1, 3), np.uint8)
    colours[: len(classes.names)] = classes.colours
    return np.asarray(colours[labels])


def cvat_labelmap(classes: LabelSet) -> str:
    """The text of CVAT's labelmap.txt."""
    rows = [
        f"{name}:{','.join(map(str, colour))}::" for name, colour in zip(classes.names, classes.colours, strict=True)
    ]
    return "\n".join(["# label:color_rgb:parts:actions", *rows, ""])


def check_kind(kind: str) -> AnnotationKind:
    """Refuse what is no kind of annotations.

    Raises:
        ConfigError: with the nearest accepted name.
    """
    for known in ANNOTATION_KINDS:
        if kind == known:
            return known
    raise ConfigError(f"there are no annotations of kind {kind!r}{nearest(kind, ANNOTATION_KINDS)}")


def annotation_files(kind: AnnotationKind, folder: Path, stems: Sequence[str]) -> list[Path]:
    """The files that ``write_annotations`` writes."""
    if kind == "coco":
        return [folder / "annotations.json"]
    if kind == "labelme":
        return [folder / f"{stem}.json" for stem in stems]
    masks = [folder / "SegmentationClass" / f"{stem}.png" for stem in stems]
    return [folder / "labelmap.txt", folder / "ImageSets" / "Segmentation" / "default.txt", *masks]


def write_annotations(
    kind: AnnotationKind, folder: Path, photos: Sequence[LabelledPhoto], classes: LabelSet, *, overwrite: bool = False
) -> None:
    """Write the annotations of some photos into a folder, one photo in memory at a time.

    Args:
        kind: "coco", one annotations.json; "labelme", a .json for each photo; "cvat", a folder that becomes a
            "Segmentation mask 1.1" when zipped.
        folder: created if it does not exist.
        photos: in the order of the file.
        classes: of the labels.
        overwrite: replace files that densevit did not write, or that were changed since.

    Raises:
        ConfigError: if a class has a name that CVAT cannot hold.
        DataError: if a file cannot be written, or belongs to somebody else.
    """
    files = annotation_files(kind, folder, [photo.stem for photo in photos])
    claim(files, overwrite=overwrite)
    if kind == "coco":
        with atomic_path(files[0]) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(coco_file(photos, classes))
    elif kind == "labelme":
        for photo, path in zip(photos, files, strict=True):
            write_json(path, labelme_file(photo.read(), classes, _relative(photo.path, path.parent)))
    else:
        check_cvat_names(classes)
        for photo, path in zip(photos, files[2:], strict=True):
            write_png(path, cvat_mask(photo.read(), classes))
        write_bytes_atomic(files[0], cvat_labelmap(classes).encode())
        write_bytes_atomic(files[1], "".join(f"{photo.stem}\n" for photo in photos).encode())


def check_cvat_names(classes: LabelSet) -> None:
    """Refuse names that would break a row of labelmap.txt.

    Raises:
        ConfigError: naming the first.
    """
    if odd := [name for name in classes.names if ":" in name or name.splitlines() != [name] or name.startswith("#")]:
        raise ConfigError(
            f"class {odd[0]!r} cannot be written to CVAT's labelmap.txt, whose rows are NAME:R,G,B::; names without a "
            "colon, line break and leading # are accepted; choose coco or labelme"
        )


def photo_names(photos: Sequence[Path]) -> list[tuple[str, str]]:
    """Name and stem of every photo, below the deepest folder that has them all; a stem that repeats gets the suffix."""
    try:
        base = os.path.commonpath([photo.absolute().parent for photo in photos])
        names = [Path(os.path.relpath(photo.absolute(), base)).as_posix() for photo in photos]
    except ValueError:  # no photos, or on several drives
        names = [photo.absolute().as_posix().replace(":", "").lstrip("/") for photo in photos]
    stems = [name.removesuffix(Path(name).suffix) for name in names]
    counts = Counter(stem.lower() for stem in stems)
    stems = [name if counts[stem.lower()] > 1 else stem for name, stem in zip(names, stems, strict=True)]
    return list(zip(names, stems if len(set(stems)) == len(stems) else names, strict=True))  # x.jpg.png is left


def _different(palette: Sequence[Rgb], background: int | None) -> tuple[Rgb, ...]:
    """A colour for each class: its own, unless it is taken or black, else the next free one of Pascal VOC's."""
    spare = (voc_colour(number) for number in range(1, 1 << 24))
    taken: set[Rgb] = {BLACK}
    colours: list[Rgb] = []
    for label, colour in enumerate(palette):
        if label == background:
            colours.append(BLACK)
            continue
        chosen = colour
        while chosen in taken:
            chosen = next(free for free in spare if free not in palette[label + 1 :])  # the later ones keep theirs
        taken.add(chosen)
        colours.append(chosen)
    return tuple(colours)


def _relative(photo: Path, folder: Path) -> str:
    """The path of a photo as seen from a folder, with slashes."""
    try:
        return Path(os.path.relpath(photo.absolute(), folder.absolute())).as_posix()
    except ValueError:  # on another drive
        return photo.absolute().as_posix()


def _text(data: object) -> str:
    return json.dumps(data, ensure_ascii=True, separators=(", ", ": "))
