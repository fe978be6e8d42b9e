from pathlib import Path

import pytest

from densevit.data import ClassTable
from densevit.data.coco import read_coco
from densevit.data.coco_rows import photo_names, unused_roots
from densevit.errors import DataError
from tests.layouts import coco, write


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("a.jpg", "a.jpg"),
        ("train/a.jpg", "a.jpg"),
        ("images\\a.jpg", "a.jpg"),
        ("images/my%20photo.jpg", "my photo.jpg"),
        ("images/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/upload/3/0a1b2c3d-a%20b.jpg", "a b.jpg"),
        ("/data/local-files/?d=set/a%20b.jpg", "a b.jpg"),
        ("https://host.org/photos/a.jpg?key=1", "a.jpg"),
        ("cafe\u0301.jpg", "caf\u00e9.jpg"),
    ],
)
def test_photo_names__as_programs_write_them(entry: str, name: str) -> None:
    assert name in photo_names(entry)


def test_photo_names__begin_with_what_is_written() -> None:
    assert next(photo_names("deadbeef-1.png")) == "deadbeef-1.png"


def test_unused_roots__are_named_by_others_and_have_no_annotation() -> None:
    categories = [
        {"id": 0, "name": "things", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "things"},
        {"id": 2, "name": "animal", "supercategory": "things"},
        {"id": 3, "name": "dog", "supercategory": "animal"},
        {"id": 4, "name": "alone", "supercategory": "alone"},
    ]
    data = {"categories": categories, "annotations": [{"category_id": 2}]}

    assert unused_roots(data) == ["things"]


def test_read_coco__root_needs_no_class(tmp_path: Path) -> None:
    write(tmp_path / "a.json", coco({0: "a.jpg"}, root=True))

    masks = read_coco(tmp_path / "a.json", ClassTable(("background", "cell", "nucleus")), "background")

    assert masks.classes.names == ("background", "cell", "nucleus")
    assert masks.photos["a.jpg"].shapes[0].index == 1
    with pytest.raises(DataError, match="categories that the classes lack: nucleus"):
        read_coco(tmp_path / "a.json", ClassTable(("background", "cell")), "background")
