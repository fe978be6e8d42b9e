import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from densevit.checkpoints.native import load_bundle, save_bundle
from densevit.data import parse_data
from densevit.encoder.token_merging_rules import TomeMerging
from densevit.errors import ConfigError
from densevit.evaluation.evaluate import evaluate
from densevit.evaluation.figure import Figure
from densevit.evaluation.selection import open_for, spread
from densevit.inference.pipeline import InferenceOptions
from densevit.inference.speed import SpeedConfig, read_speed
from densevit.inference_config import InferenceConfig, Quality
from densevit.tuning.pareto import Budget, Point, choose, describe, pareto_front
from densevit.tuning.plot import pareto_svg
from densevit.tuning.tuner import GridConfig, Tuner, default_grid, preset_text
from tests.e2e.scenes import write_dataset, write_model

MIOU = Figure("mIoU", higher_is_better=True)
MAE = Figure("MAE", higher_is_better=False)


def point(side: int | None, value: float, ms: float, mb: float = 500.0, *, complete: bool = True) -> Point:
    return Point(SpeedConfig(short_side=side), 9, value, (0.70 - value) * 100, ms, mb, complete)


POINTS = [
    point(None, 0.70, 100, 900),
    point(480, 0.695, 80, 800),
    point(400, 0.68, 85, 850),
    point(320, 0.60, 40, 600),
    point(240, 0.71, 10, 100, complete=False),
]


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("20 ms", "time", 20),
        ("1.5s", "time", 1500),
        ("2 GB", "memory", 2000),
        ("800 mb", "memory", 800),
        ("0.5 mIoU", "loss", 0.5),
    ],
)
def test_budget__is_read(text: str, kind: str, amount: float) -> None:
    budget = Budget.parse(text, MIOU)

    assert (budget.kind, budget.amount) == (kind, amount)


def test_budget__of_delta1_is_a_fraction_as_in_quantize() -> None:
    delta1 = Figure("delta1", higher_is_better=True)

    assert Budget.parse("0.005 delta1", delta1) == Budget("loss", 0.005, "0.005 delta1")
    with pytest.raises(ConfigError, match="would accept nearly anything"):
        Budget.parse("0.5 delta1", delta1)
    with pytest.raises(ConfigError, match=r'write for example "20 ms" or "0\.005 delta1"'):
        Budget.parse("0.5 mIoU", delta1)


@pytest.mark.parametrize("text", ["20", "fast", "-5 ms", "0.5 AbsRel", ""])
def test_budget__that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Budget.parse(text, MIOU)

    assert str(caught.value) == (
        f"budget {text!r} is not understood; it is a number and ms, s, MB, GB, or mIoU for what may be lost of it; "
        'write for example "20 ms" or "0.5 mIoU"'
    )


def test_front__has_what_nothing_beats_and_no_incomplete_point() -> None:
    assert [p.speed.short_side for p in pareto_front(POINTS)] == [320, 480, None]


@pytest.mark.parametrize(
    ("budget", "side"), [("90 ms", 480), ("50 ms", 320), ("850 MB", 480), ("0.6 mIoU", 480), ("0 mIoU", None)]
)
def test_choice__is_the_best_within_the_budget(budget: str, side: int | None) -> None:
    assert choose(POINTS, Budget.parse(budget, MIOU), MIOU).speed.short_side == side


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [("20 ms", "'320 px' with 40 ms at mIoU 0.6000"), ("0.1 GB", "'320 px' with 600 MB at mIoU 0.6000")],
)
def test_choice__names_the_nearest_where_nothing_fits(budget: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(POINTS, Budget.parse(budget, MIOU), MIOU)

    assert str(caught.value) == (
        f"no setting keeps to {budget}; the nearest is {nearest}; raise --budget, or widen the grid with --grid"
    )


def test_setting__is_described_by_what_is_on() -> None:
    speed = SpeedConfig(short_side=384, patch_size=24, merging=TomeMerging(share=0.4, first=1), exit_block=7)

    assert describe(speed) == "384 px, patch 24, tome 0.4 first=1, exit 7"
    assert describe(SpeedConfig()) == "as it is"


def test_grid__has_every_combination_once_and_the_plain_model_first() -> None:
    grid = GridConfig(short_side=(None, 32), merging=(None, TomeMerging()), exit_block=(1,))

    settings = grid.settings()

    assert settings[0] == SpeedConfig()
    assert len(settings) == len(set(settings)) == 5


def test_default_grid__is_made_for_the_model(tmp_path: Path) -> None:
    grid = default_grid(load_bundle(write_model(tmp_path / "m.safetensors", "setr")), "setr")

    assert grid.quality == (None,)
    assert (grid.short_side, grid.patch_size, grid.exit_block) == ((None, 40, 32), (None, 12), (None,))
    assert grid.merging == (None, TomeMerging(share=0.35), TomeMerging())


def test_default_grid__has_one_pass_besides_windows(tmp_path: Path) -> None:
    bundle = load_bundle(write_model(tmp_path / "m.safetensors", "setr"))
    one = replace(bundle, fit=InferenceConfig(short_side=48, window=32))
    both = replace(bundle, fit=InferenceConfig(short_side=48, window=32, fast={"setr": 40}))

    def ways(grid: GridConfig) -> tuple[object, ...]:
        return grid.short_side, grid.quality

    assert ways(default_grid(one, "setr")) == ((None, 48, 40, 32), (None,))
    assert ways(default_grid(both, "setr")) == ((None, 32, 24), (None,))
    assert ways(default_grid(both, "setr", "best")) == ((None, 40, 32), (None, "fast"))


@pytest.mark.parametrize(("total", "limit", "indices"), [(10, 3, [0, 3, 6]), (2, 5, [0, 1]), (3, None, [0, 1, 2])])
def test_spread__is_even(total: int, limit: int | None, indices: list[int]) -> None:
    assert spread(total, limit) == indices


def test_spread__needs_a_photo() -> None:
    with pytest.raises(ConfigError) as caught:
        spread(10, 0)

    assert str(caught.value) == "--limit is 0; at least one photo is needed; raise it or leave it out"


@pytest.mark.parametrize("figure", [MIOU, MAE], ids=["higher", "lower"])
@pytest.mark.parametrize("budget", ["90 ms", "2 GB", "loss"])
def test_picture__is_well_formed_and_has_every_point(figure: Figure, budget: str) -> None:
    limits = Budget.parse(budget.replace("loss", f"0.6 {figure.name}"), figure)

    svg = pareto_svg(POINTS, figure, title="a < b & c", budget=limits, chosen=POINTS[1])

    root = ElementTree.fromstring(svg)
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) == len(POINTS) + 1
    places = [float(c.attrib["cy"]) for c in circles[:2]]
    assert (places[0] < places[1]) == figure.higher_is_better


def test_picture__of_one_point_is_drawn_and_its_title_escaped() -> None:
    svg = pareto_svg(POINTS[:1], MIOU, title='"<script>', budget=Budget.parse("1 s", MIOU), chosen=None)

    assert len(re.findall("<circle", svg)) == 1
    assert "&quot;&lt;script&gt;" in svg


def test_preset__can_be_read_back() -> None:
    chosen = Point(SpeedConfig(short_side=32, merging=TomeMerging(share=0.3)), 9, 0.7, 0.1, 5.0, None, True)

    text = preset_text(chosen, MIOU, Budget.parse("20 ms", MIOU), "default")

    import yaml

    assert read_speed(yaml.safe_load(text)) == chosen.speed
    assert text.startswith("# default: 32 px, tome 0.3; chosen for a budget of 20 ms\n# mIoU 0.7000 (loss +0.10), 5 ms")


# The command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("tune") / "data", train=1, val=5)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_model(tmp_path / "m.safetensors", "setr")
    (tmp_path / "grid.yaml").write_text(
        "short_side: [null, 24]\nmerging: [null, {kind: tome, first: 0}]\n", encoding="utf-8"
    )
    return tmp_path


def arguments(place: Path, data: Path, budget: str, *more: object) -> tuple[object, ...]:
    where = ("--data", data, "--split", "val", "--grid", place / "grid.yaml", "--out", place / "speed.yaml")
    return "tune", place / "m.safetensors", *where, "--budget", budget, "--device", "cpu", *more


def test_tune__writes_a_preset_that_predict_and_evaluate_take(cli: Any, place: Path, data: Path) -> None:
    result = cli(*arguments(place, data, "10 s", "--json", place / "points.json", "--threads", 1))

    assert result.code == 0, result.err
    assert "chosen" in result.out
    points = json.loads((place / "points.json").read_text())["points"]
    assert points[0]["photos"] == 5
    assert len(points) == 4
    ElementTree.parse(place / "speed.svg")
    evaluated = cli(
        "evaluate",
        "--model",
        place / "m.safetensors",
        "--data",
        data,
        "--split",
        "val",
        "--speed",
        place / "speed.yaml",
    )
    assert evaluated.code == 0, evaluated.err


def test_tune__figures_are_those_of_evaluate(cli: Any, place: Path, data: Path) -> None:
    cli(*arguments(place, data, "10 s", "--json", place / "points.json"))
    point = json.loads((place / "points.json").read_text())["points"][-1]
    (place / "this.yaml").write_text(json.dumps(point["speed"]), encoding="utf-8")

    cli(
        *("evaluate", "--model", place / "m.safetensors", "--data", data, "--split", "val"),
        *("--speed", place / "this.yaml", "--json", place / "figures.json"),
    )

    figures = json.loads((place / "figures.json").read_text())
    assert point["complete"]
    assert point["value"] == pytest.approx(figures["mIoU"], abs=1e-9)
    assert figures["speed"] == point["speed"]


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_tune__sees_photos_as_the_model_does(cli: Any, place: Path, data: Path, quality: Quality) -> None:
    bundle = load_bundle(place / "m.safetensors")
    fit = InferenceConfig(short_side=48, window=32, flip=True, fast={"setr": 40})
    save_bundle(replace(bundle, fit=fit), place / "m.safetensors")
    (place / "grid.yaml").write_text("quality: [fast, best]\n", encoding="utf-8")
    result = cli(*arguments(place, data, "10 s", "--json", place / "points.json", "--quality", quality))
    points = json.loads((place / "points.json").read_text())["points"]

    figures = evaluate(
        load_bundle(place / "m.safetensors").model.eval(),
        bundle.tasks,
        fit,
        open_for(parse_data({"root": str(data), "split": "val"}), "segmentation"),
        InferenceOptions(quality=quality),
    )

    assert result.code == 0, result.err
    assert points[0]["value"] == pytest.approx(figures["setr"]["mIoU"], abs=1e-9)
    named = [{}, {"quality": "best"}] if quality == "fast" else [{"quality": "best"}, {"quality": "fast"}]
    assert [point["speed"] for point in points] == named
    assert points[0]["value"] != points[1]["value"]


def test_tune__refuses_where_nothing_fits_and_writes_nothing(cli: Any, place: Path, data: Path) -> None:
    result = cli(*arguments(place, data, "0.001 ms"))

    assert result.code == 2
    assert "no setting keeps to 0.001 ms; the nearest is" in result.err
    assert "as it is" in result.out
    assert not (place / "speed.yaml").exists()


def test_tune__prints_what_was_measured_when_interrupted(
    cli: Any, place: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    own = Tuner.predict

    def predict(self: Tuner, candidate: Any, sample: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return own(self, candidate, sample)

    monkeypatch.setattr(Tuner, "predict", predict)
    result = cli(*arguments(place, data, "10 s"))

    assert result.code == 130
    assert "as it is" in result.out


def test_tuner__gives_up_what_is_far_beyond_the_budget(place: Path, data: Path) -> None:
    bundle = load_bundle(place / "m.safetensors")
    dataset = open_for(parse_data({"root": data, "split": "val"}), "segmentation")
    settings = [SpeedConfig(), SpeedConfig(short_side=24), SpeedConfig(short_side=96)]
    tuner = Tuner(bundle, "setr", settings, device=torch.device("cpu"))
    plain = Budget("time", 0.0, "0 ms")

    points = tuner.run(dataset, range(5), plain, lambda done, alive: None)

    assert [p.complete for p in points] == [True, False, False]
    assert [p.photos for p in points] == [5, 3, 3]
