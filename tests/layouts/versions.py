"""Several files of one kind for each photo: of annotators, versions and cameras; and names that do not tell pairs.

Each has what the public description of a download says, with photos and masks of this package.
"""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.layouts.making import (
    COLOURS,
    INDEX,
    NAMES,
    TRAIN_VAL,
    depth_mm,
    layout,
    pairs,
    photo,
    save,
    split_of,
    truth,
    write,
)

BINARY: dict[str, Any] = {"classes": ("background", "foreground"), "truth": (0, 1, 1)}


def drawn(i: int, further: bool = False) -> NDArray[np.uint8]:
    """A mask of 0 and 255; a further annotator draws a little less."""
    mask = truth(i) > 0
    return (mask & np.roll(mask, 1, axis=0) if further else mask).astype(np.uint8) * 255


def field_of_view(i: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:24, :32]
    inside = ((rows - 11.5) / 11) ** 2 + ((columns - 15.5 - i % 2) / 14) ** 2 <= 1
    return inside.astype(np.uint8) * 255


@layout(
    images="{split}/images/{name}_{split}.tif",
    masks="{split}/1st_manual/{name}_manual1.gif",
    said=(
        "{split}_mask.gif is passed over, as it is one large area",
        "is by another annotator; --masks 'test/2nd_manual",
    ),
    photos={"training": 2, "val": 1, "test": 3},
    **BINARY,
)
def drive(root: Path) -> None:
    for i in range(6):
        split = "training" if i < 3 else "test"
        save(root / split / f"images/2{i}_{split}.tif", photo(i))
        save(root / split / f"mask/2{i}_{split}_mask.gif", field_of_view(i))
        save(root / split / f"1st_manual/2{i}_manual1.gif", drawn(i))
        if split == "test":
            save(root / split / f"2nd_manual/2{i}_manual2.gif", drawn(i, further=True))


@layout(images="{name}.jpg", masks="{name}_1stHO.png", said=("{name}_2ndHO.png is passed over",), **BINARY)
def chase_db1(root: Path) -> None:
    for i in range(6):
        stem = f"Image_{'RL'[i % 2]}_0{i}"
        save(root / f"{stem}.jpg", photo(i))
        save(root / f"{stem}_1stHO.png", drawn(i) > 0)
        save(root / f"{stem}_2ndHO.png", drawn(i, further=True) > 0)


@layout(
    images="{name}.ppm",
    masks="labels-ah/{name}.ah.ppm",
    said=("labels-vk/{name}.vk.ppm is passed over", "--masks 'labels-vk/{name}.vk.ppm' takes it"),
    **BINARY,
)
def stare(root: Path) -> None:
    for i in range(6):
        save(root / f"im000{i}.ppm", photo(i))
        save(root / f"labels-ah/im000{i}.ah.ppm", drawn(i))
        save(root / f"labels-vk/im000{i}.vk.ppm", drawn(i, further=True))


@layout(
    images="{folder}/color/{name}.jpg",
    masks="{folder}/label-filt/{name}.png",
    depth="{folder}/depth/{name}.png",
    said=("{folder}/label/{name}.png is passed over, as it is another version", "18 other images"),
    **INDEX,
)
def scannet(root: Path) -> None:
    for i in range(6):
        scene = root / f"scene0000_0{i % 2}"
        save(scene / f"color/{i}.jpg", photo(i))
        save(scene / f"depth/{i}.png", depth_mm(i))
        noisy = truth(i)
        noisy[0, 0] = 2
        save(scene / f"label/{i}.png", noisy.astype(np.uint16))
        save(scene / f"label-filt/{i}.png", truth(i).astype(np.uint16))
        save(scene / f"instance/{i}.png", truth(i) * 9)
        save(scene / f"instance-filt/{i}.png", truth(i) * 9)
        write(scene / f"pose/{i}.txt", "1 0 0 0")


@layout(
    images="{folder}/{name}/image/*.jpg",
    depth="{folder}/{name}/depth/*.png",
    depth_unit_m=0.000125,
    said=("depth_bfx/*.png is passed over", "multiples of 8"),
    truth=None,
)
def sun_rgbd(root: Path) -> None:
    for i in range(6):
        place = root / ("kv1/NYUdata", "xtion/sun3ddata")[i % 2] / f"scan{i}"
        photo_name, depth_name = ((f"NYU{i}",) * 2, (f"{i}-000000352086", f"{i}-000000362054"))[i % 2]
        save(place / f"image/{photo_name}.jpg", photo(i))
        for kind in ("depth", "depth_bfx"):
            save(place / f"{kind}/{depth_name}.png", depth_mm(i) * 8)
        write(place / "annotation2Dfinal/index.json", "{}")
        write(place / "intrinsics.txt", "1 0 0")


@layout(
    images="{folder}/matterport_color_images/{name}_i{rest}.jpg",
    depth="{folder}/matterport_depth_images/{name}_d{rest}.png",
    truth=None,
)
def matterport(root: Path) -> None:
    for i in range(6):
        scene = root / ("17DRP5sb8fy", "1LXtFkjw3qL")[i % 2]
        place = ("0e92a69a50414253", "ffd1a0b2c3041425")[i // 3]
        save(scene / f"matterport_color_images/{place}_i{i // 2}_{i}.jpg", photo(i))
        save(scene / f"matterport_depth_images/{place}_d{i // 2}_{i}.png", depth_mm(i))


@layout(
    images="image/{name}_sync_image_{rest}.png",
    depth="groundtruth_depth/{name}_sync_groundtruth_depth_{rest}.png",
    said=("6 other images, such as velodyne_raw",),
    truth=None,
)
def kitti_selection(root: Path) -> None:
    for i in range(6):
        drive_name = f"2011_09_26_drive_000{i % 2}_sync"
        for kind in ("image", "groundtruth_depth", "velodyne_raw"):
            pixels = photo(i) if kind == "image" else depth_mm(i)
            save(root / kind / f"{drive_name}_{kind}_000000000{i}_image_0{i}.png", pixels)


@layout(
    images="{split}/images/{name}.jpg",
    masks="{split}/masks/{name}.bmp",
    photos={"train_val": 3, "val": 1, "TEST": 2},
    said=("there is no val", "2 other images"),
    **INDEX,
)
def suim(root: Path) -> None:
    for i in range(6):
        split = "train_val" if i < 4 else "TEST"
        save(root / split / f"images/d_r_{i}_.jpg", photo(i))
        save(root / split / f"masks/d_r_{i}_.bmp", truth(i))
        if split == "TEST":
            save(root / split / f"masks/RO/d_r_{i}_.bmp", drawn(i))


@layout(
    images="TrainVal_images/{split}_images/{name}.jpg",
    masks="TrainVal_parsing_annotations/{split}_segmentations/{name}.png",
    photos=TRAIN_VAL,
    splits=None,
    **INDEX,
)
def lip(root: Path) -> None:
    pairs(root, "TrainVal_images/{split}_images/{i}.jpg", "TrainVal_parsing_annotations/{split}_segmentations/{i}.png")


@layout(
    images="{split}/images/{name}.jpg",
    masks="{split}/v2.0/labels/{name}.png",
    said=("v1.2/labels/{name}.png is passed over",),
    photos={"training": 4, "validation": 2},
    **INDEX,
)
def mapillary(root: Path) -> None:
    for i in range(6):
        split = root / ("training" if i < 4 else "validation")
        save(split / f"images/a_{i}.jpg", photo(i))
        for version in ("v1.2", "v2.0"):
            save(split / version / f"labels/a_{i}.png", truth(i))
            save(split / version / f"instances/a_{i}.png", truth(i) * 7)


@layout(
    images="{split}/images/{name}.png",
    masks="{split}/Semantic_masks/{name}_instance_color_RGB.png",
    classes=("black", "blue", "red"),
    truth=(0, 2, 1),
    photos=TRAIN_VAL,
)
def isaid(root: Path) -> None:
    for i in range(6):
        save(root / split_of(i) / f"images/P{i}.png", photo(i))
        save(root / split_of(i) / f"Semantic_masks/P{i}_instance_color_RGB.png", COLOURS[truth(i)])
        save(root / split_of(i) / f"Instance_masks/P{i}_instance_id_RGB.png", COLOURS[truth(i)] // 3)


@layout(
    images="ISIC_{split}_Data/{name}.jpg",
    masks="ISIC_{split}_GroundTruth/{name}_segmentation.png",
    photos={"Training": 4, "Validation": 2},
    **BINARY,
)
def isic_with_superpixels(root: Path) -> None:
    for i in range(6):
        split = "Training" if i < 4 else "Validation"
        save(root / f"ISIC_{split}_Data/ISIC_{i}.jpg", photo(i))
        save(root / f"ISIC_{split}_Data/ISIC_{i}_superpixels.png", photo(i + 40))
        save(root / f"ISIC_{split}_GroundTruth/ISIC_{i}_segmentation.png", drawn(i))


@layout(
    images="images/{name}.jpg",
    masks="masks/{name}.png",
    classes=("void", *NAMES),
    said=("3 classes of config.json",),
)
def classes_in_a_config(root: Path) -> None:
    rows = [{"name": name, "color": COLOURS[k].tolist()} for k, name in enumerate(("void", *NAMES))]
    write(root / "config.json", json.dumps({"labels": rows}))
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        save(root / f"masks/{i}.png", COLOURS[truth(i)])


@layout(images="images/{name}.jpg", masks="masks/{name}.png", said=("class_mapping.csv with their colours",), **INDEX)
def v7_masks(root: Path) -> None:
    write(root / "class_mapping.csv", "class_name,class_color\nclass 0,0 0 0\nclass 1,255 0 0\nclass 2,0 0 255\n")
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        save(root / f"masks/{i}.png", COLOURS[truth(i)])


@layout(said=("6 photos with targets as metadata.csv lists them",), **INDEX)
def hugging_face_folder(root: Path) -> None:
    rows = ["file_name,mask_file_name"]
    for i in range(6):
        save(root / f"train/aa{i}.png", photo(i))
        save(root / f"train/m{9 - i}.png", truth(i))
        rows.append(f"aa{i}.png,m{9 - i}.png")
    write(root / "train/metadata.csv", "\n".join(rows))


@layout(images="Müller/images/{name}.png", masks="Müller/masks/{name}.png", **INDEX)
def one_folder_in_two_unicode_forms(root: Path) -> None:
    for i in range(6):
        folder = root / unicodedata.normalize(("NFC", "NFD")[i % 2], "Müller")
        save(folder / f"images/{i}.png", photo(i))
        save(folder / f"masks/{i}.png", truth(i))
