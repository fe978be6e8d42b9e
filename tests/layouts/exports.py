"""Data sets as annotation tools export them."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.layouts.making import (
    COLOURS,
    NAMES,
    SHAPES,
    TRAIN_VAL,
    coco,
    labelme,
    layout,
    photo,
    save,
    save_palette,
    split_of,
    truth,
    write,
)


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


@layout(images="images/{name}.jpg", masks="{split}.json", said=("train 4, val 2",), photos=TRAIN_VAL, **SHAPES)
def coco_file_for_each_split(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
    for split in ("train", "val"):
        write(root / f"{split}.json", coco({i: f"{i}.jpg" for i in range(6) if split_of(i) == split}))


@layout(images="images/{split}/{name}.jpg", masks="annotations.json", photos=TRAIN_VAL, splits=None, **SHAPES)
def coco_with_folders_of_splits(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{split_of(i)}/{i}.jpg", photo(i))
    write(root / "annotations.json", coco({i: f"{split_of(i)}/{i}.jpg" for i in range(6)}))


@layout(images="images/{name}.png", masks="task-{task}-annotation-*-by-*-tag-{class}-*.png", tasks="min.json", **SHAPES)
def label_studio_json_min(root: Path) -> None:
    tasks = []
    for i in range(6):
        save(root / f"images/p{i}.png", photo(i))
        tasks.append(
            {"id": 40 + i, "image": f"/data/upload/1/0a1b2c3d-p{i}.png", "created_at": "2024-01-01T00:00:00.5Z"}
        )
        for j, name in enumerate(NAMES, 1):
            region = ((truth(i) == j) * 255).astype(np.uint8)
            save(root / f"task-{40 + i}-annotation-{i}-by-1-tag-{name}-0.png", region)
    write(root / "min.json", json.dumps(tasks))


@layout(images="images/{name}.jpg", masks="{name}.png", classes=("background", *NAMES), said=("class_mapping.json",))
def masks_with_a_json_of_numbers(root: Path) -> None:
    for i in range(6):
        save(root / f"images/p{i}.jpg", photo(i))
        save(root / f"p{i}.png", truth(i))
    write(root / "class_mapping.json", json.dumps({"1": "cell", "2": "nucleus"}))
