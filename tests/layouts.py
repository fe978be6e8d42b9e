"""Miniature data sets in the layouts in which people keep them and tools export them.

Each maker writes files below a folder. Photo ``i`` is ``photo(i)``, and its classes are ``truth(i)``: 0 around a
rectangle of class 1 and another of class 2, up to their order in the layout.
"""

import io
import json
import unicodedata
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


@layout(images="images/{name}_image.png", masks="masks/{name}_mask.png", said=("3 classes", "drawn for val"), **INDEX)
def suffixes(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i:03}_image.png", photo(i))
        save(root / f"masks/{i:03}_mask.png", truth(i))
    for junk in ("._001_mask.png", ".DS_Store"):
        write(root / "masks" / junk, "x")
    write(root / "Thumbs.db", "x")
    write(root / "notes.json", "{}")


@layout(images="img_{name}.jpg", masks="mask_{name}.png", **INDEX)
def prefixes_in_one_folder(root: Path) -> None:
    for i in range(6):
        save(root / f"img_{i}.jpg", photo(i))
        save(root / f"mask_{i}.png", truth(i))


@layout(
    images="{name}.bmp",
    masks="{name}.png",
    said=("0, 128, 255", "stray", "stray_values"),
    class_values=(0, 128, 255),
    stray_values="nearest",
    **INDEX,
)
def extensions_in_one_folder(root: Path) -> None:
    grey = np.array([0, 128, 255], np.uint8)
    for i in range(6):
        mask = grey[truth(i)]
        mask[0, 0], mask[13, 14] = 3, 250
        save(root / f"{i:03}.bmp", photo(i))
        save(root / f"{i:03}.png", mask)


@layout(images="{name}.png", masks="{name}_L.png", **INDEX)
def unknown_suffix(root: Path) -> None:
    for i in range(6):
        save(root / f"seq_{i}.png", photo(i))
        save(root / f"seq_{i}_L.png", truth(i))


@layout(images="rgb/{folder}/{name}.jpg", masks="labels/{folder}/{name}_labelIds.png", **INDEX)
def nested_folders(root: Path) -> None:
    for i in range(6):
        town = ("aachen/west", "bonn/east")[i % 2]
        save(root / f"rgb/{town}/{i:03}.jpg", photo(i))
        save(root / f"labels/{town}/{i:03}_labelIds.png", truth(i))
        save(root / f"labels/{town}/{i:03}_instanceIds.png", truth(i) * 7)


@layout(images="{split}/images/{name}.jpg", masks="{split}/masks/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def split_then_kind(root: Path) -> None:
    for i in range(6):
        save(root / split_of(i) / f"images/{i}.jpg", photo(i))
        save(root / split_of(i) / f"masks/{i}.png", truth(i))


@layout(images="img_dir/{split}/{name}.jpg", masks="ann_dir/{split}/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def kind_then_split(root: Path) -> None:
    for i in range(6):
        save(root / "img_dir" / split_of(i) / f"{i}.jpg", photo(i))
        save(root / "ann_dir" / split_of(i) / f"{i}.png", truth(i))


@layout(images="{split}/{name}.png", masks="{split}annot/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def split_joined_with_kind(root: Path) -> None:
    for i in range(6):
        save(root / split_of(i) / f"{i}.png", photo(i))
        save(root / f"{split_of(i)}annot/{i}.png", truth(i))


@layout(
    images="{name}.color.png",
    depth="{name}.depth.png",
    said=("millimetres", "depth_unit_m", "6 .txt"),
    truth=None,
)
def rgbd_frames(root: Path) -> None:
    for i in range(6):
        save(root / f"frames/frame-{i:06}.color.png", photo(i))
        save(root / f"frames/frame-{i:06}.depth.png", depth_mm(i))
        write(root / f"frames/frame-{i:06}.pose.txt", "1 0 0 0")


@layout(
    images="{folder}/rgb/{name}.png",
    depth="{folder}/depth/{name}.png",
    depth_unit_m=0.0002,
    depth_invalid=(65535.0,),
    said=("1/5000 m", "65535"),
    truth=None,
)
def scenes_with_depth(root: Path) -> None:
    for i in range(6):
        depth = depth_mm(i) * 10
        depth[:3] = 65535
        save(root / ("kitchen", "office")[i % 2] / f"rgb/{i:04}.png", photo(i))
        save(root / ("kitchen", "office")[i % 2] / f"depth/{i:04}.png", depth)


@layout(
    images="images/{name}.png",
    masks="labels/{name}.png",
    depth="depth/{name}.png",
    said=("masks labels/{name}.png and depth depth/{name}.png",),
    **INDEX,
)
def masks_and_depth(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i:04}.png", photo(i))
        save(root / f"labels/{i:04}.png", truth(i))
        save(root / f"depth/{i:04}.png", depth_mm(i))


@layout(
    images="photos/{name}.jpg",
    masks="gt/{name}_gt.png",
    classes=("black", "blue", "red"),
    palette=((0, 0, 0), (0, 0, 255), (255, 0, 0)),
    truth=(0, 2, 1),
    said=("3 colours",),
)
def colours(root: Path) -> None:
    for i in range(6):
        save(root / f"photos/{i}.jpg", photo(i))
        save(root / f"gt/{i}_gt.png", COLOURS[truth(i)])


@layout(images="{name}/img.png", masks="{name}/label.png", **INDEX)
def folder_for_each_photo(root: Path) -> None:
    for i in range(6):
        save(root / f"a{i}_json/img.png", photo(i))
        save(root / f"a{i}_json/label.png", truth(i))
        save(root / f"a{i}_json/label_viz.png", photo(i + 50))


def _voc_palette() -> NDArray[np.uint8]:
    bits = np.arange(256)
    channels = [sum((bits >> (3 * b + c) & 1) << (7 - b) for b in range(8)) for c in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def _voc_lists(root: Path, folder: str) -> None:
    for split in ("train", "val"):
        write(root / folder / f"{split}.txt", "\n".join(f"2007_{i}" for i in range(6) if split_of(i) == split))
    write(root / folder / "trainval.txt", "\n".join(f"2007_{i}" for i in range(6)))


@layout(
    images="JPEGImages/{name}.jpg",
    masks="SegmentationClass/{name}.png",
    said=("Pascal VOC", "lists"),
    photos=TRAIN_VAL,
)
def pascal_voc_palette(root: Path) -> None:
    for i in range(6):
        save(root / f"JPEGImages/2007_{i}.jpg", photo(i))
        save_palette(root / f"SegmentationClass/2007_{i}.png", truth(i), _voc_palette())
        save_palette(root / f"SegmentationObject/2007_{i}.png", truth(i), _voc_palette())
    _voc_lists(root, "ImageSets/Segmentation")


@layout(
    images="JPEGImages/{name}.jpg",
    masks="SegmentationClass/{name}.png",
    classes=("background", *NAMES),
    palette=((0, 0, 0), (255, 0, 0), (0, 0, 255)),
    said=("labelmap.txt",),
    photos=TRAIN_VAL,
)
def cvat_masks(root: Path) -> None:
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cell:255,0,0::", "nucleus:0,0,255::"]
    write(root / "labelmap.txt", "\n".join(lines))
    for i in range(6):
        save(root / f"JPEGImages/2007_{i}.jpg", photo(i))
        save(root / f"SegmentationClass/2007_{i}.png", COLOURS[truth(i)])
        save(root / f"SegmentationObject/2007_{i}.png", COLOURS[truth(i)])
    _voc_lists(root, "ImageSets/Segmentation")


@layout(
    images="{split}/{name}.jpg",
    masks="{split}/_annotations.coco.json",
    said=("cells only groups", "uncovered", "set background"),
    photos={"train": 4, "valid": 2},
    splits=None,
    **SHAPES,
)
def roboflow_coco(root: Path) -> None:
    for split, numbers in (("train", range(4)), ("valid", range(4, 6))):
        names = {i: f"{i}_png.rf.0a{i}.jpg" for i in numbers}
        for i, name in names.items():
            save(root / split / name, photo(i))
        write(root / split / "_annotations.coco.json", coco(names, root=True))
    write(root / "README.roboflow.txt", "exported")


@layout(images="images/{name}.png", masks="annotations/instances_default.json", said=("uncovered",), **SHAPES)
def cvat_coco(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
    write(root / "annotations/instances_default.json", coco({i: f"{i}.png" for i in range(6)}))


@layout(images="images/{name}.png", masks="result.json", **SHAPES)
def label_studio_coco(root: Path) -> None:
    for i in range(6):
        save(root / f"images/my photo {i}.png", photo(i))
    forms = (
        "images\\my photo {}.png",
        "images/0a1b2c3d-my%20photo%20{}.png",
        "/data/local-files/?d=a/my%20photo%20{}.png",
    )
    write(root / "result.json", coco({i: forms[i % 3].format(i) for i in range(6)}))


@layout(
    images="{split}2017/{name}.jpg",
    masks="annotations/instances_{split}2017.json",
    photos=TRAIN_VAL,
    splits=None,
    **SHAPES,
)
def coco_2017(root: Path) -> None:
    for split in ("train", "val"):
        names = {i: f"{i:012}.jpg" for i in range(6) if split_of(i) == split}
        for i, name in names.items():
            save(root / f"{split}2017" / name, photo(i))
        write(root / f"annotations/instances_{split}2017.json", coco(names))
        write(root / f"annotations/captions_{split}2017.json", coco(names))


@layout(images="data/{name}.jpg", masks="labels.json", **SHAPES)
def fiftyone_coco(root: Path) -> None:
    for i in range(6):
        save(root / f"data/{i}.jpg", photo(i))
    write(root / "labels.json", coco({i: f"{i}.jpg" for i in range(6)}))


@layout(images="{name}.jpg", masks="{name}.json", said=("labels of 6 files",), **SHAPES)
def labelme_beside_photos(root: Path) -> None:
    for i in range(6):
        save(root / f"{i}.jpg", photo(i))
        write(root / f"{i}.json", labelme(i, f"{i}.jpg"))


@layout(images="images/{name}.jpg", masks="annotations/{name}.json", **SHAPES)
def labelme_in_a_folder(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        write(root / f"annotations/{i}.json", labelme(i, f"../images/{i}.jpg"))


@layout(
    images="images/{name}.png",
    masks="task-{task}-annotation-*-by-*-tag-{class}-*.png",
    tasks="project.json",
    said=("brush masks",),
    **SHAPES,
)
def label_studio_brushes(root: Path) -> None:
    tasks = []
    for i in range(6):
        save(root / f"images/p{i}.png", photo(i))
        tasks.append({"id": 40 + i, "data": {"image": f"/data/upload/1/0a1b2c3d-p{i}.png"}, "annotations": []})
        for j, name in enumerate(NAMES, 1):
            region = ((truth(i) == j) * 255).astype(np.uint8)
            save(root / f"task-{40 + i}-annotation-{i}-by-1-tag-{name}-0.png", region)
    write(root / "project.json", json.dumps(tasks))


@layout(
    images="{split}/{name}.jpg",
    masks="{split}/{name}_mask.png",
    classes=("background", *NAMES),
    said=("_classes.csv",),
    photos={"train": 4, "valid": 2},
    splits=None,
)
def roboflow_masks(root: Path) -> None:
    for i in range(6):
        split = "train" if i < 4 else "valid"
        save(root / split / f"{i}_jpg.rf.0{i}.jpg", photo(i))
        save(root / split / f"{i}_jpg.rf.0{i}_mask.png", truth(i))
        write(root / split / "_classes.csv", "Pixel Value, Class\n0, background\n1, cell\n2, nucleus\n")


@layout(images="images/{name}.jpg", masks="masks/{class}/{name}.png", said=("masks of its own",), **SHAPES)
def folder_for_each_class(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        for j, name in enumerate(NAMES, 1):
            save(root / f"masks/{name}/{i}.png", ((truth(i) == j) * 255).astype(np.uint8))


@layout(images="images/{name}.jpg", masks="masks/{name}/{class}.png", **SHAPES)
def folder_of_masks_for_each_photo(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        for j, name in enumerate(NAMES, 1):
            save(root / f"masks/{i}/{name}.png", ((truth(i) == j) * 255).astype(np.uint8))


@layout(images="images/{name}.jpg", masks="masks/{name}_{class}.png", **SHAPES)
def class_in_the_name(root: Path) -> None:
    for i in range(6):
        save(root / f"images/p_{i}.jpg", photo(i))
        for j, name in enumerate(NAMES, 1):
            save(root / f"masks/p_{i}_{name}.png", ((truth(i) == j) * 255).astype(np.uint8))


@layout(
    images="image/{name}.jpg",
    masks="mask/{name}.jpg",
    classes=("background", "foreground"),
    class_values=(0, 255),
    stray_values="nearest",
    truth=(0, 1, 1),
)
def jpeg_masks(root: Path) -> None:
    for i in range(6):
        mask = np.zeros((96, 128), np.uint8)
        for left, top, right, bottom in boxes(i):
            mask[4 * top : 4 * bottom, 4 * left : 4 * right] = 255
        save(root / f"image/{i}.jpg", photo(i).repeat(4, 0).repeat(4, 1))
        save(root / f"mask/{i}.jpg", mask, quality=80)


@layout(images="{split}_images/{name}.jpg", masks="{split}_masks/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def wrapped_with_accents(root: Path) -> None:
    for i in range(6):
        composed = f"café {i}"
        apart = unicodedata.normalize("NFD", composed)
        save(root / f"my export/{split_of(i)}_images/{composed}.jpg", photo(i))
        save(root / f"my export/{split_of(i)}_masks/{apart}.png", truth(i))
    write(root / "README.md", "hello")


@layout(images="images/{name}.png", values="normals/{name}.npy", normals=True, said=("surface normals",), truth=None)
def surface_normals(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        buffer = io.BytesIO()
        np.save(buffer, np.random.default_rng(i).normal(size=(*SIZE, 3)).astype(np.float32))
        (root / "normals").mkdir(exist_ok=True)
        (root / f"normals/{i}.npy").write_bytes(buffer.getvalue())


@layout(images="train/image/{name}.png", masks="train/label/{name}.png", said=("2 photos of test",), **INDEX)
def test_without_masks(root: Path) -> None:
    for i in range(6):
        save(root / f"train/image/{i}.png", photo(i))
        save(root / f"train/label/{i}.png", truth(i))
    for i in range(2):
        save(root / f"test/image/{i}.png", photo(i + 10))


def pack(folder: Path) -> Path:
    """A zip archive of a folder, next to it."""
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return archive


@layout(
    images="{split}/images/{name}_{split}.png",
    masks="{split}/manual/{name}_manual1.png",
    photos={"training": 4, "validation": 2},
    **INDEX,
)
def split_in_folder_and_name(root: Path) -> None:
    for i in range(6):
        split = "training" if i < 4 else "validation"
        save(root / split / f"images/{i:02}_{split}.png", photo(i))
        save(root / split / f"manual/{i:02}_manual1.png", truth(i))


@layout(
    images="images/{split}/{name}.png",
    masks="masks/{split}/{name}.png",
    photos={"Train": 4, "valid": 2},
    splits=None,
    **INDEX,
)
def splits_of_other_names(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{'Train' if i < 4 else 'valid'}/{i}.png", photo(i))
        save(root / f"masks/{'train' if i < 4 else 'VAL'}/{i}.png", truth(i))


@layout(
    images="test/{folder}/{name}.png",
    masks="ground_truth/{folder}/{name}_mask.png",
    said=("left out: 2 photos without a target, such as test/good/000.png", "3 photos of train"),
    missing_targets="leave_out",
    **INDEX,
)
def defects_with_good_ones(root: Path) -> None:
    for i in range(3):
        save(root / f"train/good/{i:03}.png", photo(i + 20))
    for i in range(2):
        save(root / f"test/good/{i:03}.png", photo(i + 30))
    for i in range(6):
        save(root / f"test/{('scratch', 'hole')[i % 2]}/{i:03}.png", photo(i))
        save(root / f"ground_truth/{('scratch', 'hole')[i % 2]}/{i:03}_mask.png", truth(i))


@layout(images="Fotos für Müller/{name}.png", masks="Masken für Müller/{name}.png", **INDEX)
def accents_apart_in_folders(root: Path) -> None:
    for i in range(6):
        save(root / unicodedata.normalize("NFD", "Fotos für Müller") / f"{i}.png", photo(i))
        save(root / unicodedata.normalize("NFC", "Masken für Müller") / f"{i}.png", truth(i))


@layout(
    images="{name}.jpg",
    masks="{name}_mask.png",
    said=("left out: 6 photos without a target, such as 0_overlay.jpg",),
    missing_targets="leave_out",
    **INDEX,
)
def overlays_beside_photos(root: Path) -> None:
    for i in range(6):
        save(root / f"{i}.jpg", photo(i))
        save(root / f"{i}_overlay.jpg", photo(i + 40))
        save(root / f"{i}_mask.png", truth(i))


OBJECTS: dict[str, Any] = {"classes": ("background", "foreground"), "background": "background", "truth": (0, 1, 1)}


@layout(
    images="stage1_train/{name}/images/*.png",
    masks="stage1_train/{name}/masks/*.png",
    said=("12 masks of one object each", "2 other images, such as stage1_test"),
    **OBJECTS,
)
def folder_with_a_mask_for_each_object(root: Path) -> None:
    for i in range(6):
        save(root / f"stage1_train/a{i}/images/a{i}.png", photo(i))
        for j in (1, 2):
            save(root / f"stage1_train/a{i}/masks/{i}f{j}e.png", ((truth(i) == j) * 255).astype(np.uint8))
    for i in range(2):
        save(root / f"stage1_test/b{i}/images/b{i}.png", photo(i + 60))


@layout(images="images/{name}.jpg", masks="masks/{name}/*.png", said=("12 masks of one object each",), **OBJECTS)
def masks_of_objects_by_photo(root: Path) -> None:
    for i in range(6):
        save(root / f"images/p{i}.jpg", photo(i))
        for j in (1, 2):
            save(root / f"masks/p{i}/{i}f{j}e.png", ((truth(i) == j) * 255).astype(np.uint8))


@layout(images="images/{name}.png", masks="masks/{name}.png", **INDEX)
def pictures_made_from_others(root: Path) -> None:
    for i in range(6):
        name = str(i) if i < 3 else f"{i - 3}_flip"
        save(root / f"images/{name}.png", photo(i % 3))
        save(root / f"masks/{name}.png", truth(i % 3))


@layout(images="{folder}/{name}.png", depth="{folder}/{name}_depth.npy", said=("metres",), truth=None)
def depth_of_one_channel(root: Path) -> None:
    for i in range(6):
        save(root / f"scan_{i}/view_{i}.png", photo(i))
        np.save(root / f"scan_{i}/view_{i}_depth.npy", (depth_mm(i) / 1000).astype(np.float32)[..., None])
