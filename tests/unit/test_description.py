"""dataset.yaml: what the data mean, in one file that all commands use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.data import FolderConfig, parse_data
from densevit.data.base import DataConfig
from densevit.data.description import describe, differences, write_description
from densevit.data.relocation import portable, relocated
from densevit.data.split_roles import training_splits
from densevit.errors import ConfigError, DataError
from tests.contract import fakes
from tests.layouts import photo, save, truth

FULL: dict[str, Any] = {
    "images": "{split}/{name}_image.png",
    "masks": "masks",
    "splits": {"names": {"val": ["a"], "test": ["b", "c"]}},
    "classes": ["wall", "floor"],
    "palette": [[0, 0, 0], [255, 0, 0]],
    "merge": {"all": ["wall", "floor"]},
    "background": "wall",
    "ignore_values": [7],
    "depth_unit_m": 0.01,
    "bands": [3, 2, 1],
}


def described(path: Path, text: str) -> DataConfig:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return describe(path).config


@pytest.mark.parametrize("inside", [True, False])
def test_write__is_read_again_as_an_equal_config(tmp_path: Path, inside: bool) -> None:
    root = tmp_path / "data"
    (root / "masks").mkdir(parents=True)
    config = parse_data({"root": root, **FULL})
    file = (root if inside else tmp_path / "elsewhere") / "dataset.yaml"
    file.parent.mkdir(exist_ok=True)

    write_description(config, file)

    read = describe(file).config
    assert read == config.model_copy(update={"masks": root / "masks"})
    assert (str(tmp_path) in file.read_text()) is not inside
    assert differences(config, read) == []


def test_write__of_folders_without_a_root(tmp_path: Path) -> None:
    config = parse_data({"images": tmp_path / "x" / "photos", "depth": tmp_path / "far"})
    write_description(config, tmp_path / "x.yaml")
    assert describe(tmp_path / "x.yaml").config == config
    assert "root: null\nimages: x/photos\ndepth: far" in (tmp_path / "x.yaml").read_text().replace("'", "")


@pytest.mark.parametrize(
    "facts", [{"kind": "camvid", "drop": ["sky"]}, {"kind": "kitti", "split_file": "lists/train.txt"}], ids=str
)
def test_write__of_a_public_data_set(tmp_path: Path, facts: dict[str, Any]) -> None:
    config = parse_data({"root": tmp_path, **facts})
    if "split_file" in facts:
        config = config.model_copy(update={"split_file": tmp_path / "lists" / "train.txt"})
    write_description(config, tmp_path / "dataset.yaml")
    assert describe(tmp_path).config == config
    assert "split:" not in (tmp_path / "dataset.yaml").read_text()


def test_write__never_replaces_a_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("# mine\n")
    with pytest.raises(DataError, match="densevit did not write what is there now"):
        write_description(parse_data({"root": tmp_path}), tmp_path / "dataset.yaml")
    assert (tmp_path / "dataset.yaml").read_text() == "# mine\n"


def test_describe__takes_the_folder_of_the_file_for_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "photos").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    config = described(Path("data/dataset.yaml"), "images: photos\ndepth: ../z\nmasks: '{task}.png'\ntasks: t.json\n")
    assert isinstance(config, FolderConfig)
    assert (config.root, config.images) == (Path("data"), Path("data/photos"))
    assert (config.depth, config.tasks, config.masks) == (Path("data/../z"), Path("data/t.json"), Path("{task}.png"))
    table = described(Path("data/dataset.yaml"), "pairs: list.csv\n")
    assert isinstance(table, FolderConfig)
    assert (table.root, table.pairs) == (Path("data"), Path("data/list.csv"))


def test_describe__looks_for_plain_folders_below_the_root_first(tmp_path: Path) -> None:
    (tmp_path / "data" / "photos").mkdir(parents=True)
    config = described(tmp_path / "files" / "d.yaml", "root: ../data\nimages: photos\nmasks: labels\n")
    assert isinstance(config, FolderConfig)
    assert config.images == tmp_path / "files" / ".." / "data" / "photos"
    assert config.masks == tmp_path / "files" / "labels"


def test_describe__a_folder_uses_its_own_description_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("background: wall\n")
    found = describe(tmp_path)
    assert found.config == parse_data({"root": tmp_path, "background": "wall"})
    assert found.remarks == (f"described by {tmp_path / 'dataset.yaml'}",)


def test_describe__finds_the_description_in_an_archive(tmp_path: Path) -> None:
    fakes.folder(tmp_path / "set")
    (tmp_path / "set" / "dataset.yaml").write_text("ignore_values: [9]\n")
    archive = fakes.pack(tmp_path / "set", tmp_path / "set.zip")
    config = describe(archive).config
    assert isinstance(config, FolderConfig)
    assert (config.ignore_values, str(config.root)) == ((9,), f"{archive}!")


def test_describe__options_replace_keys_and_a_new_draw_replaces_names(tmp_path: Path) -> None:
    (tmp_path / "dataset.yaml").write_text("splits: {names: {val: [a]}, seed: 4}\nbackground: wall\n")
    config = describe(tmp_path, splits={"by": "^."}, background="sky", classes=None).config
    assert isinstance(config, FolderConfig)
    assert config.splits is not None
    assert (config.splits.names, config.splits.by, config.splits.seed, config.background) == (None, "^.", 4, "sky")


def test_describe__a_public_kind_of_a_root(tmp_path: Path) -> None:
    assert describe(tmp_path, kind="camvid").config == parse_data({"kind": "camvid", "root": tmp_path})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path: .\ntrain: images\nnames: [a, b]\nnc: 2\n", "is not a densevit description: its keys are path, train"),
        ("imges: photos\nmasks: labels\n", "imges: unknown key; did you mean 'images'?"),
        ("kind: camvidd\nroot: .\n", "data set kind 'camvidd' is unknown; did you mean 'camvid'?"),
        ("[1]", "holds list, but a config is a mapping"),
        ("kind: camvid\nbackground: sky\n", "background: unknown key"),
    ],
)
def test_describe__refuses_what_is_no_description(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        described(tmp_path / "data.yaml", text)
    assert problem in str(caught.value)


def test_describe__passes_over_the_file_of_another_program_in_a_folder(tmp_path: Path) -> None:
    fakes.folder(tmp_path)
    (tmp_path / "dataset.yaml").write_text("path: .\ntrain: images\nnames: [a]\n")
    found = describe(tmp_path)
    assert found.remarks[0] == f"{tmp_path / 'dataset.yaml'} is not a densevit description and is passed over"


@pytest.mark.parametrize(
    ("name", "given", "error", "problem"),
    [
        ("none", {}, DataError, "none does not exist; a folder, a zip archive or a dataset.yaml is accepted"),
        ("a.png", {}, DataError, "a.png is a file; a folder, a zip archive or a dataset.yaml is accepted"),
        (None, {"masks": "x"}, ConfigError, "no data was named; give --data PATH, or --images"),
        ("", {"kind": "camvidd"}, ConfigError, "has no root with splits; did you mean 'camvid'?"),
        (
            "",
            {"kind": "cityscapes", "background": "x"},
            ConfigError,
            "the data options: the data set of kind cityscapes",
        ),
        ("d.yaml", {"kind": "cityscapes"}, ConfigError, "has kind 'folder' but --dataset is 'cityscapes'; leave"),
    ],
)
def test_describe__refuses(tmp_path: Path, name: str | None, given: Any, error: type[Exception], problem: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "d.yaml").write_text("root: .\n")
    with pytest.raises(error) as caught:
        describe(None if name is None else tmp_path / name, **given)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({}, {}, []),
        ({}, {"background": "sky"}, ["background is 'sky' instead of none"]),
        ({"ignore_values": [1]}, {}, ["ignore_values is none instead of [1]"]),
        ({}, {"kind": "camvid"}, ["kind is 'camvid' instead of 'folder'"]),
        ({"split": "train"}, {"split": "val"}, []),
        (
            {"splits": {"names": {"val": ["a", "b"]}}},
            {"splits": {"names": {"val": ["b", "c", "d"]}}},
            ["split val has 3 photos instead of 2, 1 of them the same"],
        ),
    ],
)
def test_differences__are_sentences_that_do_not_depend_on_the_place(one: Any, other: Any, said: list[str]) -> None:
    assert differences(parse_data({"root": "here", **one}), parse_data({"root": "there", **other})) == said


@pytest.mark.parametrize(
    "facts",
    [
        {"root": "data", **FULL},
        {"images": "data/photos", "masks": "data/labels"},
        {"root": "data", "masks": "data/labels"},
        {"root": "data.zip", "images": "data.zip!/photos"},
    ],
    ids=str,
)
def test_portable__names_no_folder_of_the_machine_and_fits_another_root(tmp_path: Path, facts: dict[str, Any]) -> None:
    for folder in ("photos", "labels", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    fakes.pack(tmp_path / "data", tmp_path / "data.zip")
    places = {k: str(tmp_path / v) for k, v in facts.items() if k in ("root", "images", "masks") and "data" in str(v)}
    config = parse_data({**facts, **places})

    plain = portable(config)

    assert str(tmp_path) not in json.dumps(plain)
    moved = relocated(plain, Path("/there"))
    assert differences(config, moved) == []
    for name, value in moved:
        if isinstance(value, Path) and "{" not in str(value):
            assert str(value).startswith("/there"), name


def test_training_splits__says_that_it_draws_where_there_are_none(tmp_path: Path) -> None:
    for name in "abcdef":
        fakes.photo(tmp_path / "images" / f"{name}.png")
    train, val, remarks = training_splits(parse_data({"root": tmp_path}))
    assert isinstance(train, FolderConfig)
    assert isinstance(val, FolderConfig)
    assert (train.split, val.split, train.splits) == ("train", "val", val.splits)
    assert val.splits is not None
    assert {*(val.splits.names or ())} == {"val"}
    assert remarks == [
        "no splits: 20% of the photos are drawn for val (seed 0); set splits, or --split-by, to change it"
    ]


@pytest.mark.parametrize(
    ("splits", "found"),
    [
        (("train",), ("train", None)),
        (("Training", "valid"), ("Training", "valid")),
        (("train", "test"), ("train", None)),
    ],
)
def test_training_splits__are_found_by_their_usual_names(tmp_path: Path, splits: Any, found: Any) -> None:
    for split in splits:
        fakes.photo(tmp_path / "images" / split / "a.png")
    train, val, remarks = training_splits(parse_data({"root": tmp_path}))
    assert (getattr(train, "split", None), getattr(val, "split", None)) == found
    assert bool(remarks) is (val is None)


def test_training_splits__without_one_to_train_on_are_refused(tmp_path: Path) -> None:
    for split in ("val", "test"):
        fakes.photo(tmp_path / "images" / split / "a.png")
    with pytest.raises(DataError, match="the data have the splits val, test, and none to train on"):
        training_splits(parse_data({"root": tmp_path}))


@pytest.mark.parametrize("way", ["folders", "pairs"])
def test_masks__without_class_names_are_looked_at(tmp_path: Path, way: str) -> None:
    for number in range(3):
        save(tmp_path / "a" / f"{number}.png", photo(number))
        save(tmp_path / "b" / f"{number}.png", (truth(number) > 0).astype(np.uint8) * 255)
    rows = "".join(f"a/{number}.png,b/{number}.png\n" for number in range(3))
    (tmp_path / "list.csv").write_text(f"image,mask\n{rows}")
    folders: dict[str, Path] = {"images": tmp_path / "a", "masks": tmp_path / "b"}
    given = folders if way == "folders" else {"pairs": tmp_path / "list.csv"}

    found, named, left = (
        describe(None, **given),
        describe(None, **given, classes=2),
        describe(None, number=False, **given),
    )

    assert (found.config.class_values, found.config.classes) == ((0, 255), ("background", "foreground"))
    assert any("0, 255" in remark for remark in found.remarks)
    assert (named.config.classes, left.config.classes) == (2, None)
