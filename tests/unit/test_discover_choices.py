"""What only the owner of the data can say: ambiguous and hopeless folders, and keys that settle it."""

import json
import re
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.data import FolderConfig, FolderDataset
from densevit.data.discover import discover
from densevit.errors import DataError
from tests.layouts import COLOURS, LAYOUTS, coco, depth_mm, labelme, photo, save, truth, write

Make = Callable[[Path], None]


def two_kinds_of_masks(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i:03}_image.png", photo(i))
        save(root / f"masks/{i:03}_mask.png", (truth(i) > 0).astype(np.uint8))
        save(root / f"annotations/{i:03}_annotation.png", COLOURS[truth(i)])
        write(root / f"annotations/{i:03}_annotation.yaml", "a: 1")


def masks_and_coco(root: Path) -> None:
    LAYOUTS["cvat_coco"].make(root)
    for i in range(6):
        save(root / f"masks/{i}.png", truth(i))


def several_data_sets(root: Path) -> None:
    for name in ("Dataset 1", "Dataset 2"):
        LAYOUTS["extensions_in_one_folder"].make(root / name)


def two_cameras(root: Path) -> None:
    for i in range(6):
        save(root / f"left/{i}.png", photo(i))
        save(root / f"right/{i}.png", photo(i + 6))
        save(root / f"labels/{i}.png", truth(i))


def classes_under_two_names(root: Path) -> None:
    LAYOUTS["split_in_folder_and_name"].make(root)
    for i in range(6):
        split = "training" if i < 4 else "validation"
        save(root / split / f"mask/{i:02}_{split}_mask.png", (truth(i) > 0).astype(np.uint8))


def two_observers(root: Path) -> None:
    for i in range(6):
        save(root / f"Image_{i:02}L.jpg", photo(i))
        save(root / f"Image_{i:02}L_1stHO.png", truth(i))
        save(root / f"Image_{i:02}L_2ndHO.png", (truth(i) > 0).astype(np.uint8))


def two_formats(root: Path) -> None:
    for ending in ("png", "tiff"):
        for i in range(6):
            save(root / f"{ending}/images/{i}.{ending}", photo(i))
            save(root / f"{ending}/masks/{i}.{ending}", truth(i))


def photos_only(root: Path) -> None:
    for i in range(6):
        save(root / f"photos/{i}.png", photo(i))


def empty(root: Path) -> None:
    write(root / "notes.md", "nothing")


def boxes_only(root: Path) -> None:
    for i in range(6):
        save(root / f"data/{i}.jpg", photo(i))
    write(root / "labels.json", coco({i: f"{i}.jpg" for i in range(6)}, outlines=False))


def fiftyone_boxes(root: Path) -> None:
    for i in range(6):
        save(root / f"data/{i}.jpg", photo(i))
    write(root / "labels.json", json.dumps({"classes": ["a"], "labels": {"0": [{"label": 0}]}}))


def coco_without_photos(root: Path) -> None:
    write(root / "annotations/instances_default.json", coco({0: "a.png"}))


def brushes_without_tasks(root: Path) -> None:
    LAYOUTS["label_studio_brushes"].make(root)
    (root / "project.json").unlink()


def regression(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"masks/{i}.png", photo(i)[..., 0])


def table_of_pairs(root: Path) -> None:
    for i in range(6):
        save(root / f"{i}/x{i}.png", photo(i))
        save(root / f"{i}/y{6 - i}.png", truth(i))
    write(root / "list.csv", "image,mask\n" + "".join(f"{i}/x{i}.png,{i}/y{6 - i}.png\n" for i in range(6)))


def table_of_lost_files(root: Path) -> None:
    table_of_pairs(root)
    (root / "3/x3.png").unlink()


def archives_inside(root: Path) -> None:
    LAYOUTS["suffixes"].make(root / "x")
    for kind in ("images", "masks"):
        shutil.make_archive(str(root / kind), "zip", root / "x" / kind)
    shutil.rmtree(root / "x")


def _texts(**files: str) -> Make:
    """Photos next to files of these names and texts, in which "__" is a slash and the last "_" a dot."""

    def make(root: Path) -> None:
        photos_only(root)
        for name, text in files.items():
            stem, _, ending = name.rpartition("_")
            write(root / f"{stem.replace('__', '/')}.{ending}", text)

    return make


def other_zeros(root: Path) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"masks/{i:04}.png", truth(i))


def time_stamps(root: Path) -> None:
    for i in range(6):
        save(root / f"rgb/1305031102.{175304 + 33000 * i}.png", photo(i))
        save(root / f"depth/1305031103.{160504 + 33100 * i}.png", depth_mm(i))


def masks_only(root: Path) -> None:
    for i in range(6):
        save(root / f"SegmentationClass/{i}.png", truth(i))
        save(root / f"SegmentationObject/{i}.png", truth(i))


VIA = json.dumps({"0.png1": {"filename": "0.png", "regions": []}})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_texts(labels__0_txt="0 0.1 0.1 0.4 0.1 0.4 0.4"), "labels/0.txt holds YOLO's outlines"),
        (_texts(labels__0_txt="0 0.1 0.1 0.4 0.1"), "labels/0.txt holds YOLO's boxes"),
        (_texts(via_json=VIA), "VGG Image Annotator"),
        (_texts(via_json=json.dumps({"_via_img_metadata": json.loads(VIA)})), "VGG Image Annotator"),
        (_texts(ann__0_json='{"size": {}, "objects": []}'), "Supervisely"),
        (_texts(annotations_xml='<?xml version="1.0"?><annotations><image id="0"/></annotations>'), "CVAT's XML"),
        (_texts(a_xml="<annotation><object><polygon><pt/></polygon></object></annotation>"), "LabelMe's web tool"),
        (_texts(a_xml="<annotation><object><bndbox/></object></annotation>"), "Pascal VOC's boxes"),
        (_texts(train_csv="ImageId,EncodedPixels\n0.png,1 2"), "a table of run lengths"),
        (_texts(train_csv="ImageId,EncodedPixels\n0.png,1 2"), "'Segmentation mask 1.1' are accepted"),
        (other_zeros, "images/0.png and masks such as masks/0000.png have no names in common, as their numbers"),
        (time_stamps, "no time stamps within 0.02 s; set nearest"),
        (masks_only, "there is no photo"),
        (two_kinds_of_masks, "--masks 'annotations/{name}_annotation.png' or --masks 'masks/{name}_mask.png'"),
        (two_kinds_of_masks, "which hold black, blue, red"),
        (masks_and_coco, "--masks 'masks/{name}.png' or --masks 'annotations/instances_default.json'"),
        (several_data_sets, "several data sets: Dataset 1 (6 photos), Dataset 2 (6 photos)"),
        (two_cameras, "--images 'left/{name}.png' or --images 'right/{name}.png'"),
        (photos_only, "6 .png"),
        (two_formats, "several data sets: png (6 photos), tiff (6 photos)"),
        (two_observers, "--masks '{name}_1stHO.png' or --masks '{name}_2ndHO.png'"),
        (
            classes_under_two_names,
            "{name}_manual1.png' or --masks '{split}/mask/{name}_{split}_mask.png'",
        ),
        (empty, "no photos with masks"),
        (boxes_only, "12 boxes and no outline"),
        (fiftyone_boxes, "FiftyOne's list of boxes"),
        (coco_without_photos, "lists 1 photo, of which none is there"),
        (brushes_without_tasks, "export JSON too"),
        (regression, "are these photos, numbers of instances, or values of a regression"),
        (archives_inside, "or unpack those of photos and masks"),
        (table_of_lost_files, "list.csv lists pairs, so give it with --pairs"),
    ],
)
def test_discover__asks_its_owner(make: Make, said: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    make(root)

    with pytest.raises(DataError, match=re.escape(said)):
        discover(root)


@pytest.mark.parametrize(
    ("make", "given", "expected"),
    [
        (two_kinds_of_masks, {"masks": "annotations"}, {"masks": "annotations/{name}_annotation.png"}),
        (two_kinds_of_masks, {"masks": "masks/{name}_mask.png"}, {"masks": "masks/{name}_mask.png"}),
        (two_kinds_of_masks, {"masks": "masks"}, {"images": "images/{name}_image.png"}),
        (masks_and_coco, {"masks": "masks"}, {"masks": "masks/{name}.png", "background": None}),
        (
            masks_and_coco,
            {"masks": "annotations/instances_default.json"},
            {"masks": "annotations/instances_default.json", "background": "background"},
        ),
        (two_kinds_of_masks, {"masks": "data/masks"}, {"masks": "masks/{name}_mask.png"}),
        (
            LAYOUTS["class_in_the_name"].make,
            {"masks": "masks/{name}_{class}.png"},
            {"classes": ("background", "cell", "nucleus"), "images": "images/{name}.jpg"},
        ),
        (two_cameras, {"images": "right"}, {"images": "right/{name}.png"}),
    ],
)
def test_discover__takes_what_is_given(make: Make, given: Any, expected: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    make(root)

    config = discover(root, **given).config

    found = {key: getattr(config, key) for key in expected}
    assert {key: str(value) if isinstance(value, Path) else value for key, value in found.items()} == expected


def test_discover__given_classes_replace_those_of_the_masks(tmp_path: Path) -> None:
    two_kinds_of_masks(tmp_path / "data")

    config = discover(tmp_path / "data", masks="masks", classes=("soil", "plant")).config

    assert isinstance(config, FolderConfig)
    assert config.classes == ("soil", "plant")


def test_discover__names_what_is_not_there(tmp_path: Path) -> None:
    two_kinds_of_masks(tmp_path / "data")

    with pytest.raises(DataError, match="no file that can be read"):
        discover(tmp_path / "data", masks="labels")
    with pytest.raises(DataError, match="no file that can be read"):
        discover(tmp_path / "data", masks="masks/{name}.tif")


def test_discover__old_versions_are_passed_over(tmp_path: Path) -> None:
    LAYOUTS["rgbd_frames"].make(tmp_path / "data")
    LAYOUTS["rgbd_frames"].make(tmp_path / "old-version/data")

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert str(found.config.images) == "data/frames/{name}.color.png"
    assert any("12 other images, such as old-version/data/frames" in remark for remark in found.remarks)


def test_discover__scenes_are_one_data_set(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        LAYOUTS["suffixes"].make(tmp_path / name)

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert str(found.config.images) == "{folder}/images/{name}_image.png"
    assert any("photos of 2 folders, such as alpha and beta, are one data set" in remark for remark in found.remarks)


def test_discover__photos_without_masks_are_said(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    (tmp_path / "masks/002_mask.png").unlink()

    found = discover(tmp_path)

    assert any("left out: 1 photo without a target, such as images/002_image.png" in remark for remark in found.remarks)
    assert isinstance(found.config, FolderConfig)
    assert len(FolderDataset(found.config.model_copy(update={"splits": None}))) == 5


def test_discover__leftovers_are_counted(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    save(tmp_path / "teaser.jpg", photo(9))

    remarks = "\n".join(discover(tmp_path).remarks)

    assert "passed over: 1 other image, such as teaser.jpg" in remarks
    assert "1 .json" in remarks
    assert "3 files that file managers leave" in remarks


LISTS: list[tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = [
    (
        {"classes.json": json.dumps({"classes": ["a", "b", "c"]})},
        {},
        {"classes": ("a", "b", "c")},
    ),
    ({"classes.txt": "a\nb\nc"}, {}, {"classes": ("a", "b", "c")}),
    ({"classes.txt": "b\nc"}, {}, {"classes": ("background", "b", "c")}),
    (
        {"class_dict.csv": "name,r,g,b\na,0,0,0\nb,255,0,0\nc,0,0,255"},
        {"colours": True},
        {"classes": ("a", "b", "c"), "palette": ((0, 0, 0), (255, 0, 0), (0, 0, 255))},
    ),
]


@pytest.mark.parametrize(("files", "options", "expected"), LISTS, ids=["json", "txt", "txt-from-1", "csv"])
def test_discover__lists_of_classes(
    files: dict[str, str], options: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i))
        save(tmp_path / f"masks/{i}.png", COLOURS[truth(i)] if options else truth(i))
    for name, text in files.items():
        write(tmp_path / name, text)

    config = discover(tmp_path).config

    assert {key: getattr(config, key) for key in expected} == expected


def test_discover__list_that_is_too_short_is_refused(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    write(tmp_path / "classes.txt", "only one")

    with pytest.raises(DataError, match="lists 1 classes, but masks"):
        discover(tmp_path)


def test_discover__a_name_in_two_lists_is_kept_from_training(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    write(tmp_path / "train.txt", "images/000_image.png masks/000_mask.png\n001\n002\n")
    write(tmp_path / "val.txt", "002\n003\n")

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.splits is not None
    assert found.config.splits.names == {"train": ("000", "001"), "val": ("002", "003")}
    remarks = "\n".join(found.remarks)
    assert "in two lists: 1 photo, such as 002" in remarks
    assert "in no list: 2 photos" in remarks


def test_discover__other_lists_of_splits_are_said(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    write(tmp_path / "train_test_split.yaml", "train: [1]")

    assert any("train_test_split.yaml may hold splits" in remark for remark in discover(tmp_path).remarks)


def test_discover__splits_by_the_names_of_photos(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"images/{'train' if i < 4 else 'val'}_{i}.png", photo(i))
        save(tmp_path / f"masks/{'train' if i < 4 else 'val'}_{i}.png", truth(i))

    config = discover(tmp_path).config

    assert isinstance(config, FolderConfig)
    assert config.splits is not None
    assert config.splits.names == {"train": ("train_0", "train_1", "train_2", "train_3"), "val": ("val_4", "val_5")}


@pytest.mark.parametrize(("factor", "sparse", "unit"), [(1, False, 0.001), (10, False, 0.0002), (10, True, 1 / 256)])
def test_discover__unit_of_depth(factor: int, sparse: bool, unit: float, tmp_path: Path) -> None:
    for i in range(6):
        depth = depth_mm(i) * factor
        depth[:20] *= not sparse
        save(tmp_path / f"rgb/{i}.png", photo(i))
        save(tmp_path / f"depth/{i}.png", depth)

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.depth_unit_m == unit
    assert any("depth_unit_m" in remark for remark in found.remarks)


def test_discover__depth_of_8_bits_is_no_measurement(tmp_path: Path) -> None:
    for i in range(6):
        save(tmp_path / f"rgb/{i}.png", photo(i))
        save(tmp_path / f"depth/{i}.png", photo(i)[..., 0])

    with pytest.raises(DataError, match="depth map of 8 bits"):
        discover(tmp_path)

    for i in range(6):
        save(tmp_path / f"labels/{i}.png", truth(i))
    found = discover(tmp_path)
    assert isinstance(found.config, FolderConfig)
    assert found.config.depth is None
    assert any("depth is passed over" in remark for remark in found.remarks)


def test_discover__class_list_with_views_stays_in_its_file(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    views = {"classes2": ["x", "y"], "to_2": [0, 1, 1]}
    write(tmp_path / "classes.json", json.dumps({"classes": ["a", "b", "c"], "ignore_index": 254, **views}))

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.classes is None
    assert "3 classes of classes.json" in found.remarks


def test_discover__categories_may_differ_between_splits(tmp_path: Path) -> None:
    for split, rename in (("train", "cell"), ("valid", "debris")):
        text = coco({0: "0.jpg"}).replace('"cell"', f'"{rename}"')
        write(tmp_path / split / "_annotations.coco.json", text)
        save(tmp_path / split / "0.jpg", photo(0))

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.classes == ("background", "cell", "nucleus", "debris")
    assert any("different categories" in remark for remark in found.remarks)


def test_discover__a_category_may_be_the_background(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"{i}.jpg", photo(i))
        write(tmp_path / f"{i}.json", labelme(i, f"{i}.jpg").replace('"cell"', '"_background_"'))

    config = discover(tmp_path).config

    assert isinstance(config, FolderConfig)
    assert (config.classes, config.background) == (("_background_", "nucleus"), "_background_")


@pytest.mark.parametrize("name", ["cvat_coco", "labelme_beside_photos"])
def test_discover__given_classes_of_outlines(name: str, tmp_path: Path) -> None:
    LAYOUTS[name].make(tmp_path)

    bare = discover(tmp_path, classes=("nucleus", "cell"))
    full = discover(tmp_path, classes=("soil", "nucleus", "cell"), background="soil")

    assert isinstance(bare.config, FolderConfig)
    assert (bare.config.classes, bare.config.background) == (("nucleus", "cell"), None)
    assert any("uncovered, which is ignored" in remark for remark in bare.remarks)
    assert isinstance(full.config, FolderConfig)
    assert (full.config.classes, full.config.background) == (("soil", "nucleus", "cell"), "soil")


@pytest.mark.parametrize("place", ["masks/cells", "masks/train"])
def test_discover__one_folder_of_masks_is_written_as_it_is(place: str, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i))
        save(tmp_path / place / f"{i}.png", truth(i))

    config = discover(tmp_path).config

    assert isinstance(config, FolderConfig)
    assert (str(config.images), str(config.masks)) == ("images/{name}.png", f"{place}/{{name}}.png")


def test_discover__masks_without_a_photo_are_said(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path)
    (tmp_path / "images/002_image.png").unlink()

    remarks = discover(tmp_path).remarks

    assert "not used: 1 file of masks without a photo, such as masks/002_mask.png" in remarks


def discs(root: Path, *, folder: str = "mask", holes: bool = False, small: bool = False) -> None:
    """Vessels of two people and an area that is nearly the same in each photo."""
    rows, columns = np.mgrid[:24, :32]
    for i in range(6):
        disc = ((rows - 12) ** 2 + (columns - 16) ** 2 <= (25 if small else 110)).astype(np.uint8)
        disc[::4] *= not holes
        save(root / f"images/{i}.png", photo(i))
        save(root / f"manual/{i}.png", (truth(i) > 0).astype(np.uint8))
        save(root / f"{folder}/{i}.png", disc)


@pytest.mark.parametrize("options", [{"holes": True}, {"small": True}, {"folder": "labels"}], ids=str)
def test_discover__only_one_large_area_is_a_field_of_view(options: Any, tmp_path: Path) -> None:
    discs(tmp_path / "eyes")
    discs(tmp_path / "other", **options)

    assert str(discover(tmp_path / "eyes").config.masks) == "manual/{name}.png"
    with pytest.raises(DataError, match="choose with --masks"):
        discover(tmp_path / "other")


def two_folders(root: Path, names: tuple[str, str], agree: bool) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"{names[0]}/{i}.png", (truth(i) == 1).astype(np.uint8))
        save(root / f"{names[1]}/{i}.png", (truth(i) == (1 if agree else 2)).astype(np.uint8))


@pytest.mark.parametrize(
    ("names", "agree", "taken"),
    [
        (("labels_expert1", "labels_expert2"), False, 0),
        (("2nd_labels", "1st_labels"), False, 1),
        (("labels-anna", "labels-ben"), True, 0),
        (("labels-anna", "labels-ben"), False, None),
        (("labels_1", "labels_2"), False, None),
        (("labels", "labels_eroded"), True, 0),
        (("labels", "labels_corrected"), True, 1),
        (("labels", "labels_eroded"), False, None),
    ],
)
def test_discover__versions_of_masks(names: tuple[str, str], agree: bool, taken: int | None, tmp_path: Path) -> None:
    two_folders(tmp_path, names, agree)

    if taken is None:
        with pytest.raises(DataError, match="choose with --masks"):
            discover(tmp_path)
        return
    found = discover(tmp_path)
    other = f"{names[1 - taken]}/{{name}}.png"
    assert str(found.config.masks) == f"{names[taken]}/{{name}}.png"
    assert any(f"--masks '{other}' takes it instead" in remark for remark in found.remarks)
    assert str(discover(tmp_path, masks=other).config.masks) == other


@pytest.mark.parametrize("name", ["drive", "chase_db1", "stare", "scannet", "sun_rgbd", "mapillary"])
def test_discover__what_is_passed_over_can_be_taken(name: str, tmp_path: Path) -> None:
    LAYOUTS[name].make(tmp_path)
    said = " ".join(discover(tmp_path).remarks)
    options = re.findall(r"--(\w+) '([^']+)' takes it instead", said)

    assert options
    for kind, template in options:
        assert str(getattr(discover(tmp_path, **{kind: template}).config, kind)) == template


def test_discover__a_table_pairs_what_names_do_not(tmp_path: Path) -> None:
    table_of_pairs(tmp_path)

    found = discover(tmp_path)

    assert "6 photos with targets as list.csv lists them" in found.remarks[0]
    assert isinstance(found.config, FolderConfig)
    assert found.config.splits is not None


def test_discover__one_name_in_two_unicode_forms_is_refused(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        for kind in ("images", "masks"):
            save(
                tmp_path / kind / f"{unicodedata.normalize(form, 'Größe')}.png",
                photo(1) if kind == "images" else truth(1),
            )

    with pytest.raises(DataError, match=r"accents in different Unicode forms \(NFC and NFD\)"):
        discover(tmp_path)
