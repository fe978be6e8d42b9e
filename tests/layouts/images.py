"""Photos and targets that are images or arrays, in the layouts in which people keep them."""

import unicodedata
from pathlib import Path

import numpy as np

from tests.layouts.making import (
    COLOURS,
    INDEX,
    TRAIN_VAL,
    boxes,
    depth_mm,
    layout,
    pairs,
    photo,
    save,
    save_palette,
    split_of,
    truth,
    write,
)


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
    pairs(root, "img_{i}.jpg", "mask_{i}.png")


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
    pairs(root, "seq_{i}.png", "seq_{i}_L.png")


@layout(images="rgb/{folder}/{name}.jpg", masks="labels/{folder}/{name}_labelIds.png", **INDEX)
def nested_folders(root: Path) -> None:
    for i in range(6):
        town = ("aachen/west", "bonn/east")[i % 2]
        save(root / f"rgb/{town}/{i:03}.jpg", photo(i))
        save(root / f"labels/{town}/{i:03}_labelIds.png", truth(i))
        save(root / f"labels/{town}/{i:03}_instanceIds.png", truth(i) * 7)


@layout(images="{split}/images/{name}.jpg", masks="{split}/masks/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def split_then_kind(root: Path) -> None:
    pairs(root, "{split}/images/{i}.jpg", "{split}/masks/{i}.png")


@layout(images="img_dir/{split}/{name}.jpg", masks="ann_dir/{split}/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def kind_then_split(root: Path) -> None:
    pairs(root, "img_dir/{split}/{i}.jpg", "ann_dir/{split}/{i}.png")


@layout(images="{split}/{name}.png", masks="{split}annot/{name}.png", photos=TRAIN_VAL, splits=None, **INDEX)
def split_joined_with_kind(root: Path) -> None:
    pairs(root, "{split}/{i}.png", "{split}annot/{i}.png")


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


@layout(images="train/image/{name}.png", masks="train/label/{name}.png", said=("2 photos of test",), **INDEX)
def test_without_masks(root: Path) -> None:
    for i in range(6):
        save(root / f"train/image/{i}.png", photo(i))
        save(root / f"train/label/{i}.png", truth(i))
    for i in range(2):
        save(root / f"test/image/{i}.png", photo(i + 10))


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


@layout(images="images/{name}.png", masks="masks/{name}.png", **INDEX)
def pictures_made_from_others(root: Path) -> None:
    for i in range(6):
        name = str(i) if i < 3 else f"{i - 3}_flip"
        save(root / f"images/{name}.png", photo(i % 3))
        save(root / f"masks/{name}.png", truth(i % 3))


@layout(
    images="images/{name}.jpg",
    masks="masks/{name}.png",
    mask_format="colour",
    classes=("black", "blue", "red"),
    truth=(0, 2, 1),
    said=("3 colours",),
)
def palettes_of_their_own(root: Path) -> None:
    for i in range(6):
        order = np.random.default_rng(i).permutation(3)
        save(root / f"images/{i}.jpg", photo(i))
        palette = np.vstack([COLOURS[order], np.zeros((253, 3), np.uint8)])
        save_palette(root / f"masks/{i}.png", np.argsort(order)[truth(i)].astype(np.uint8), palette)


@layout(
    images="images/{name}.jpg",
    masks="masks/{name}.jpg",
    class_values=(0, 255),
    stray_values="nearest",
    truth=(0, 1, 1),
    said=("stray values",),
)
def jpeg_masks_of_high_quality(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        save(root / f"masks/{i}.jpg", ((truth(i) > 0) * 255).astype(np.uint8), quality=95)


@layout(
    images="images/{name}.jpg",
    masks="masks/{name}.png",
    missing_targets="leave_out",
    photos={"": 4},
    said=("4 photos images", "left out: 9 photos without a target"),
    **INDEX,
)
def few_masks(root: Path) -> None:
    for i in range(13):
        save(root / f"images/{i:02}.jpg", photo(i))
    for i in range(4):
        save(root / f"masks/{i:02}.png", truth(i))


@layout(images="images/{name}.jpg", masks="masks/{name}.npy", classes=("background", "foreground"), truth=(0, 1, 1))
def arrays_of_booleans_and_floats(root: Path) -> None:
    (root / "masks").mkdir(parents=True)
    for i in range(6):
        save(root / f"images/{i}.jpg", photo(i))
        np.save(root / f"masks/{i}.npy", (truth(i) > 0).astype((bool, np.float32)[i % 2]))


@layout(images="Fotos/{name}.jpg", masks="Masken/{name}.png", said=("liste.csv",), photos=TRAIN_VAL, **INDEX)
def table_of_a_spreadsheet(root: Path) -> None:
    for i in range(6):
        save(root / f"Fotos/Größe {i}.jpg", photo(i))
        save(root / f"Masken/Größe {i}.png", truth(i))
    rows = [f"Fotos\\Größe {i}.jpg;Masken\\Größe {i}.png;{split_of(i)}\r\n" for i in range(6)]
    (root / "liste.csv").write_bytes("".join(["image;mask;split\r\n", *rows]).encode("cp1252"))
