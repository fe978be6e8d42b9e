"""Masks drawn from annotated shapes: polygons and run lengths of COCO, and the files of labelme.

A pixel belongs to a polygon if its centre is inside by the even-odd rule; the first pixel has its centre at (0.5, 0.5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.io import MAX_PIXELS, decode_mask, read_json
from densevit.types import Size

_CHUNK = 1 << 20
"""Crossings of edges and rows that are computed at once."""


def fill_polygon(canvas: NDArray[np.int32], points: NDArray[np.float64], value: int) -> None:
    """Set the pixels of ``canvas`` (H, W) whose centre is in the polygon ``points`` (N, 2), x and y in pixels."""
    height, width = canvas.shape
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    left, right = np.ceil(np.array([points[:, 0].min(), points[:, 0].max()]) - 0.5).clip(0, width).astype(int).tolist()
    top, bottom = int(first.min()), int(last.max())
    if top >= bottom or left >= right:
        return
    # Each edge crosses some rows; in a row, pixels right of an odd number of crossings are inside.
    crossings = np.zeros((bottom - top, right - left + 1), np.int64)
    counts = last - first  # rows that each edge crosses
    per_chunk = max(_CHUNK // (bottom - top), 1)
    for start in range(0, len(points), per_chunk):
        part = slice(start, start + per_chunk)
        edges = np.repeat(np.arange(len(points))[part], counts[part])
        offsets = np.arange(len(edges)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        rows = first[edges] + offsets
        x = x0[edges] + (rows + 0.5 - y0[edges]) * (x1[edges] - x0[edges]) / (y1[edges] - y0[edges])
        columns = np.ceil(x - 0.5).clip(left, right).astype(np.int64)
        np.add.at(crossings, (rows - top, columns - left), 1)
    inside = crossings.cumsum(axis=1)[:, :-1] % 2 == 1
    canvas[top:bottom, left:right][inside] = value


def decode_rle(counts: Sequence[int] | str | bytes, size: Size, name: str) -> NDArray[np.bool_]:
    """Run lengths of COCO -> (H, W): alternate runs of 0 and 1, 0 first, down the columns from left to right.

    Text is compressed: five bits per character from ASCII 48 on, low ones first, and the sixth bit says that more
    follow. Numbers are signed; from the third on they are differences to the run before the last.

    Raises:
        DataError: if they do not fill the size.
    """
    runs = _decompress(counts, name) if isinstance(counts, str | bytes) else counts
    try:
        lengths = np.array(runs, np.int64)
        area = size[0] * size[1]
        # Each is checked first: a sum of huge runs could wrap around to the right number.
        fits = lengths.ndim == 1 and bool(((lengths >= 0) & (lengths <= area)).all()) and int(lengths.sum()) == area
    except (ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise DataError(
            f"{name} has run lengths that do not add up to its size {size[0]} x {size[1]}; COCO's run lengths, as text "
            "or numbers, are accepted; export it again"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(size[1], size[0]).T


def _decompress(text: str | bytes, name: str) -> list[int]:
    codes = text.encode("latin-1", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError(f"{name} has run lengths with the character {chr(code)!r}; COCO's text is accepted")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    return runs


@dataclass(frozen=True)
class CocoMasks:
    """The annotations of a COCO file by image.

    Attributes:
        path: of the file.
        classes: those of the caller; otherwise ``background``, if there is one, and the categories by their ids.
        photos: file name -> size and annotations of the image.
        indices: category id -> class.
        background: class of pixels that no annotation covers, or the ignore value.
    """

    path: Path
    classes: ClassTable
    photos: Mapping[str, tuple[Size, list[dict[str, Any]]]]
    indices: Mapping[int, int]
    background: int

    def labels(self, photo: str) -> NDArray[np.int32]:
        """The mask (H, W) of an image: small instances cover large ones; a crowd that none covers is ignored.

        Raises:
            DataError: if an annotation is malformed.
        """
        size, annotations = self.photos[photo]
        canvas = np.full(size, self.background, np.int32)
        drawn = [self._shape(annotation, size) for annotation in annotations]
        for crowd, _, value, parts in sorted(drawn, key=lambda shape: (not shape[0], -shape[1])):
            for part in parts:
                number = self.classes.ignore_index if crowd else value
                if part.dtype == np.bool_:
                    canvas[part] = number
                else:
                    fill_polygon(canvas, part, number)
        return canvas

    def _shape(self, annotation: dict[str, Any], size: Size) -> tuple[bool, float, int, list[NDArray[Any]]]:
        """(crowd, area, class, polygons or masks) of an annotation."""
        name = f"{self.path}: annotation {annotation.get('id')}"
        category, segmentation = annotation.get("category_id"), annotation.get("segmentation")
        if not isinstance(category, int) or category not in self.indices:
            raise DataError(f"{name} has the category {category!r}, which is not in the list of categories; fix it")
        crowd = bool(annotation.get("iscrowd"))
        if isinstance(segmentation, Mapping) and isinstance(segmentation.get("counts"), str | list):
            if segmentation.get("size") != list(size):
                raise DataError(
                    f"{name} is {segmentation.get('size')} but its photo {list(size)}; both are (height, width) and "
                    "must agree; export it again"
                )
            mask = decode_rle(segmentation["counts"], size, name)
            return crowd, float(mask.sum()), self.indices[category], [mask]
        if not isinstance(segmentation, list) or not segmentation:
            raise DataError(f"{name} has no segmentation (only a box?); polygons or run lengths are accepted; add them")
        # Polygons of one or two points occur; they have no area and do no harm.
        polygons = [_points(part, name, at_least=1, flat=True) for part in segmentation]
        return crowd, sum(map(_area, polygons)), self.indices[category], list(polygons)


def read_coco(path: Path, names: ClassTable | None, background: str | None) -> CocoMasks:
    """Read an ``annotations.json`` of COCO.

    Args:
        path: the file.
        names: the classes, to which categories are matched by name; None takes the categories in the order of ids.
        background: name of the class of pixels that no annotation covers; None ignores them.

    Raises:
        DataError: if it is not such a file, or has categories that ``names`` lacks.
    """
    data = read_json(path, "COCO's annotations (images, annotations, categories)")
    try:
        categories = {int(row["id"]): str(row["name"]) for row in data["categories"]}
        sizes = {row["id"]: (str(row["file_name"]), (int(row["height"]), int(row["width"]))) for row in data["images"]}
        photos: dict[str, tuple[Size, list[dict[str, Any]]]] = {name: (size, []) for name, size in sizes.values()}
        for annotation in data["annotations"]:
            photos[sizes[annotation["image_id"]][0]][1].append(dict(annotation))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is not COCO's annotations ({type(error).__name__}: {error}); images with file_name, height and "
            "width, categories with id and name, and annotations with image_id are accepted; export it again"
        ) from None
    for name, (size, _) in photos.items():
        if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
            raise DataError(
                f"{path} gives {name} the size {size[0]} x {size[1]}; 1 to {MAX_PIXELS:,} pixels are accepted"
            )
    ordered = tuple(dict.fromkeys(categories[key] for key in sorted(categories)))
    if not ordered:
        raise DataError(f"{path} has no categories; COCO's annotations with one or more are accepted; export it again")
    if names is None:
        names = ClassTable(((background,) if background and background not in ordered else ()) + ordered)
    if missing := [name for name in ordered if name not in names.names]:
        raise DataError(
            f"{path} has categories that the classes lack: {', '.join(missing[:8])}; add them to the classes, where "
            "drop and merge can remove them"
        )
    indices = {key: names.names.index(name) for key, name in categories.items()}
    return CocoMasks(path, names, photos, indices, background_index(names, background))


def background_index(classes: ClassTable, background: str | None) -> int:
    """The class of pixels outside all shapes; the ignore value if ``background`` is None.

    Raises:
        DataError: if there is no such class.
    """
    if background is None:
        return classes.ignore_index
    if background not in classes.names:
        raise DataError(
            f"background is {background!r} but the classes are {', '.join(classes.names[:8])}; one of them is "
            "accepted; add it to the classes"
        )
    return classes.names.index(background)


def read_labelme(path: Path, classes: ClassTable, background: int) -> NDArray[np.int32]:
    """The mask (H, W) of a labelme file; later shapes cover earlier ones.

    Args:
        path: the file; polygons, rectangles, circles and masks are drawn.
        classes: their names are the labels of the shapes.
        background: class of pixels outside all shapes.

    Raises:
        DataError: if it is not such a file, or has a label that is no class or a shape without an area.
    """
    data = read_json(path, "a file of labelme (shapes, imageHeight, imageWidth)")
    try:
        size = (int(data["imageHeight"]), int(data["imageWidth"]))
        shapes = [
            (str(s["label"]), s.get("shape_type") or "polygon", s["points"], s.get("mask")) for s in data["shapes"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is not a file of labelme ({type(error).__name__}: {error}); shapes with label and points, "
            "imageHeight and imageWidth are accepted; save it again"
        ) from None
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS:
        raise DataError(f"{path} gives the size {size[0]} x {size[1]}; 1 to {MAX_PIXELS:,} pixels are accepted; fix it")
    canvas = np.full(size, background, np.int32)
    for label, kind, raw, mask in shapes:
        if label not in classes.names:
            raise DataError(
                f"{path} has a shape {label!r} but the classes are {', '.join(classes.names[:8])}; add it to the "
                "classes, where drop and merge can remove it"
            )
        value, points = classes.names.index(label), _points(raw, str(path), at_least=3 if kind == "polygon" else 2)
        if kind == "polygon":
            fill_polygon(canvas, points, value)
        elif kind == "rectangle":
            (xa, ya), (xb, yb) = points[:2]
            fill_polygon(canvas, np.array([(xa, ya), (xb, ya), (xb, yb), (xa, yb)]), value)
        elif kind == "circle":
            _fill_circle(canvas, points, value)
        elif kind == "mask":
            _paste(canvas, points, decode_mask(mask, str(path)), value)
        else:
            raise DataError(
                f"{path} has a shape of kind {kind!r}; polygon, rectangle, circle and mask have an area and are "
                "accepted; redraw it as one of them"
            )
    return canvas


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


def _points(raw: Any, name: str, *, at_least: int, flat: bool = False) -> NDArray[np.float64]:
    """(N, 2) from pairs of x and y, or from a ``flat`` list x, y, x, y, of which an odd number is refused."""
    try:
        points = np.array(raw, np.float64)
    except (ValueError, TypeError):
        raise DataError(f"{name} has points that are not pairs of numbers; give x and y in pixels") from None
    if flat and points.ndim == 1 and len(points) % 2 == 0:
        points = points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < at_least or not (np.abs(points) < 1e7).all():
        raise DataError(
            f"{name} has a shape with points of {points.shape}; {at_least} or more finite pairs (x, y) are accepted; "
            "fix it"
        )
    return points


def _area(points: NDArray[np.float64]) -> float:
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
