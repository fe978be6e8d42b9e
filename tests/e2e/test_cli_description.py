"""Three commands on data as they come: ``train``, ``evaluate`` and ``tune`` understand them in the same way."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from densevit.checkpoints.native import read_header
from tests.contract import fakes
from tests.e2e.runs import write_run


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Photos and masks of three classes in one folder, told apart by their suffixes, two of each plate."""
    for number in range(8):
        stem = tmp_path / "cells" / f"plate{number // 2}_{number}"
        fakes.photo(Path(f"{stem}_image.png"), number)
        fakes.save(fakes.stored(0, 3, number), Path(f"{stem}_mask.png"))
    return tmp_path / "cells"


@pytest.fixture
def run(cli, cells: Path, tmp_path: Path) -> Path:
    """A run on them with groups, described by options."""
    config = write_run(tmp_path / "run.yaml", None, pictures=0)
    options = ("--split-by", r"plate\d", "--classes", "a,b,c", "--set", "sources.0.batch_size=2")
    done = cli("train", "--config", config, "--data", cells, *options, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "data: 8 photos" in done.err
    return tmp_path / "out"


def measured(cli, out: Path, *arguments: object) -> tuple[dict[str, Any], str]:
    done = cli("evaluate", *arguments, "--json", out)
    assert done.code == 0, done.err
    return json.loads(out.read_text()), done.err


def test_train__keeps_what_the_options_say(run: Path, cells: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())["sources"][0]
    described = yaml.safe_load((run / "dataset.yaml").read_text())
    (data,) = read_header(run / "model.safetensors").trained_on
    names = described["splits"]["names"]["val"]

    assert {re.search(r"plate\d", name)[0] for name in names} & {  # type: ignore[index]
        re.search(r"plate\d", path.name)[0]  # type: ignore[index]
        for path in cells.glob("*_image.png")
        if path.name.removesuffix("_image.png") not in names
    } == set()
    assert config["val"]["splits"]["names"]["val"] == names == data.train["splits"]["names"]["val"]
    assert (described["root"], data.train["root"], data.val) == (str(cells), "cells", {"split": "val"})
    assert described["classes"] == ["a", "b", "c"]


def test_evaluate__needs_no_option_to_repeat_the_figures_of_a_run(cli, run: Path, cells: Path, tmp_path: Path) -> None:
    card = read_header(run / "model.safetensors").card.metrics["main"]
    for arguments in (("--model", run), ("--model", run / "best.safetensors", "--data", cells)):
        record, _ = measured(cli, tmp_path / "figures.json", *arguments)
        assert {key: record[key] for key in card} == card
        assert (record["data"], record["split"], "differs_from_run" in record) == (str(cells), "val", False)


def test_evaluate__says_what_differs(cli, run: Path, cells: Path, tmp_path: Path) -> None:
    options = ("--model", run, "--data", cells, "--classes", "a,b,c", "--split", "train")
    record, err = measured(cli, tmp_path / "figures.json", *options)
    assert record["differs_from_run"] == ["split is 'train' instead of 'val'"]
    assert "data: not as in the model's run: split is 'train' instead of 'val'" in err


def test_tune__measures_on_the_data_of_the_run(cli, run: Path, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("short_side: [null]\n")
    files = ("--grid", tmp_path / "grid.yaml", "--out", tmp_path / "fast.yaml", "--json", tmp_path / "points.json")
    done = cli("tune", run / "model.safetensors", "--budget", "50 mIoU", *files)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "points.json").read_text())
    names = read_header(run / "model.safetensors").trained_on[0].train["splits"]["names"]["val"]
    assert (record["split"], record["points"][0]["photos"]) == ("val", len(names))


def test_train__resumes_from_another_directory(cli, cells: Path, tmp_path: Path, monkeypatch) -> None:
    config = write_run(tmp_path / "run.yaml", None, pictures=0, checkpoint_every=1)
    monkeypatch.chdir(tmp_path)
    options = ("--set", "sources.0.batch_size=2", "--set", "iterations=1")
    done = cli("train", "--config", config, "--data", cells.name, *options, "--out", "out")
    assert done.code == 0, done.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = cli("train", "--resume", tmp_path / "out", "--set", "iterations=2")
    assert again.code == 0, again.err


def test_train__takes_folders_and_a_list_of_pairs(cli, tmp_path: Path) -> None:
    rows = ["image,mask,split"]
    for number in range(4):
        fakes.photo(tmp_path / "x" / f"{number}.png", number)
        fakes.save(fakes.stored(0, 3, number), tmp_path / "y" / f"{number}.png")
        rows.append(f"x/{number}.png,y/{number}.png,{'val' if number > 2 else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    config = write_run(tmp_path / "run.yaml", None, pictures=0)
    ways = {
        "folders": ("--images", tmp_path / "x", "--masks", tmp_path / "y"),
        "pairs": ("--pairs", tmp_path / "list.csv"),
    }
    for name, way in ways.items():
        options = ("--classes", "3", "--set", "sources.0.batch_size=1", "--out", tmp_path / name)
        done = cli("train", "--config", config, *way, *options)
        assert done.code == 0, done.err
        card = read_header(tmp_path / name / "model.safetensors").card.metrics["main"]
        record, _ = measured(cli, tmp_path / "figures.json", "--model", tmp_path / name)
        assert {key: record[key] for key in card} == card


def test_classes__of_a_file_bring_their_colours(cli, tmp_path: Path) -> None:
    colours = np.array([(9, 0, 0), (0, 9, 0), (0, 0, 9)], np.uint8)
    for split in ("train", "val"):
        fakes.photo(tmp_path / "data" / "images" / split / "a.png")
        mask = fakes.stored(0, 3)
        mask[0, 0] = 0
        fakes.save(colours[mask], tmp_path / "data" / "masks" / split / "a.png")
    listed = {"classes": ["a", "b", "c"], "palette": colours.tolist()}
    (tmp_path / "names.json").write_text(json.dumps(listed))
    config = write_run(tmp_path / "run.yaml", None, pictures=0)
    options = ("--classes", tmp_path / "names.json", "--set", "sources.0.batch_size=1", "--out", tmp_path / "out")
    done = cli("train", "--config", config, "--data", tmp_path / "data", *options)
    assert done.code == 0, done.err
    assert read_header(tmp_path / "out" / "model.safetensors").tasks["main"].palette == tuple(
        map(tuple, listed["palette"])
    )
