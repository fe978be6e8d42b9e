from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import ClassTable, FolderConfig, FolderDataset, classes_of
from densevit.data.labels import LabelRule
from densevit.errors import ConfigError, DataError

GREY = {"class_values": (0, 128, 255), "classes": ("soil", "crop", "weed")}
PALETTE = ((255, 0, 0), (0, 0, 255), (0, 0, 0))


def labels_of(root: Path, mask: NDArray[Any], *, suffix: str = ".png", **facts: Any) -> list[int]:
    """The first row of the labels of a mask that is written to a file."""
    (root / "images").mkdir(exist_ok=True)
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(np.zeros((*mask.shape[:2], 3), np.uint8)).save(root / "images" / "a.png")
    Image.fromarray(mask).save(root / "masks" / f"a{suffix}")
    sample = FolderDataset(FolderConfig.parse({"root": root, **facts}))[0]
    assert sample.labels is not None
    return [int(label) for label in sample.labels[0]]


def row(*values: int) -> NDArray[np.uint8]:
    return np.array([values], np.uint8)


def test_class_values__are_the_numbers_of_the_classes(tmp_path: Path) -> None:
    assert labels_of(tmp_path, row(0, 128, 255), **GREY) == [0, 1, 2]


def test_class_values__name_classes_by_number_where_nothing_else_does(tmp_path: Path) -> None:
    assert labels_of(tmp_path, row(0, 255), class_values=[0, 255]) == [0, 1]
    assert classes_of(FolderConfig(root=tmp_path, class_values=(0, 255))) == ClassTable(("class 0", "class 1"))


def test_stray_values__are_refused_by_default(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png holds 7, which no class of this data set has"):
        labels_of(tmp_path, row(0, 7), **GREY)


def test_stray_values__may_be_of_the_nearest_class(tmp_path: Path) -> None:
    mask = row(1, 63, 64, 65, 127, 190, 191, 192, 254)
    assert labels_of(tmp_path, mask, **GREY, stray_values="nearest") == [0, 0, 0, 1, 1, 1, 1, 2, 2]


def test_stray_values__leave_what_is_ignored(tmp_path: Path) -> None:
    facts = {"class_values": [0, 128], "ignore_values": [7], "stray_values": "nearest"}
    assert labels_of(tmp_path, row(0, 7, 8, 254, 255), **facts) == [0, 255, 0, 1, 255]


def test_stray_values__may_be_of_a_class_that_is_dropped(tmp_path: Path) -> None:
    assert labels_of(tmp_path, row(1, 127, 254), **GREY, stray_values="nearest", drop=["crop"]) == [0, 255, 1]


def test_stray_values__beyond_the_largest_class_are_of_it() -> None:
    rule = LabelRule(ClassTable(("a", "b"), -1), ignore_index=-1, ids={0: 0, 100: 1}, nearest=True)
    assert rule(np.array([[49, 51, 60_000, -1]], np.int32), "m").tolist() == [[0, 1, 1, -1]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_grey_masks__may_be_saved_as_colours(tmp_path: Path, mode: str) -> None:
    assert labels_of(tmp_path, np.asarray(Image.fromarray(row(0, 128, 255)).convert(mode)), **GREY) == [0, 1, 2]


def test_grey_masks__with_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has colours, while class_values are numbers of grey masks; set palette"):
        labels_of(tmp_path, np.array([[[255, 0, 0]]], np.uint8), **GREY)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpegs__of_grey_masks_are_read_with_the_nearest_value(tmp_path: Path, mode: str) -> None:
    stored = np.repeat(np.repeat(row(0, 128, 255), 16, axis=1), 16, axis=0)
    mask = np.asarray(Image.fromarray(stored).convert(mode))
    assert labels_of(tmp_path, mask, suffix=".jpg", **GREY, stray_values="nearest")[::16] == [0, 1, 2]


def test_jpegs__are_no_masks_otherwise(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 1 photos have no mask in"):
        labels_of(tmp_path, row(0, 128), suffix=".jpg", **GREY)


def test_unknown_colours__may_be_of_the_nearest_class(tmp_path: Path) -> None:
    mask = np.array([[(250, 3, 3), (0, 0, 255), (10, 10, 200), (9, 9, 9)]], np.uint8)
    facts = {"palette": PALETTE, "classes": 3, "unknown_colours": "nearest"}
    assert labels_of(tmp_path, mask, **facts) == [0, 1, 1, 2]


def test_unknown_colours__equally_near_are_of_the_first(tmp_path: Path) -> None:
    mask = np.array([[(10, 0, 0)]], np.uint8)
    facts = {"palette": ((20, 0, 0), (0, 0, 0)), "classes": 2, "unknown_colours": "nearest"}
    assert labels_of(tmp_path, mask, **facts) == [0]


def test_jpegs__of_colours_are_read_with_the_nearest_colour(tmp_path: Path) -> None:
    mask = np.repeat(np.repeat(np.array([PALETTE], np.uint8), 16, axis=1), 16, axis=0)
    facts = {"palette": PALETTE, "classes": 3, "unknown_colours": "nearest"}
    assert labels_of(tmp_path, mask, suffix=".jpg", **facts)[8::16] == [0, 1, 2]


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"class_values": [0, 0]}, "a different number for each class"),
        ({"class_values": []}, "a different number for each class"),
        ({"class_values": [-1, 2]}, "numbers of 0 to 65535"),
        ({"class_values": [0, 70_000]}, "numbers of 0 to 65535"),
        ({"class_values": [0, 1], "classes": ["a"]}, "class_values has 2 numbers for 1 classes"),
        ({"class_values": [0, 1], "ignore_values": [1]}, "1 is in class_values and in ignore_values"),
        ({"class_values": [0, 1], "reduce_zero_label": True}, "class_values and reduce_zero_label are both set"),
        ({"class_values": [0, 1], "mask_format": "colour"}, "class_values and mask_format: colour are both set"),
        ({"stray_values": "nearest"}, "stray_values belongs to class_values"),
    ],
)
def test_config__that_contradicts_itself_is_refused(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FolderConfig.parse({"root": ".", **facts})
    assert reason in str(caught.value)


def test_class_values__must_fit_classes_json(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text('{"classes": ["a", "b"]}')
    with pytest.raises(ConfigError, match="class_values has 3 numbers but there are 2 classes, a, b"):
        labels_of(tmp_path, row(0, 128), class_values=[0, 128, 255])
