"""Masks drawn from COCO's annotations: polygons and run lengths by image, under the rule of ``polygons``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.class_list import default_ignore, is_text
from densevit.data.coco_rows import file_name_of, id_order, key_of, rows_of, unused_roots
from densevit.data.polygons import (
    NoShape,
    PassedOver,
    area_of,
    background_index,
    claimed_size,
    fill_polygon,
    fill_runs,
    points_of,
    run_lengths,
    whole,
)
from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.io import read_json
from densevit.limits import limits, too_much
from densevit.types import Size

_KIND = "COCO's annotations (images, annotations, categories)"


@dataclass
class CocoShape:
    """An annotation that is drawn.

    Attributes:
        index: the class.
        crowd: it covers several objects, and is ignored where none of them is drawn.
        area: in pixels; small shapes are drawn over large ones.
        parts: polygons (N, 2), and run lengths (N,).
        size: (H, W) that run lengths fill; None without them.
    """

    index: int
    crowd: bool
    area: float
    parts: list[NDArray[Any]]
    size: Size | None = None


@dataclass
class CocoPhoto:
    """An image of the file: its claimed size, None if the file does not say, and its shapes."""

    size: Size | None
    shapes: list[CocoShape]


@dataclass(frozen=True)
class CocoMasks:
    """The annotations of a COCO file by image.

    Attributes:
        path: of the file.
        classes: those of the caller; otherwise ``background``, if there is one, and the categories by their ids.
        photos: by file name.
        background: class of pixels that no annotation covers, or the ignore value.
        total: number of annotations.
        passed_over: those that are not drawn.
        notes: what else a user should know, in sentences.
    """

    path: Path
    classes: ClassTable
    photos: Mapping[str, CocoPhoto]
    background: int
    total: int
    passed_over: PassedOver
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """What a user should know: what is passed over, and ``notes``."""
        passed = f"{self.passed_over.total} of {self.total} annotations are passed over: {self.passed_over}"
        return [passed, *self.notes] if self.passed_over.total else [*self.notes]

    def labels(self, photo: str, size: Size) -> NDArray[np.int32]:
        """The mask (H, W) of an image: small instances cover large ones; a crowd that none covers is ignored."""
        canvas = np.full(size, self.background, np.int32)
        for shape in sorted(self.photos[photo].shapes, key=lambda shape: (not shape.crowd, -shape.area)):
            number = self.classes.ignore_index if shape.crowd else shape.index
            for part in shape.parts:
                (fill_runs if part.ndim == 1 else fill_polygon)(canvas, part, number)
        return canvas


def read_coco(path: Path, names: ClassTable | None, background: str | None) -> CocoMasks:
    """Read an ``annotations.json`` of COCO.

    An annotation without an outline is passed over, and the inside of its box is ignored as a crowd is. Where all
    annotations are crowds, as programs with a brush mark them, they are taken as objects.

    Args:
        path: the file.
        names: the classes, to which categories are matched by name; None takes the categories in the order of ids.
        background: name of the class of pixels that no annotation covers; None ignores them.

    Raises:
        DataError: if it is not such a file, has categories that ``names`` lacks, or nothing of it can be drawn.
    """
    data = read_json(path, _KIND)
    categories, names = _classes(data, path, names, background)
    passed = PassedOver()
    photos, by_id = _photos(data, path)
    index = {name: number for number, name in enumerate(names.names)}
    indices = {key: index[name] for key, name in categories.items()}
    crowds: list[CocoShape] = []
    objects: set[int] = set()
    rows = rows_of(data, "annotations", path)
    for number, row in enumerate(rows):
        photo = None
        try:
            photo = by_id.get(key_of(row.get("image_id"))) if isinstance(row, Mapping) else None
            shape = _shape(row, photo, indices)
        except NoShape as reason:
            passed.add(str(reason), f"annotation {_name(row, number)}")
            if photo is not None and (box := _box(row)) is not None:
                photo.shapes.append(CocoShape(0, True, area_of(box), [box]))
            continue
        assert photo is not None
        photo.size = photo.size or shape.size
        photo.shapes.append(shape)
        crowds.extend([shape] if shape.crowd else [])
        objects |= set() if shape.crowd else {shape.index}
    if rows and not crowds and not objects:
        raise DataError(
            f"{path} has {len(rows)} annotations, of which none can be drawn: {passed}; polygons and run lengths of "
            "listed images and categories are accepted; export it again"
        )
    notes = _judge_crowds(crowds, objects, names)
    return CocoMasks(path, names, photos, background_index(names, background), len(rows), passed, notes)


def read_coco_classes(path: Path, names: ClassTable | None, background: str | None) -> ClassTable:
    """The classes of a file, with the arguments and errors of ``read_coco``."""
    return _classes(read_json(path, _KIND), path, names, background)[1]


def _judge_crowds(crowds: list[CocoShape], objects: set[int], classes: ClassTable) -> tuple[str, ...]:
    """Take crowds as objects where there is nothing else; otherwise name the classes that only have crowds."""
    if crowds and not objects:
        for shape in crowds:
            shape.crowd = False
        return (f"all {len(crowds)} annotations are crowds (iscrowd), so they are taken as objects",)
    if only := sorted({shape.index for shape in crowds} - objects):
        shown = ", ".join(classes.names[index] for index in only[:8])
        return (f"{shown} only has crowds (iscrowd), which are ignored; set iscrowd: 0 if they are objects",)
    return ()


def _classes(
    data: Any, path: Path, names: ClassTable | None, background: str | None
) -> tuple[dict[str, str], ClassTable]:
    """Category id -> its name, and the classes."""
    categories: dict[str, str] = {}
    for row in rows_of(data, "categories", path):
        key = key_of(row.get("id")) if isinstance(row, Mapping) else None
        name = row.get("name") if isinstance(row, Mapping) else None
        if key is None or not isinstance(name, str | int | float) or not is_text(str(name)):
            raise DataError(f"{path} has the category {row!r:.80}; an id and a name are accepted; export it again")
        if categories.setdefault(key, str(name)) != str(name):
            raise DataError(
                f"{path} has the category {key} twice, {categories[key]!r} and {str(name)!r}; each id may occur once; "
                "export it again"
            )
    if len(categories) > limits().classes:
        raise DataError(too_much(f"{path} has {len(categories)} categories", "classes"))
    ordered = tuple(dict.fromkeys(categories[key] for key in sorted(categories, key=id_order)))
    if not ordered:
        raise DataError(f"{path} has no categories; COCO's annotations with one or more are accepted; export it again")
    if names is None:
        listed = ((background,) if background and background not in ordered else ()) + ordered
        names = ClassTable(listed, default_ignore(len(listed)))
    known = {*names.names}
    if unknown := [name for name in ordered if name not in known]:
        roots = {*unused_roots(data)} - known  # that of Roboflow's tree needs no class
        categories = {key: name for key, name in categories.items() if name not in roots}
        unknown = [name for name in unknown if name not in roots]
    if unknown:
        raise DataError(
            f"{path} has categories that the classes lack: {', '.join(unknown[:8])}; add them to the classes, where "
            "drop and merge can remove them"
        )
    return categories, names


def _photos(data: Any, path: Path) -> tuple[dict[str, CocoPhoto], dict[str | None, CocoPhoto]]:
    """The images by file name and by id."""
    photos: dict[str, CocoPhoto] = {}
    by_id: dict[str | None, CocoPhoto] = {}
    for row in rows_of(data, "images", path):
        if (name := file_name_of(row)) is None or (key := key_of(row.get("id"))) is None:
            raise DataError(f"{path} has the image {row!r:.80}; an id and a file_name are accepted; export it again")
        size = claimed_size(row, "height", "width", f"{path}: image {name}")
        photo = photos.setdefault(name, CocoPhoto(size, []))
        if by_id.setdefault(key, photo) is not photo:
            raise DataError(
                f"{path} has the image id {key} twice, with different photos, one of them {name}; each id may occur "
                "once; export it again"
            )
    return photos, by_id


def _shape(row: Any, photo: CocoPhoto | None, indices: Mapping[str, int]) -> CocoShape:
    """The shape of an annotation; raises NoShape."""
    if not isinstance(row, Mapping):
        raise NoShape("not an annotation")
    if photo is None:
        raise NoShape("of an image that is not listed")
    index = indices.get(key_of(row.get("category_id")) or "")
    if index is None:
        raise NoShape("of a category that is not listed")
    pieces, sizes = row.get("segmentation"), set()
    if isinstance(pieces, Mapping) or _is_polygon(pieces):
        pieces = [pieces]
    if not isinstance(pieces, list) or not pieces:
        raise NoShape("without an outline, only a box" if row.get("bbox") else "without an outline")
    parts: list[NDArray[Any]] = []
    area = 0.0
    for piece in pieces:
        if isinstance(piece, Mapping):
            size = _size_of(piece, photo.size)
            sizes.add(size)
            parts.append(run_lengths(piece.get("counts"), size))
            area += float(parts[-1][1::2].sum())
        elif len(points := points_of(piece)) >= 3:  # points and lines have no area
            parts.append(points)
            area += area_of(points)
    if not area:
        raise NoShape("empty, or only points or a line, without an area")
    return CocoShape(index, row.get("iscrowd") in (1, "1"), area, parts, sizes.pop() if sizes else None)


def _size_of(runs: Mapping[str, Any], expected: Size | None) -> Size:
    """The size of run lengths, which must be that of their image; raises NoShape."""
    try:
        height, width = (whole(side) for side in runs.get("size") or ())
    except (ValueError, TypeError):
        raise NoShape("with run lengths without a size (height, width)") from None
    if min(height, width) < 1 or height * width > limits().pixels or (expected or (height, width)) != (height, width):
        raise NoShape("with run lengths of another size than the image")
    return height, width


def _is_polygon(pieces: Any) -> bool:
    """Whether this is one polygon, x, y, x, y or pairs, and not a list of them."""
    if not isinstance(pieces, list) or not pieces:
        return False
    numbers = all(isinstance(part, int | float) for part in pieces)
    return numbers or (len(pieces) > 2 and all(isinstance(part, list) and len(part) == 2 for part in pieces))


def _box(row: Any) -> NDArray[np.float64] | None:
    """The box of an annotation as a polygon; None if it has none."""
    try:
        (left, top), (width, height) = points_of(row.get("bbox"))
    except (NoShape, ValueError, AttributeError):
        return None
    right, bottom = left + width, top + height
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return box if width > 0 and height > 0 else None


def _name(row: Any, number: int) -> str:
    """The id of an annotation, or its place in the list."""
    return (key_of(row.get("id")) if isinstance(row, Mapping) else None) or f"number {number}"
