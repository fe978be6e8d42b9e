"""The two ways in which a checkpoint may run photos: whole and once, or with windows and mirror images."""

import dataclasses
import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import densevit
from densevit.checkpoints import shipped
from densevit.checkpoints.hub import DEFAULT
from densevit.checkpoints.native import load_bundle, read_header, save_bundle
from densevit.checkpoints.open import model_facts
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.pipeline import InferenceOptions
from densevit.inference.predictor import Predictor
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference.speed import SpeedConfig, read_speed
from densevit.inference_config import InferenceConfig, Quality
from densevit.tuning.tuner import GridConfig
from tests.e2e.scenes import scene, write_dataset, write_model

BEST = {"short_side": 48, "window": 32, "flip": True}
"""What the checkpoints here say of all heads; at quality fast ``setr`` is run at 40 pixels, whole and once."""
PHOTO = scene(0, (56, 72)).image


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Tiny checkpoints of the same weights and other inference settings."""
    folder = tmp_path_factory.mktemp("weights")
    own = load_bundle(write_model(folder / "own.safetensors", "setr", "depth"))

    def write(name: str, **fit: Any) -> Path:
        path = folder / f"{name}.safetensors"
        if not path.exists():
            save_bundle(dataclasses.replace(own, fit=InferenceConfig.parse(fit)), path)
        return path

    return write


@pytest.fixture
def both(weights: Callable[..., Path]) -> Path:
    """A checkpoint that knows two ways for one of its heads."""
    return weights("both", **BEST, fast={"setr": 40})


@pytest.fixture
def one(weights: Callable[..., Path]) -> Path:
    """A checkpoint as they were before there were two ways."""
    return weights("one", **BEST)


def logits(model: Path | Predictor, head: str = "setr", **options: Any) -> np.ndarray:
    predictor = model if isinstance(model, Predictor) else densevit.load(model, device="cpu")
    return np.asarray(predictor.predict(PHOTO, **options)[head].logits)


def test_fast__is_the_default_and_runs_a_head_whole_and_once(weights: Callable[..., Path], both: Path) -> None:
    whole = logits(weights("whole", short_side=40))

    assert (logits(both) == whole).all()
    assert (logits(densevit.load(both, device="cpu", quality="fast")) == whole).all()


def test_best__is_what_the_checkpoint_says_otherwise(both: Path, one: Path) -> None:
    best = logits(one)

    assert (logits(densevit.load(both, device="cpu", quality="best")) == best).all()
    assert logits(both).shape != best.shape


def test_head_without_a_fast_way__is_run_in_its_one_way(both: Path, one: Path) -> None:
    assert (logits(both, "depth") == logits(one, "depth")).all()


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_checkpoint_without_fast__gives_the_same_at_both(one: Path, quality: Quality) -> None:
    assert (logits(densevit.load(one, device="cpu", quality=quality)) == logits(one)).all()


def test_fast__is_said_to_be_no_faster_where_it_is_asked_for_in_vain(
    one: Path, both: Path, weights: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for silent in (both, one, weights("whole", short_side=40)):
            densevit.load(silent, heads=["setr"], device="cpu", quality=None if silent == one else "fast")
        assert not caplog.messages
        densevit.load(one, device="cpu", quality="fast")

    assert caplog.messages == [
        "quality fast: the checkpoint has no size for fast runs of setr, depth (fit.fast), so it is run with windows "
        "or mirror images as at quality best; --speed short_side=32 runs photos whole, once"
    ]


def test_predict__takes_another_quality_for_one_photo(both: Path, one: Path) -> None:
    model = densevit.load(both, device="cpu")

    assert (logits(model, quality="best") == logits(one)).all()
    (many,) = model.predict_many([PHOTO], quality="best")
    assert (np.asarray(many["setr"].logits) == logits(one)).all()
    (many,) = model.predict_many([PHOTO])
    assert (np.asarray(many["setr"].logits) == logits(both)).all()


@pytest.mark.parametrize("views", [{"flip": True}, {"scales": (1.0, 1.5)}], ids=str)
def test_views__are_laid_over_the_quality(weights: Callable[..., Path], both: Path, views: dict[str, Any]) -> None:
    assert (logits(both, **views) == logits(weights("whole", short_side=40), **views)).all()


@pytest.mark.parametrize(
    "options", [{"windows": SlidingWindow()}, {"windows": SlidingWindow(window=24)}, {"protocol": "mmseg"}], ids=str
)
def test_windows_and_protocols__replace_the_quality(both: Path, one: Path, options: dict[str, Any]) -> None:
    fast, best = (densevit.load(both, heads=["setr"], device="cpu", quality=q) for q in ("fast", "best"))

    assert (logits(fast, **options) == logits(best, **options)).all()
    assert (logits(fast, **options) == logits(one, **options)).all()


def test_another_size__is_whole_at_any_quality(weights: Callable[..., Path], both: Path) -> None:
    smaller = densevit.load(both, device="cpu", speed={"short_side": 24})

    assert (logits(smaller) == logits(weights("smaller", short_side=24))).all()
    with pytest.raises(ConfigError) as caught:
        densevit.load(both, device="cpu", speed={"short_side": 24}, quality="best")
    assert str(caught.value) == (
        "quality best runs windows and mirror images, but short_side 24 runs images whole, once; leave one of them out"
    )


def test_evaluate__measures_the_quality_that_is_asked_for(
    both: Path, weights: Callable[..., Path], one: Path, tmp_path: Path
) -> None:
    data = write_dataset(tmp_path / "data", train=0, val=2)
    facts: dict[str, Any] = {"split": "val", "heads": "setr", "device": "cpu"}
    best = densevit.evaluate(one, data, **facts)
    whole = densevit.evaluate(weights("whole", short_side=40), data, **facts)

    assert best != whole
    assert densevit.evaluate(both, data, **facts) == whole
    assert densevit.evaluate(both, data, **facts, options=InferenceOptions()) == whole
    assert densevit.evaluate(both, data, **facts, quality="best") == best
    assert densevit.evaluate(both, data, **facts, options=InferenceOptions(quality="best")) == best
    loaded = densevit.load(both, device="cpu", quality="best")
    assert densevit.evaluate(loaded, data, **facts) == best
    assert densevit.evaluate(loaded, data, **facts, options=InferenceOptions()) == best
    assert densevit.evaluate(loaded, data, **facts, quality="fast") == whole


def test_quality__that_does_not_exist_is_refused(both: Path) -> None:
    with pytest.raises(ConfigError, match=r"^there is no quality 'high'; known: best, fast$"):
        densevit.load(both, quality="high")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"quality: Input should be 'fast' or 'best' \(got 'high'\)"):
        densevit.load(both).predict(PHOTO, quality="high")  # type: ignore[arg-type]


# In files


def test_file__with_two_ways_is_of_format_3_and_keeps_both(both: Path, one: Path, tmp_path: Path) -> None:
    again = densevit.load(both, device="cpu").save(tmp_path / "again.safetensors")

    assert [read_header(path).format for path in (one, both, again)] == [1, 3, 3]
    assert read_header(again).fit == read_header(both).fit
    assert read_header(both).fit.plain()["fast"] == {"setr": 40}
    assert "fast" not in read_header(one).fit.plain()


def test_fit__refuses_a_fast_size_of_a_head_that_is_not_there(one: Path) -> None:
    bundle = load_bundle(one)
    with pytest.raises(ConfigError, match=r"fit\.fast names 'sert'; did you mean 'setr'"):
        dataclasses.replace(bundle, fit=InferenceConfig(fast={"sert": 40}))


@pytest.mark.parametrize("side", [0, -1, "large", 10**9])
def test_fit__refuses_a_fast_size_that_is_none(side: object) -> None:
    with pytest.raises(ConfigError, match=r"fast\.setr"):
        InferenceConfig.parse({"fast": {"setr": side}})


@pytest.mark.parametrize("given", [{"whole": True}, ["whole=true"], {"whole": False}, "FILE"])
def test_whole__is_refused_with_what_replaces_it(given: Any, tmp_path: Path) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text("# default: whole; chosen for a budget of 900 ms\nwhole: true\n", encoding="utf-8")
    owner, advice = (str(file), "remove the line") if given == "FILE" else ("speed", "remove whole")

    with pytest.raises(ConfigError) as caught:
        read_speed([str(file)] if given == "FILE" else given)

    assert str(caught.value) == (
        f"{owner} has the key whole, which no longer exists; --quality fast, the default, runs each head on the whole "
        f"photo, once, at the size that the checkpoint has for that; {advice}"
    )


def test_whole__is_refused_in_a_grid() -> None:
    with pytest.raises(ConfigError, match=r"^the grid has the key whole, .*; write quality: \[best, fast\] to compare"):
        GridConfig.parse({"whole": [False, True]})


# The command line


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    Image.fromarray(np.asarray(PHOTO)).save(tmp_path / "in" / "a.png")
    return tmp_path


def test_records__say_the_quality_where_it_has_a_say(cli: Any, both: Path, place: Path) -> None:
    def record(*options: object) -> dict[str, Any]:
        given = ("--model", both, "--head", "setr", *options, "--overwrite")
        result = cli("predict", place / "in", "--out", place / "out", *given)
        assert result.code == 0, result.err
        data: dict[str, Any] = json.loads((place / "out" / "a.json").read_text())
        return {key: data.get(key) for key in ("quality", "speed")}

    assert record() == {"quality": "fast", "speed": None}
    assert record("--quality", "best") == {"quality": "best", "speed": None}
    assert record("--speed", "quality=best") == {"quality": "best", "speed": None}
    assert record("--speed", "quality=best", "--quality", "fast") == {"quality": "fast", "speed": None}
    assert record("--window", 32) == {"quality": None, "speed": None}
    assert record("--protocol", "mmseg") == {"quality": None, "speed": None}


def test_resume__takes_results_of_the_same_quality_only(cli: Any, both: Path, one: Path, place: Path) -> None:
    def predicted(model: Path, *options: object) -> bool:
        result = cli("predict", place / "in", "--out", place / model.stem, "--model", model, "--resume", *options)
        assert result.code == 0, result.err
        return "1 predicted, 0 skipped" in result.err

    assert [predicted(both), predicted(both), predicted(both, "--quality", "best")] == [True, False, True]
    assert [predicted(both, "--quality", "best"), predicted(both)] == [False, True]
    # Where there is one way, results are equal at both, and so are those of versions that had no quality.
    assert [predicted(one), predicted(one, "--quality", "best")] == [True, False]
    record = place / "one" / "a.json"
    data = json.loads(record.read_text())
    del data["quality"]
    record.write_text(json.dumps(data))
    assert not predicted(one)


def test_evaluate__says_which_quality_was_measured(cli: Any, both: Path, one: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", train=0, val=1)

    def measure(model: Path, *options: object) -> tuple[str, str | None]:
        report = tmp_path / "report.json"
        given = ("--data", data, "--split", "val", "--head", "setr", *options, "--json", report, "--overwrite")
        result = cli("evaluate", "--model", model, *given)
        assert result.code == 0, result.err
        (shown,) = re.findall(r"quality\W+(\w[\w =]*\w)", result.out) or ("",)
        return shown, json.loads(report.read_text()).get("quality")

    assert measure(both) == ("fast", "fast")
    assert measure(both, "--quality", "best") == ("best", "best")
    assert measure(both, "--window", 32) == ("", None)
    assert measure(one) == ("fast = best", "fast")


@pytest.mark.parametrize("options", [("--quality", "high"), ("--speed", "whole=true")], ids=str)
def test_command__refuses_with_a_sentence(cli: Any, both: Path, place: Path, options: tuple[str, ...]) -> None:
    result = cli("predict", place / "in", "--out", place / "out", "--model", both, *options)

    assert result.code == 2
    assert ("there is no quality 'high'" in result.err) or ("--quality fast" in result.err)
    assert not (place / "out").exists()


# The model that ships


def test_shipped_model__has_a_fast_way_under_whatever_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    shutil.copy(DEFAULT, copy)

    fast = {"streets": 480, "rooms": 352, "depth": 240}
    assert read_header(DEFAULT).fit.fast == read_header(copy).fit.fast == model_facts("default").fit.fast == fast
    assert [way.single_pass for way, _ in read_header(DEFAULT).fit.at_quality("fast").groups(fast)] == [True] * 3
    assert read_header(DEFAULT).fit.for_head("streets") == InferenceConfig(short_side=720, window=480)


def test_shipped_model__needs_the_file_next_to_its_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "ADDITIONS", tmp_path / "default.json")

    with pytest.raises(CheckpointError, match=r"default\.json, which belongs to it, cannot be read: No such file"):
        read_header(DEFAULT)


def test_settings__of_the_default_quality_have_one_form() -> None:
    grid = GridConfig.parse({"quality": ["best", "fast", None], "short_side": [None, 24]})

    assert grid.settings() == [SpeedConfig(), SpeedConfig(quality="best"), SpeedConfig(short_side=24)]
    assert grid.settings("best") == [
        SpeedConfig(quality="best"),
        SpeedConfig(quality="fast"),
        SpeedConfig(short_side=24),
    ]
