"""Several masks for a photo: one of each class, or of each object."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.layouts.making import NAMES, SHAPES, layout, photo, save, truth


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


@layout(
    images="1. Images/*. {split} Set/{name}.jpg",
    masks="2. Masks/*. {split} Set/{class}/{name}_*.tif",
    photos={"Training": 4, "Validation": 2},
    splits=None,
    **(SHAPES | {"classes": ("background", "1. Cells", "2. Nuclei")}),
)
def folders_and_tails_for_each_class(root: Path) -> None:
    for i in range(6):
        part = "a. Training Set" if i < 4 else "b. Validation Set"
        save(root / f"1. Images/{part}/P_0{i}.jpg", photo(i))
        for j, (folder, tail) in enumerate((("1. Cells", "CE"), ("2. Nuclei", "NU")), 1):
            save(root / f"2. Masks/{part}/{folder}/P_0{i}_{tail}.tif", truth(i) == j)


@layout(
    images="{folder}/{name}.png",
    masks="{folder}/{name}_mask*.png",
    said=("6 photos", "4 further masks of the same photos"),
    **OBJECTS,
)
def further_masks(root: Path) -> None:
    for i in range(6):
        kind = ("benign", "malignant")[i % 2]
        save(root / f"{kind}/{kind} ({i}).png", photo(i))
        save(root / f"{kind}/{kind} ({i})_mask.png", truth(i) == 1 if i < 4 else truth(i) > 0)
        if i < 4:
            save(root / f"{kind}/{kind} ({i})_mask_1.png", truth(i) == 2)
