import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig, FolderDataset, classes_of
from densevit.data.pairs import Pairs, find_pairs
from densevit.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("photos/a.jpg", "photos/b, c.jpg", "photos/caf\u00e9.jpg", "labels/1.png", "labels/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def found(folder: Path, text: str | bytes, **facts: Any) -> Pairs:
    (folder / "list.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return find_pairs(FolderConfig.parse({"pairs": folder / "list.csv", **facts}))


def refusal(folder: Path, text: str | bytes, **facts: Any) -> str:
    with pytest.raises(DataError) as caught:
        found(folder, text, **facts)
    return str(caught.value)


TABLE = 'image,mask,split\nphotos/a.jpg,labels/1.png,train\n"photos/b, c.jpg",labels/2.png,val\n'


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\r"),
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace('"', "").replace(",", ";").replace("b; c", "b, c"),
        TABLE.replace('"', "").replace(",", "\t").replace("b\t c", "b, c"),
        "mask;Image;split\nlabels/1.png;photos/a.jpg;train\n\n;;\nlabels/2.png;photos/b, c.jpg;val\n",
        "sep=;\n" + TABLE.replace('"', "").replace(",", ";").replace("b; c", "b, c"),
        TABLE.replace("/", "\\"),
        TABLE.replace("\n", ",,\n"),
        TABLE.replace("photos/a", "./photos/a"),
    ],
    ids=[
        "plain",
        "windows",
        "mac",
        "BOM",
        "semicolon",
        "tab",
        "other order",
        "sep",
        "backslashes",
        "empty cells",
        "dot",
    ],
)
def test_table__is_read_as_programs_write_it(folder: Path, text: str | bytes) -> None:
    pairs = found(folder, text)
    assert [(p.name, p.split, p.image, p.targets["masks"]) for p in pairs.pairs] == [
        ("photos/a", "train", folder / "photos/a.jpg", (folder / "labels/1.png",)),
        ("photos/b, c", "val", folder / "photos/b, c.jpg", (folder / "labels/2.png",)),
    ]
    assert (pairs.splits(), pairs.missing) == (["train", "val"], {"masks": []})


def test_table__matches_names_in_either_unicode_form(folder: Path) -> None:
    assert [pair.name for pair in found(folder, "image\nphotos/cafe\u0301.jpg\n").pairs] == ["photos/caf\u00e9"]


def test_table__may_leave_targets_out(folder: Path) -> None:
    pairs = found(folder, "image,mask,depth\nphotos/a.jpg,,labels/1.png\nphotos/b, c.jpg".replace("b, c", "caf\u00e9"))
    assert {kind: len(paths) for kind, paths in pairs.missing.items()} == {"masks": 2, "depth": 1}


def test_table__may_have_absolute_paths_and_those_below_the_root(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    text = f"image,mask\n{folder}/photos/a.jpg,labels/1.png\n"
    pairs = found(tmp_path / "lists", text, root=folder)
    assert [(pair.image, pair.targets["masks"]) for pair in pairs.pairs] == [
        (folder / "photos/a.jpg", (folder / "labels/1.png",))
    ]


@pytest.mark.parametrize("photo", ["photos/a.jpg", "ABSOLUTE"])
def test_table__in_an_archive_names_files_in_it_and_others(folder: Path, photo: str) -> None:
    photo = photo.replace("ABSOLUTE", str(folder / "photos/a.jpg"))
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        archive.writestr("list.csv", f"image,mask\n{photo},labels/1.png\n")
        for name in ("photos/a.jpg", "labels/1.png"):
            archive.write(folder / name, name)
    pairs = find_pairs(FolderConfig.parse({"pairs": folder / "data.zip!" / "list.csv"}))
    expected = Path(photo) if Path(photo).is_absolute() else folder / "data.zip!" / photo
    assert [(pair.image, pair.targets["masks"]) for pair in pairs.pairs] == [
        (expected, (folder / "data.zip!" / "labels/1.png",))
    ]


def test_classes__of_annotations_in_a_table_are_known(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(2)]
    (tmp_path / "all.json").write_text(
        json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "weed"}]})
    )
    for i in range(2):
        (tmp_path / f"{i}.png").touch()
    (tmp_path / "list.csv").write_text("image,mask\n0.png,all.json\n1.png,all.json\n")
    table = classes_of(FolderConfig.parse({"pairs": tmp_path / "list.csv", "background": "soil"}))
    assert table is not None
    assert table.names == ("soil", "weed")


def test_split__of_the_column_is_selected(folder: Path) -> None:
    assert [pair.name for pair in found(folder, TABLE, split="validation").pairs] == ["photos/b, c"]


def test_splits__are_drawn_without_a_column(folder: Path) -> None:
    pairs = found(folder, "image\nphotos/a.jpg\nphotos/caf\u00e9.jpg\n", splits={})
    assert sorted(pair.split for pair in pairs.pairs) == ["train", "val"]


def test_table__may_be_utf_16_as_spreadsheets_write_it(folder: Path) -> None:
    assert found(folder, TABLE.encode("utf-16")).pairs == found(folder, TABLE).pairs


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("image,mask\nphotos/a.jpg,labels/9.png\nphotos/x.jpg,labels/1.png\n",
         "lists 2 files that do not exist below FOLDER, for example labels/9.png (row 2), photos/x.jpg (row 3); "),
        ("photo;mask\n;labels/1.png\n", "has no image in row 2"),
        ("picture,mask\na,b\n", "has the header 'picture,mask', without image; "),
        ("image,mask,note\nphotos/a.jpg,labels/1.png,x\n", "has a column 'note'; known: depth, image, mask"),
        ("image,mask,mask\nphotos/a.jpg,labels/1.png,\n", "has the column mask twice"),
        ("image,mask\nphotos/a.jpg,labels/1.png\nphotos/a.jpg,labels/2.png\n", "a.jpg twice; each photo may"),
        ("image,mask\n", "has no rows below its header"),
        ("", "is empty (0 bytes)"),
        ("image,mask\nphotos/b, c.jpg,labels/2.png\n", "has 3 cells in row 2 but 2 columns; put names that have a"),
        ('image,mask\n"photos/a.jpg,labels/1.png\n', "is not a table ("),
        (b"image,mask\n\x81\xfe\n", "is not UTF-8 text; a CSV table"),
        (f"image,mask\nphotos/a.jpg,{'9' * 9000}\n", "lists 1 files that do not exist"),
    ],
)  # fmt: skip
def test_table__that_is_wrong_is_refused(folder: Path, text: str | bytes, reason: str) -> None:
    assert reason.replace("FOLDER", str(folder)) in refusal(folder, text)


def test_table__of_too_many_rows_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEVIT_LIMITS", "files=1")
    assert "DENSEVIT_LIMITS=files=NUMBER" in refusal(folder, TABLE)


def test_dataset__reads_the_files_of_a_table(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2, 3), 7, np.uint8)).save(tmp_path / "photo.png")
    Image.fromarray(np.full((2, 2), 1, np.uint8)).save(tmp_path / "other.png")
    (tmp_path / "list.csv").write_text("image,mask\nphoto.png,other.png\n")
    sample = FolderDataset(FolderConfig.parse({"pairs": tmp_path / "list.csv", "classes": 2}))[0]
    assert sample.name == "photo"
    assert sample.labels is not None
    assert sample.labels.tolist() == [[1, 1], [1, 1]]


def test_classes__may_be_next_to_the_table(folder: Path) -> None:
    (folder / "classes.json").write_text('{"classes": ["road", "sky"]}')
    found(folder, TABLE)
    table = classes_of(FolderConfig(pairs=folder / "list.csv"))
    assert table is not None
    assert table.names == ("road", "sky")
