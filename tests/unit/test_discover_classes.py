"""Classes that files list next to masks, in the forms in which people and tools write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.data import FolderConfig, FolderDataset
from densevit.data.discover import discover
from densevit.errors import DataError
from tests.layouts import COLOURS, photo, save, truth

PALETTE: dict[str, Any] = {"classes": ("Äcker", "b", "c d"), "palette": ((0, 0, 0), (255, 0, 0), (0, 0, 255))}
NUMBERS: dict[str, Any] = {"classes": ("Äcker", "b", "c d")}
ROAD: dict[str, Any] = {"classes": ("road", "other"), "class_values": (255, 0)}
GREY = np.array([0, 255, 255], np.uint8)

LISTS: dict[str, tuple[str, bytes, Any, dict[str, Any]]] = {
    "camvid": ("label_colors.txt", "0 0 0\tÄcker\n255 0 0\t\tb\n0 0 255 c d".encode(), COLOURS, PALETTE),
    "colours-after-names": ("colors.txt", "Äcker: 0, 0, 0\nb: 255, 0, 0\nc d: (0, 0, 255)".encode(), COLOURS, PALETTE),
    "no-header": ("classes.csv", "Äcker,0,0,0\nb,255,0,0\nc d,0,0,255".encode(), COLOURS, PALETTE),
    "utf-16": ("classes.csv", "name;r;g;b\nÄcker;0;0;0\nb;255;0;0\nc d;0;0;255".encode("utf-16"), COLOURS, PALETTE),
    "cp1252": ("classes.csv", "name;r;g;b\nÄcker;0;0;0\nb;255;0;0\nc d;0;0;255".encode("cp1252"), COLOURS, PALETTE),
    "json-colours": (
        "colors.json",
        b'{"\\u00c4cker": [0, 0, 0], "b": [255, 0, 0], "c d": [0, 0, 255]}',
        COLOURS,
        PALETTE,
    ),
    "json-numbers": ("label_map.json", b'{"b": 1, "c d": 2, "\\u00c4cker": 0}', np.arange(3, dtype=np.uint8), NUMBERS),
    "json-rows": (
        "classes_map.json",
        '[{"id": 0, "name": "Äcker"}, {"id": 1, "name": "b"}, {"id": 2, "name": "c d"}]'.encode(),
        np.arange(3, dtype=np.uint8),
        NUMBERS,
    ),
    "ids": ("classes.csv", "id,name\n2,c d\n0,Äcker\n1,b".encode(), np.arange(3, dtype=np.uint8), NUMBERS),
    "numbered-lines": ("labels.txt", "0 Äcker\n1: b\n2 c d".encode(), np.arange(3, dtype=np.uint8), NUMBERS),
    "greys": ("class_dict.csv", b"name,r,g,b\nroad,255,255,255\nother,0,0,0", GREY, ROAD),
    "greys-as-rgb": ("class_dict.csv", b"name,r,g,b\nroad,255,255,255\nother,0,0,0", GREY[:, None].repeat(3, 1), ROAD),
    "binary": ("classes.txt", b"a\nb", GREY, {"classes": ("a", "b"), "class_values": (0, 255)}),
    "only-foreground": ("classes.txt", b"b", GREY, {"classes": ("background", "b"), "class_values": (0, 255)}),
}


def make(root: Path, table: Any) -> None:
    for i in range(4):
        save(root / f"images/{i}.png", photo(i))
        save(root / f"masks/{i}.png", table[truth(i)])


@pytest.mark.parametrize(("name", "text", "table", "expected"), LISTS.values(), ids=LISTS)
def test_discover__reads_lists_of_classes(
    name: str, text: bytes, table: Any, expected: dict[str, Any], tmp_path: Path
) -> None:
    make(tmp_path, table)
    (tmp_path / name).write_bytes(text)

    config = discover(tmp_path).config

    assert isinstance(config, FolderConfig)
    assert {key: getattr(config, key) for key in expected} == expected
    labels = FolderDataset(config.model_copy(update={"splits": None}))[1].labels
    assert labels is not None
    assert {*np.unique(labels)} == {*range(len({str(value) for value in table}))}


def test_discover__a_list_that_is_no_text_is_said(tmp_path: Path) -> None:
    make(tmp_path, COLOURS)
    (tmp_path / "classes.csv").write_bytes(b"name,r,g,b\n\x81\x8d,0,0,0")

    remarks = "\n".join(discover(tmp_path).remarks)

    assert "a list of classes is passed over" in remarks
    assert "save it as CSV in UTF-8" in remarks


def test_discover__two_values_for_three_classes_are_refused(tmp_path: Path) -> None:
    make(tmp_path, GREY)
    (tmp_path / "classes.txt").write_text("a\nb\nc")

    with pytest.raises(DataError, match="lists 3 classes, but masks"):
        discover(tmp_path)
