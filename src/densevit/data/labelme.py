"""Masks drawn from labelme's files, under the rule of ``polygons``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.polygons import NoShape, PassedOver, area_of, claimed_size, fill_polygon, points_of, warn_once
from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.io import decode_mask, read_json
from densevit.types import Size

_POLYGONS = frozenset({"polygon", "rotation"})
"""Kinds of shapes whose points are corners; "rotation" is a turned rectangle."""


@dataclass(frozen=True)
class LabelmeShape:
    """A shape that is drawn: ``points`` (N, 2), and the base64 of its ``mask`` if that is its kind."""

    label: str
    kind: str
    points: NDArray[np.float64]
    mask: Any = None


@dataclass(frozen=True)
class LabelmeFile:
    """A file of labelme.

    Attributes:
        size: claimed (H, W) of the image; None if the file does not say.
        shapes: those that are drawn, in their order.
        passed_over: the others.
    """

    size: Size | None
    shapes: list[LabelmeShape]
    passed_over: PassedOver


def parse_labelme(path: Path) -> LabelmeFile:
    """Read a file without drawing it.

    Raises:
        DataError: if it is not such a file.
    """
    data = read_json(path, "a file of labelme (shapes, imageHeight, imageWidth)")
    rows = data.get("shapes") if isinstance(data, Mapping) else None
    if not isinstance(rows, list):
        held = "it has no list shapes" if isinstance(data, Mapping) else f"it holds a {type(data).__name__}"
        raise DataError(
            f"{path} is not a file of labelme ({held}); shapes with label and points, imageHeight and imageWidth are "
            "accepted; save it again"
        )
    size = claimed_size(data, "imageHeight", "imageWidth", str(path))
    shapes: list[LabelmeShape] = []
    passed = PassedOver()
    for number, row in enumerate(rows):
        try:
            shapes.append(_shape(row))
        except NoShape as reason:
            passed.add(str(reason), f"shape {number} of {path.name}")
    return LabelmeFile(size, shapes, passed)


def read_labelme(path: Path, classes: ClassTable, background: int, size: Size | None = None) -> NDArray[np.int32]:
    """The mask (H, W) of a labelme file; later shapes cover earlier ones.

    Args:
        path: the file; polygons, rectangles, circles and masks are drawn.
        classes: their names are the labels of the shapes.
        background: class of pixels outside all shapes.
        size: (H, W) of the photo, where the file does not say.

    Raises:
        DataError: if it is not such a file, or has a label that is no class.
    """
    file = parse_labelme(path)
    size = file.size or size
    if size is None:
        raise DataError(f"{path} has no imageHeight and imageWidth; both are needed; save it again")
    for reason in file.passed_over.counts:
        warn_once(
            f"{path}: {file.passed_over.total} of {file.passed_over.total + len(file.shapes)} shapes are passed over: "
            f"{file.passed_over}; densevit doctor counts those of all files",
            *(str(path.parent), reason),
        )
    canvas = np.full(size, background, np.int32)
    for shape in file.shapes:
        if shape.label not in classes.names:
            raise DataError(unknown_label(path, shape.label, classes))
        _draw(canvas, shape, classes.names.index(shape.label), path)
    return canvas


def unknown_label(path: Path, label: str, classes: ClassTable) -> str:
    """The message for a shape whose label is no class."""
    return (
        f"{path} has a shape {label!r} but the classes are {', '.join(classes.names[:8])}; add it to the "
        "classes, where drop and merge can remove it"
    )


def _shape(row: Any) -> LabelmeShape:
    """One shape; raises NoShape."""
    if not isinstance(row, Mapping) or not isinstance(row.get("label"), str | int | float):
        raise NoShape("without a label")
    kind = row.get("shape_type") or "polygon"
    if not isinstance(kind, str):
        raise NoShape("without a kind")
    if kind not in {*_POLYGONS, "rectangle", "circle", "mask"}:
        raise NoShape(f"of kind {kind!r:.40}, which has no area")
    points = points_of(row.get("points"))
    if len(points) < {"polygon": 3, "rotation": 3, "mask": 1}.get(kind, 2) or (
        kind in _POLYGONS and not area_of(points)
    ):
        raise NoShape("with too few points for an area")
    return LabelmeShape(str(row["label"]), kind, points, row.get("mask"))


def _draw(canvas: NDArray[np.int32], shape: LabelmeShape, value: int, path: Path) -> None:
    points = shape.points
    if shape.kind in _POLYGONS:
        fill_polygon(canvas, points, value)
    elif shape.kind == "rectangle":  # two opposite corners, or all four
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        fill_polygon(canvas, np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), value)
    elif shape.kind == "circle":
        _fill_circle(canvas, points, value)
    else:
        _paste(canvas, points, decode_mask(shape.mask, str(path)), value)


def _fill_circle(canvas: NDArray[np.int32], points: NDArray[np.float64], value: int) -> None:
    """Set the pixels of a circle, given by its centre and a point on it."""
    (cx, cy), (x, y) = points[:2]
    rows, columns = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    canvas[(rows + 0.5 - cy) ** 2 + (columns + 0.5 - cx) ** 2 <= (x - cx) ** 2 + (y - cy) ** 2] = value


def _paste(canvas: NDArray[np.int32], points: NDArray[np.float64], mask: NDArray[np.bool_], value: int) -> None:
    """Set the pixels of a mask whose first one is at ``points[0]``; what is outside the canvas is cut off."""
    left, top = points[0].astype(int).tolist()
    covered = canvas[max(top, 0) : max(top + mask.shape[0], 0), max(left, 0) : max(left + mask.shape[1], 0)]
    mask = mask[max(-top, 0) :, max(-left, 0) :][: covered.shape[0], : covered.shape[1]]
    covered[mask] = value
