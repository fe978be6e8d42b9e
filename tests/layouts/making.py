"""What makers of miniature data sets share: photos, their classes and depth, and the table of layouts."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (24, 32)
NAMES = ("cell", "nucleus")
COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)


@dataclass(frozen=True)
class Layout:
    """A maker, and what its layout is recognised as.

    Attributes:
        make: writes the files below a folder.
        keys: of the config, apart from the root.
        said: texts that occur in the remarks.
        classes: class of each number of ``truth``; None without masks.
        photos: number of photos with a target in each split, or in all with the split "".
    """

    make: Callable[[Path], None]
    keys: dict[str, Any]
    said: tuple[str, ...] = ()
    classes: tuple[int, int, int] | None = (0, 1, 2)
    photos: dict[str, int] = field(default_factory=lambda: {"": 6})


LAYOUTS: dict[str, Layout] = {}


def layout(said: tuple[str, ...] = (), photos: dict[str, int] | None = None, **keys: Any) -> Callable[..., Any]:
    """Register a maker by its name."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        classes = keys.pop("truth", (0, 1, 2))
        name = make.__name__
        LAYOUTS[name] = Layout(make, keys, said, classes, photos or {"": 6})
        return make

    return register


def photo(i: int) -> NDArray[np.uint8]:
    return np.random.default_rng(i).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def boxes(i: int) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of the rectangles of class 1 and 2."""
    return [(2 + i, 3, 12 + i, 12), (14, 13, 24 + i, 22)]


def truth(i: int) -> NDArray[np.uint8]:
    mask = np.zeros(SIZE, np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes(i), 1):
        mask[top:bottom, left:right] = number
    return mask


def pairs(root: Path, image: str, mask: str) -> None:
    """Photos and masks below a folder, by names with ``{i}`` and ``{split}``."""
    for i in range(6):
        save(root / image.format(i=i, split=split_of(i)), photo(i))
        save(root / mask.format(i=i, split=split_of(i)), truth(i))


def depth_mm(i: int) -> NDArray[np.uint16]:
    return np.random.default_rng(i).integers(500, 4000, SIZE).astype(np.uint16)


def save(path: Path, pixels: NDArray[Any], **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def save_palette(path: Path, mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask, "P")
    image.putpalette(colours.tobytes())
    image.save(path)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def split_of(i: int) -> str:
    return "train" if i < 4 else "val"


def corners(box: tuple[int, int, int, int]) -> list[tuple[int, int]]:
    left, top, right, bottom = box
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def coco(file_names: dict[int, str], *, root: bool = False, outlines: bool = True) -> str:
    """COCO's annotations of photos, given by number."""
    categories = [{"id": j, "name": name, "supercategory": "cells" if root else ""} for j, name in enumerate(NAMES, 1)]
    if root:
        categories.insert(0, {"id": 0, "name": "cells", "supercategory": "none"})
    images, rows = [], []
    for i, name in file_names.items():
        images.append({"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
        for j, box in enumerate(boxes(i), 1):
            outline = [[float(v) for point in corners(box) for v in point]] if outlines else []
            size = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            rows.append({"id": len(rows), "image_id": i, "category_id": j, "segmentation": outline, "bbox": size})
    return json.dumps({"images": images, "annotations": rows, "categories": categories})


def labelme(i: int, name: str) -> str:
    shapes = [
        {"label": label, "points": corners(box), "shape_type": "polygon"}
        for label, box in zip(NAMES, boxes(i), strict=True)
    ]
    return json.dumps({"shapes": shapes, "imagePath": name, "imageHeight": SIZE[0], "imageWidth": SIZE[1]})


INDEX: dict[str, Any] = {"classes": ("class 0", "class 1", "class 2")}
SHAPES: dict[str, Any] = {"classes": ("background", *NAMES), "background": "background"}
TRAIN_VAL = {"train": 4, "val": 2}


def pack(folder: Path) -> Path:
    """A zip archive of a folder, next to it."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return archive
