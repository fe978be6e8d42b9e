"""COCO's annotations and labelme's files in templates, and photos in subfolders."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig, FolderDataset, classes_of
from densevit.errors import DataError

SIZE = (4, 6)


def photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def coco(path: Path, columns: dict[str, int], categories: tuple[str, ...] = ("crop", "weed")) -> None:
    """Annotations with one box of class weed, from the left to a column of each photo."""
    images = [{"id": i, "file_name": name, "height": 4, "width": 6} for i, name in enumerate(columns)]
    shapes = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": [[0, 0, end, 0, end, 4, 0, 4]], "iscrowd": 0}
        for i, end in enumerate(columns.values())
    ]
    named = [{"id": i, "name": name} for i, name in enumerate(categories)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": shapes, "categories": named}))


def widths(config: dict[str, Any]) -> dict[str, int]:
    """Number of columns of class 1 by the name of the photo."""
    dataset = FolderDataset(FolderConfig.parse(config))
    assert dataset.names is not None
    return {name: int((dataset.labels(i)[0] == 1).sum()) for i, name in enumerate(dataset.names)}


def exported(root: Path) -> dict[str, Any]:
    """One file of annotations in each split, as Roboflow exports them."""
    for split, name, end in (("train", "a", 2), ("valid", "b", 3)):
        photo(root / split / f"{name}.png")
        coco(root / split / "_annotations.coco.json", {f"{name}.png": end})
    return {"root": root, "images": "{split}/{name}.png", "masks": "{split}/_annotations.coco.json"}


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("split", "expected"), [("train", {"a": 2}), ("val", {"b": 3})])
def test_coco__of_each_split_is_read(tmp_path: Path, split: str, expected: dict[str, int], archive: bool) -> None:
    config = exported(tmp_path / "data")
    if archive:
        with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
            for path in (tmp_path / "data").rglob("*.*"):
                file.write(path, path.relative_to(tmp_path / "data").as_posix())
        config["root"] = tmp_path / "data.zip"
    assert widths({**config, "split": split}) == expected


def test_classes__of_a_template_are_those_of_its_files(tmp_path: Path) -> None:
    table = classes_of(FolderConfig.parse({**exported(tmp_path), "split": "val", "background": "soil"}))
    assert table is not None
    assert table.names == ("soil", "crop", "weed")


def test_coco__with_photos_in_subfolders_is_matched_by_the_end_of_their_path(tmp_path: Path) -> None:
    for name in ("k/a.png", "l/a.png", "l/b.png"):
        photo(tmp_path / "photos" / name)
    coco(tmp_path / "all.json", {"k/a.png": 1, "l\\a.png": 2, "b.png": 3})
    config = {"root": tmp_path, "images": "photos/{folder}/{name}.png", "masks": "all.json"}
    assert widths(config) == {"k/a": 1, "l/a": 2, "l/b": 3}


def test_coco__that_lists_one_of_two_photos_of_a_name_leaves_the_other_out(tmp_path: Path) -> None:
    for name in ("k/a.png", "l/a.png"):
        photo(tmp_path / "photos" / name)
    coco(tmp_path / "all.json", {"l/a.png": 2})
    config = {"root": tmp_path, "images": "photos/{folder}/{name}.png", "masks": "all.json"}
    assert widths(config) == {"l/a": 2}


def test_coco__whose_entry_may_be_of_two_photos_is_refused(tmp_path: Path) -> None:
    for name in ("k/a.png", "l/a.png"):
        photo(tmp_path / "photos" / name)
    coco(tmp_path / "all.json", {"a.png": 2})
    config = {"root": tmp_path, "images": "photos/{folder}/{name}.png", "masks": "all.json"}
    with pytest.raises(DataError, match=r"all.json lists a.png once, and it may be any of .*k/a.png, .*l/a.png; "):
        widths(config)


def test_coco__of_each_folder_is_read(tmp_path: Path) -> None:
    for folder, end in (("k", 1), ("l", 2)):
        photo(tmp_path / folder / "a.png")
        coco(tmp_path / folder / "labels.json", {"a.png": end})
    config = {"root": tmp_path, "images": "{folder}/{name}.png", "masks": "{folder}/labels.json"}
    assert widths(config) == {"k/a": 1, "l/a": 2}


def test_coco__files_of_different_classes_are_refused(tmp_path: Path) -> None:
    for folder, names in (("k", ("crop", "weed")), ("l", ("crop", "grass"))):
        photo(tmp_path / folder / "a.png")
        coco(tmp_path / folder / "labels.json", {"a.png": 1}, names)
    config = {"root": tmp_path, "images": "{folder}/{name}.png", "masks": "{folder}/labels.json"}
    with pytest.raises(DataError, match="have different categories, crop, weed and crop, grass; set classes to"):
        widths(config)


def test_labelme__next_to_photos_in_folders_is_read(tmp_path: Path) -> None:
    for name, end in (("k/a", 2), ("b", 4)):
        photo(tmp_path / f"{name}.png")
        shape = {"label": "weed", "points": [[0, 0], [end, 4]], "shape_type": "rectangle"}
        (tmp_path / f"{name}.json").write_text(json.dumps({"shapes": [shape], "imageHeight": 4, "imageWidth": 6}))
    config = {"root": tmp_path, "images": "{folder}/{name}.png", "masks": "{folder}/{name}.json"}
    assert widths({**config, "classes": ["crop", "weed"], "background": "crop"}) == {"b": 4, "k/a": 2}


def test_table__may_name_annotations(tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(tmp_path / f"{name}.png")
    coco(tmp_path / "all.json", {"a.png": 1, "b.png": 2})
    (tmp_path / "list.csv").write_text("image,mask\na.png,all.json\nb.png,all.json\n")
    assert widths({"pairs": tmp_path / "list.csv"}) == {"a": 1, "b": 2}
