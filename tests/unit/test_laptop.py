"""Laptop mode: what the plan makes of data and time, and that a planned run is a run like any other."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.checkpoints.native import load_bundle
from densevit.config import read_yaml
from densevit.data import FolderConfig, FolderDataset
from densevit.errors import ConfigError
from densevit.evaluation.evaluate import evaluate
from densevit.tasks import parse_task
from densevit.training import laptop
from densevit.training.config import TrainConfig
from densevit.training.hooks import TrainHooks
from densevit.training.laptop import plan
from densevit.training.linear_probe import patch_targets
from densevit.training.resolve_config import complete
from densevit.training.run.log import read_log
from densevit.training.start import parse_time
from densevit.training.survey import survey, thickness
from densevit.training.timing import Costs, measure
from densevit.training.train import train
from tests.e2e.scenes import recipe, write_model
from tests.layouts import LAYOUTS
from tests.unit.runs import same, weights

DATA = {"train": {"split": "train"}, "val": {"split": "val"}}


def costs(encoder_s: float, step_s: float = 0.1) -> Costs:
    """Of a machine that takes so long for an image of 400 tokens."""
    steps = {"dpt": 4 * step_s, "setr_mla": step_s}
    return Costs(400, encoder_s, steps, evaluations=steps, width=768, patch=(16, 16))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.safetensors", "setr")


@pytest.fixture
def given(dataset: Path, model: Path) -> dict[str, Any]:
    sources = [{split: {"root": str(dataset), **place} for split, place in DATA.items()}]
    return {"sources": sources, "init": str(model), "features": {"directory": str(model.parent / "features")}}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how fast this machine is."""

    def set_costs(encoder_s: float, step_s: float = 0.1) -> None:
        monkeypatch.setattr(laptop, "measure", lambda *arguments: costs(encoder_s, step_s))

    set_costs(0.1)
    return set_costs


# Time


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("2 min", 120)]
)
def test_time__is_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "ten", "5s", "-3m", "1e9h", "3m2h"])
def test_time__of_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="a time from ten seconds on is accepted, such as 90s, 10m or 1h30m"):
        parse_time(text)


# The data


@pytest.mark.parametrize(("rows", "columns", "across"), [(40, 3, 3), (3, 40, 3), (20, 20, 20)])
def test_thickness__is_the_smaller_extent(rows: int, columns: int, across: float) -> None:
    region = np.zeros((50, 50), bool)
    region[5 : 5 + rows, 5 : 5 + columns] = True
    assert thickness(region) == across


def test_thickness__of_a_slanted_line_is_its_width() -> None:
    region = np.eye(60, dtype=bool) | np.eye(60, k=1, dtype=bool)
    assert thickness(region) == pytest.approx(2, abs=0.1)


def test_survey__finds_sizes_and_the_thinnest_class(tmp_path: Path) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 10:40] = 1
    labels[:, 60:62] = 2
    for kind, pixels in (("images", np.zeros((60, 80, 3), np.uint8)), ("masks", labels)):
        (tmp_path / kind).mkdir()
        Image.fromarray(pixels).save(tmp_path / kind / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["ground", "square", "line"]}))
    found = survey(FolderDataset(FolderConfig(root=tmp_path)))
    assert (found.count, found.size, found.target, found.thickness) == (1, (60, 80), "labels", 2)


# The plan


def test_plan__gives_more_time_a_larger_input_and_more_steps(given: dict[str, Any], machine: Any) -> None:
    machine(20.0, 0.3)
    short, long = (plan(given, (), seconds).raw for seconds in (60, 600))
    assert short["fit"]["short_side"] < long["fit"]["short_side"]
    assert short["iterations"] < long["iterations"]


def test_plan__adds_dice_for_classes(given: dict[str, Any], machine: Any) -> None:
    machine(0.1, 0.1)
    assert plan(given, (), 600).raw["tasks"]["dpt"]["dice_weight"] == 1


def test_plan__enlarges_photos_with_thin_objects(given: dict[str, Any], machine: Any) -> None:
    assert plan(given, (), 600).raw["fit"]["short_side"] > 48  # the height of the scenes


@pytest.mark.parametrize(("step_s", "head"), [(0.01, "dpt"), (10.0, "setr_mla")])
def test_plan__takes_the_head_that_the_time_allows(
    given: dict[str, Any], machine: Any, step_s: float, head: str
) -> None:
    machine(0.1, step_s)
    assert list(plan(given, (), 600).raw["model"]["heads"]) == [head]


def test_plan__takes_fewer_photos_where_time_is_short(
    given: dict[str, Any], machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laptop, "FEW_PHOTOS", 4)
    machine(1000.0)
    planned = plan(given, ("setr_mla",), 600)
    assert planned.raw["features"]["images"] == 4  # of 6
    assert "4 of 6 training photos are used; a longer --time uses more" in planned.lines


def test_plan__keeps_what_is_given(given: dict[str, Any], machine: Any) -> None:
    given |= {"iterations": 7, "ema": 0.5, "fit": {"short_side": 64}}
    given["features"] |= {"views": 3}
    raw = plan(given, ("setr_mla",), 600).raw
    assert (raw["iterations"], raw["ema"], raw["fit"]["short_side"], raw["features"]["views"]) == (7, 0.5, 64, 3)
    assert list(raw["model"]["heads"]) == ["setr_mla"]


def test_plan__evaluates_at_least_five_times_and_keeps_the_best(given: dict[str, Any], machine: Any) -> None:
    for encoder_s, step_s in ((0.01, 0.001), (20.0, 2.0)):
        machine(encoder_s, step_s)
        raw = plan(given, (), 300).raw
        assert raw["iterations"] // raw["eval_every"] >= 5
        assert (raw["select"], raw["patience"], raw["probe"]) == ("best", 4, True)


def test_plan__without_val_has_nothing_to_select_by(given: dict[str, Any], machine: Any) -> None:
    del given["sources"][0]["val"]
    config = TrainConfig.parse(complete(plan(given, (), 300).raw))
    assert (config.select, config.patience, config.probe) == ("last", None, False)


def test_plan__says_what_every_head_costs(given: dict[str, Any], machine: Any) -> None:
    lines = plan(given, ("setr_mla", "dpt"), 600).lines
    assert [line.split(":")[0] for line in lines if line.startswith("head")] == ["head setr_mla", "head dpt"]
    assert sum("encoding once, for all heads" in line for line in lines) == 1


@pytest.mark.parametrize(("short_side", "thin"), [(16, True), (960, False)])
def test_plan__says_where_objects_are_thinner_than_a_patch(
    given: dict[str, Any], machine: Any, short_side: int, thin: bool
) -> None:
    lines = plan(given | {"fit": {"short_side": short_side}}, ("setr_mla",), 600).lines
    said = [line for line in lines if "--decoder dpt has a branch on the image for them" in line]
    assert bool(said) == thin
    assert all(re.search(r"thinner than a patch \(0\.\d+ of one\)", line) for line in said)


def test_plan__gives_classes_a_branch_on_the_image_and_many_steps_on_crops(
    given: dict[str, Any], machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(laptop, "DETAILED_SIDE", 640)
    machine(0.1, 0.05)
    raw = plan(given, (), 600).raw
    whole = plan(given | {"features": {**given["features"], "crop": [40, 53]}}, (), 600).raw
    assert raw["model"]["heads"]["dpt"]["decoder"]["detail_channels"] > 0
    assert raw["features"]["crop"] == [16, 16]
    assert raw["iterations"] > 1.5 * whole["iterations"]


def test_plan__gives_steps_the_time_that_encoding_leaves(given: dict[str, Any], machine: Any) -> None:
    for encoder_s in (0.01, 1.0):
        machine(encoder_s, 2.0)
        raw = plan(given, ("setr_mla",), 600).raw
        encoded = (6 * raw["features"]["views"] + 3) * costs(encoder_s).encode_s(tuple(raw["augment"]["crop"]))
        learnt = raw["iterations"] * costs(0, 2.0).of(["setr_mla"]).step_s(tuple(raw["augment"]["crop"]), 4)
        assert 0.45 * 600 < encoded + learnt < 0.95 * 600


def test_plan__of_depth_fits_the_range_to_the_data(given: dict[str, Any], machine: Any, dataset: Path) -> None:
    place = {"images": str(dataset / "images" / "train"), "depth": str(dataset / "depth" / "train")}
    given["sources"] = [{"train": place, "val": place}]
    config = TrainConfig.parse(complete(plan(given, (), 300).raw))
    task, head = config.tasks["dpt"].plain(), config.model.heads["dpt"].decoder.plain()["head"]
    assert task["max_depth_m"] == head["max_depth_m"] == 5.3  # the wall is at 5 m


def test_plan__without_data_says_what_is_missing(machine: Any) -> None:
    with pytest.raises(ConfigError, match="there are no data to train on; give --data DIR"):
        plan({}, (), 60)


def test_plan__needs_cached_features(given: dict[str, Any], machine: Any) -> None:
    with pytest.raises(ConfigError, match="features is null, but laptop mode learns from cached features"):
        plan(given | {"features": None}, (), 60)


# The clock


def test_measured_costs__are_of_every_head_and_grow_with_the_size(dataset: Path, model: Path) -> None:
    features = {"directory": str(model.parent)}
    raw = recipe(dataset, "setr", "depth", iterations=1, init=str(model), freeze="encoder", features=features)
    state = torch.random.get_rng_state()
    found = measure(TrainConfig.parse(complete(raw)), (48, 64))
    assert torch.equal(state, torch.random.get_rng_state())
    assert found.heads.keys() == found.evaluations.keys() == {"setr", "depth"}
    assert min(found.encoder_s, *found.heads.values(), *found.evaluations.values()) > 0
    assert found.encode_s((96, 128)) > 4 * found.encode_s((48, 64))  # attention is quadratic
    assert found.step_s((96, 128), 4) == pytest.approx(4 * found.step_s((48, 64), 4))


# The run


class KilledAtTheFourthStep(TrainHooks):
    def before_step(self, iteration: int, batches: object) -> None:
        if iteration == 3:
            raise KeyboardInterrupt


def test_planned_run__is_measured_by_a_probe_and_resumes_to_the_same_bits(
    given: dict[str, Any], machine: Any, tmp_path: Path
) -> None:
    given |= {"iterations": 6, "eval_every": 2, "checkpoint_every": 2, "fit": {"short_side": 48}}
    raw = plan(given, ("setr_mla",), 60).raw
    config = TrainConfig.parse(complete(raw))
    whole = train(config, tmp_path / "whole")
    (probe,) = [row for row in read_log(whole.parent / "log.jsonl") if row["event"] == "probe"]
    assert probe["head"] == "setr_mla"
    assert 0 < probe["mIoU"] <= 1
    assert "a linear probe of the same features" in (whole.parent / "report.html").read_text()

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", hooks=KilledAtTheFourthStep())
    written = TrainConfig.parse(read_yaml(tmp_path / "killed" / "config.yaml"))
    resumed = train(written, tmp_path / "killed", resume=True)
    assert same(weights(whole), weights(resumed))


def test_probe__learns_the_shares_of_classes_in_a_patch() -> None:
    task = parse_task({"kind": "segmentation", "classes": ["a", "b"]})
    target = torch.tensor([[0, 1, 255, 255], [1, 1, 255, 255]])
    shares, known = patch_targets(task, target, (2, 2))
    assert known.tolist() == [True, False]
    assert shares[0].tolist() == [0.25, 0.75]


def test_planned_run__has_the_figures_that_its_model_has_without_the_cache(
    given: dict[str, Any], machine: Any, dataset: Path, tmp_path: Path
) -> None:
    given |= {"iterations": 4, "eval_every": 2, "fit": {"short_side": 48}}
    config = TrainConfig.parse(complete(plan(given, ("setr_mla",), 60).raw))
    bundle = load_bundle(train(config, tmp_path / "run"))
    val = FolderDataset(FolderConfig(root=dataset, split="val"), targets=frozenset({"labels"}))
    measured = evaluate(bundle.model, bundle.tasks, bundle.fit, val)["setr_mla"]
    claimed = bundle.card.metrics["setr_mla"]
    assert {name: claimed[name] for name in ("mIoU", "aAcc", "mAcc")} == {
        name: measured[name] for name in ("mIoU", "aAcc", "mAcc")
    }


@pytest.mark.parametrize(("normals", "channels"), [(True, ["x", "y", "z"]), (False, ["value 1", "value 2", "value 3"])])
def test_plan__of_value_maps_names_their_channels(
    model: Path, machine: Any, tmp_path: Path, normals: bool, channels: list[str]
) -> None:
    LAYOUTS["surface_normals"].make(tmp_path / "data")
    place = {"root": str(tmp_path / "data"), "values": "normals", "normals": normals}
    planned = plan({"init": str(model), "sources": [{"train": place, "val": place}]}, (), 600)
    task = planned.raw["tasks"]["dpt"]
    assert (task["kind"], task["channels"], task["unit_vectors"]) == ("regression", channels, normals)
    assert any("tasks.dpt.channels names them" in line for line in planned.lines)
