"""Splits that files list, in the forms in which people write them."""

import json
from pathlib import Path

import pytest

from densevit.data import FolderConfig
from densevit.data.discover import discover
from densevit.data.split_roles import split_names
from tests.layouts import photo, save, truth, write

EXPECTED = {"train": ("0", "1", "2"), "val": ("3", "4"), "test": ("5",)}

LISTS = {
    "text": {"train.txt": "0\n1\n2", "val.txt": "3.png\n4.png", "test.txt": "images/5.png"},
    "columns": {"train.txt": "0 1 1\n1 1 1\n2 2 1", "val.txt": "3 1 1\n4 1 1", "test.txt": "5 1 1"},
    "foreign-paths": {
        "train.txt": "\n".join(f"/home/me/images/{i}.png /home/me/masks/{i}.png" for i in range(3)),
        "val.txt": "C:\\data\\images\\3.png\nC:\\data\\images\\4.png",
        "test.txt": "./images/5.png",
    },
    "tables": {
        "train.csv": "image,mask\nimages/0.png,masks/0.png\nimages/1.png,masks/1.png\nimages/2.png,masks/2.png",
        "valid.csv": "image,mask\nimages/3.png,masks/3.png\nimages/4.png,masks/4.png",
        "test.csv": "image\n5.png",
    },
    "column-of-a-table": {
        "metadata.csv": "id;Split\n"
        + "\n".join(f"{i};{('train', 'val', 'test')[(i + 1) // 4 + (i > 4)]}" for i in range(6))
    },
    "yaml": {"splits.yaml": "train: ['0', '1', '2']\nval: ['3', 4]\ntest: [5.png]"},
    "json": {"split.json": json.dumps({"training": ["0", "1", "2"], "validation": ["3", "4"], "test": ["5"]})},
    "folds": {
        "folds/fold_0_train.txt": "0\n1\n2",
        "folds/fold_0_val.txt": "3\n4",
        "folds/fold_0_test.txt": "5",
        "folds/fold_1_train.txt": "3\n4\n5",
        "folds/fold_1_val.txt": "0",
        "folds/fold_1_test.txt": "1",
    },
    "trainval": {"train.txt": "0\n1\n2", "val.txt": "3\n4", "trainval.txt": "0\n1\n2\n3\n4", "test.txt": "5"},
}


def make(root: Path, files: dict[str, str]) -> None:
    for i in range(6):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"masks/{i}.png", truth(i))
    for name, text in files.items():
        write(root / name, text)


@pytest.mark.parametrize("files", LISTS.values(), ids=LISTS)
def test_discover__reads_lists_of_splits(files: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path, files)

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.splits is not None
    assert found.config.splits.names == EXPECTED
    assert any("fold_1" in remark and "passed over" in remark for remark in found.remarks) == ("fold" in str(files))


@pytest.mark.parametrize("files", [{"trainval.txt": "0\n1\n2\n3\n4", "test.txt": "5"}, {"test.txt": "5"}])
def test_discover__val_is_drawn_where_lists_have_none(files: dict[str, str], tmp_path: Path) -> None:
    make(tmp_path, files)

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.splits is not None
    names = found.config.splits.names
    assert names is not None
    assert names["test"] == ("5",)
    assert (len(names["train"]), len(names["val"])) == (4, 1)
    assert any("there is no val; 20% of train are drawn for it: 1 photo" in remark for remark in found.remarks)


def test_discover__a_list_of_train_only_is_said(tmp_path: Path) -> None:
    make(tmp_path, {"train.txt": "0\n1"})

    assert any("train.txt lists photos of train only" in remark for remark in discover(tmp_path).remarks)


def test_discover__lists_name_photos_with_their_folder(tmp_path: Path) -> None:
    for folder, first in (("cropA", 0), ("cropB", 3)):
        for i in range(3):
            save(tmp_path / folder / f"{i}.jpg", photo(first + i))
            save(tmp_path / folder / f"{i}.png", truth(first + i))
    for split, folder in (("train", "cropA"), ("val", "cropB")):
        write(tmp_path / f"{split}.txt", "\n".join(f"{folder}/{i}.jpg {folder}/{i}.png" for i in range(3)))

    found = discover(tmp_path)

    assert isinstance(found.config, FolderConfig)
    assert found.config.splits is not None
    assert found.config.splits.names == {
        split: tuple(f"{f}/{i}" for i in range(3)) for split, f in (("train", "cropA"), ("val", "cropB"))
    }
    assert split_names(found.config) == ["train", "val"]
