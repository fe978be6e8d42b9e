"""``densevit doctor``, and the glance that ``densevit train`` has at its data."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.e2e.commands import Outcome, spawn
from tests.e2e.scenes import CLASSES_JSON, recipe, write_dataset

Cli = Callable[..., Outcome]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")


def shift(root: Path) -> None:
    """Masks that count from 1."""
    for path in root.glob("masks/*/*.png"):
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels == 255, 255, labels + 1).astype(np.uint8)).save(path)


def test_data_without_errors__ends_well(root: Path, cli: Cli) -> None:
    outcome = cli("doctor", root)

    assert outcome.code == 0
    assert "train" in outcome.out
    assert "1 red" in outcome.out
    assert "9 of 9 photos opened" in outcome.out


def test_errors__are_explained_and_give_exit_code_1(root: Path, cli: Cli) -> None:
    shift(root)

    outcome = cli("doctor", root)

    assert outcome.code == 1
    assert "error mask-off-by-one" in outcome.out
    assert "9 masks hold 1 to 4 and never 0, for 4 classes: masks/train/000.png" in outcome.out
    assert "fix: set reduce_zero_label: true (--write-fixed, where it is safe)" in outcome.out
    assert cli("doctor", root, "--reduce-zero-label").code == 0


def test_strict__gives_exit_code_1_for_warnings(root: Path, cli: Cli) -> None:
    shutil.copy(root / "images" / "train" / "000.png", root / "images" / "val" / "100.png")

    assert [cli("doctor", root).code, cli("doctor", root, "--strict").code] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no data was named; give --data PATH, or --images and one of"),
        (("{}/nowhere",), "nowhere does not exist; a folder, a zip archive or a dataset.yaml is accepted"),
        (("{}", "--data", "{}"), "and --data"),
        (("{}", "--dataset", "cityscape"), "has no root with splits; did you mean 'cityscapes'?"),
        (("{}", "--split", "test"), "has no split 'test'; splits found: train, val"),
        (("{}", "--crop", "big"), "--crop got 'big'; HEIGHTxWIDTH in pixels or one side is accepted"),
        (("{}", "--sample", "2", "--write-fixed", "{}-fixed"), "without --sample and --fast"),
    ],
)
def test_mistake__gives_exit_code_2(arguments: tuple[str, ...], message: str, root: Path, cli: Cli) -> None:
    outcome = cli("doctor", *(argument.format(root) for argument in arguments))

    assert (outcome.code, message in outcome.err) == (2, True)


def test_description__is_written_and_taken_again(root: Path, tmp_path: Path, cli: Cli) -> None:
    described = tmp_path / "dataset.yaml"

    outcome = cli("doctor", root, "--write", described)

    assert outcome.code == 0
    assert f"next: densevit train --data {described}" in outcome.out
    assert cli("doctor", described).code == 0


def test_description__of_a_person_is_not_replaced(root: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "dataset.yaml").write_text("mine: 1")

    outcome = cli("doctor", root, "--write", tmp_path / "dataset.yaml")

    assert outcome.code == 2
    assert (tmp_path / "dataset.yaml").read_text() == "mine: 1"


def test_layout__is_shown_before_what_was_not_looked_at(root: Path, tmp_path: Path, cli: Cli) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for kind, suffix in (("images", "photo"), ("masks", "mask")):
        for path in (root / kind / "train").glob("*.png"):
            shutil.copy(path, flat / f"{path.stem}_{suffix}.png")
    (flat / "pose.txt").write_text("1")

    outcome = cli("doctor", flat, "--json", tmp_path / "d.json", "--html", tmp_path / "d.html")

    said = outcome.out + (tmp_path / "d.html").read_text()
    assert outcome.out.startswith("data: 6 photos {name}_photo.png with masks {name}_mask.png")
    assert "not looked at: 1 files: no template matches its name (such as pose.txt)" in outcome.out
    assert "Not looked at" in said
    assert json.loads((tmp_path / "d.json").read_text())["not_looked_at"][0]["files"] == 1


def test_files__are_written(root: Path, tmp_path: Path, cli: Cli) -> None:
    shift(root)

    outcome = cli(
        "doctor", root, "--json", tmp_path / "d.json", "--html", tmp_path / "d.html", "--write-fixed", tmp_path / "new"
    )

    record = json.loads((tmp_path / "d.json").read_text())
    page = (tmp_path / "d.html").read_text()
    assert (record["counts"]["error"], record["findings"][0]["code"]) == (1, "mask-off-by-one")
    assert page.startswith("<!doctype html>")
    assert "fixed: 9 files, mask-off-by-one" in outcome.out
    assert cli("doctor", tmp_path / "new").code == 0


def test_folders__are_checked_with_processes(root: Path) -> None:
    for index in range(80):
        for kind in ("images", "masks"):
            shutil.copy(root / kind / "train" / "000.png", root / kind / "train" / f"more{index}.png")

    outcome = spawn(
        "doctor", "--images", root / "images" / "train", "--masks", root / "masks" / "train",
        "--classes", "wall,red,green,blue", "--workers", "2",
    )  # fmt: skip

    assert (outcome.code, outcome.err.strip()) == (0, "")
    assert "photo-twice" in outcome.out
    assert "86 of 86 photos opened" in outcome.out


# The glance before a run


def train(root: Path, tmp_path: Path, cli: Cli, *options: str) -> Outcome:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(json.loads(json.dumps(recipe(root, "setr", iterations=1)))))
    return cli("train", "--config", config, "--out", tmp_path / "run", *options)


def test_train__stops_before_it_begins(root: Path, tmp_path: Path, cli: Cli) -> None:
    (root / "classes.json").write_text(json.dumps(CLASSES_JSON | {"classes": ["no", "yes"], "to_2": [0, 1]}))
    for path in root.glob("masks/*/*.png"):
        Image.fromarray((np.asarray(Image.open(path)) % 2 * 255).astype(np.uint8)).save(path)

    outcome = train(root, tmp_path, cli)

    assert outcome.code == 2
    assert (
        "densevit: errors in the data, found before the first step: 1\n  mask-0-255: 9 of 9 masks hold" in outcome.err
    )
    assert "train with --no-check" in outcome.err
    assert not (tmp_path / "run").exists()
    assert train(root, tmp_path, cli, "--no-check").code == 0


def test_train__warns_and_goes_on(root: Path, tmp_path: Path, cli: Cli) -> None:
    for kind in ("images", "masks", "depth"):
        shutil.copy(root / kind / "train" / "000.png", root / kind / "val" / "100.png")

    outcome = train(root, tmp_path, cli)

    assert outcome.code == 0
    assert "warning: leak-exact: 1 of 3 photos in val are also in train, with equal files" in outcome.err
