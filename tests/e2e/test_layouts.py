"""Every layout and export through the commands, as it comes: recognised, trained on, evaluated, predicted."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from densevit.checkpoints.native import read_header
from densevit.training import laptop
from densevit.training.timing import Costs
from tests.contract import fakes
from tests.e2e.scenes import write_model
from tests.layouts import LAYOUTS, pack

SHORT = ("--set", "iterations=2", "--set", "eval_every=2", "--set", "fit.short_side=24", "--set", "features.views=1")
PLAIN = ("--set", "probe=false", "--set", "pictures=0")


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("weights") / "default.safetensors", "setr")


@pytest.fixture
def small(default: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny default model, a machine of known speed, and a working directory of its own."""
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", default)
    each = {"dpt": 0.01, "setr_mla": 0.01}
    costs = Costs(24, 0.01, each, evaluations=each, width=32, patch=(8, 8))
    monkeypatch.setattr(laptop, "measure", lambda *arguments: costs)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(cli: Any, *arguments: object) -> Mapping[str, Any]:
    done = cli("evaluate", *arguments, "--json", "figures.json", "--overwrite")
    assert done.code == 0, done.err
    return dict(json.loads(Path("figures.json").read_text()))


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layout__goes_through_all_commands(cli: Any, small: Path, name: str, packed: bool) -> None:
    LAYOUTS[name].make(Path("theirs"))
    data = pack(Path("theirs")) if packed else Path("theirs")

    examined = cli("doctor", data, "--write", "data.yaml", "--workers", "0", "--fast")
    assert examined.code == 0, examined.out + examined.err
    described = yaml.safe_load(Path("data.yaml").read_text())
    assert described.get("images") or described["pairs"]

    given = data if packed else "data.yaml"
    trained = cli("train", "--data", given, *SHORT, *PLAIN, "--out", "run")
    assert trained.code == 0, trained.err

    header = read_header(Path("run/model.safetensors"))
    ((head, card),) = header.card.metrics.items()
    data.rename(copy := data.with_name(f"elsewhere{data.suffix}"))
    record = measured(cli, "--model", "run", "--data", copy)
    assert {key: record[key] for key in card} == card
    assert "differs_from_run" not in record

    photo = next(path for path in sorted(Path("elsewhere" if not packed else "theirs").rglob("*")) if is_photo(path))
    annotations = () if LAYOUTS[name].classes is None else ("--annotations", "coco")
    predicted = cli("predict", photo, "--model", "run", "--out", "out", *annotations)
    assert predicted.code == 0, predicted.err
    assert list(Path("out").glob(f"*.{head}.*"))


@pytest.mark.parametrize("kind", ["cityscapes", "kitti"])
def test_public_download__goes_through_all_commands(cli: Any, small: Path, kind: str) -> None:
    getattr(fakes, kind)(Path("theirs"))

    examined = cli("doctor", "theirs", "--write", "data.yaml", "--json", "figures.json")
    assert examined.code == 0, examined.err
    assert "not written: figures.json" in examined.out
    assert "not looked at: the files" in examined.out
    assert yaml.safe_load(Path("data.yaml").read_text())["kind"] == kind
    trained = cli("train", "--data", "data.yaml", *SHORT, *PLAIN, "--out", "run")
    assert trained.code == 0, trained.err

    ((_, card),) = read_header(Path("run/model.safetensors")).card.metrics.items()
    record = measured(cli, "--model", "run", "--data", "theirs")
    assert {key: record[key] for key in card} == card
    assert "differs_from_run" not in record


def is_photo(path: Path) -> bool:
    return path.suffix in {".jpg", ".bmp", ".png", ".ppm", ".tif"} and not path.name.startswith(".")
