"""``densevit train --data D`` without further options: what is said, what is chosen, what is refused."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from densevit.training import laptop
from densevit.training.timing import Costs
from tests.e2e.scenes import write_model

SHORT = ("--set", "iterations=5", "--set", "fit.short_side=48", "--set", "features.views=1")


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny default model, a machine of known speed, and a working directory of its own."""
    model = write_model(tmp_path / "default.safetensors", "setr")
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", model)
    each = {"dpt": 0.01, "setr_mla": 0.01}
    costs = Costs(48, 0.01, each, evaluations=each, width=32, patch=(8, 8))
    monkeypatch.setattr(laptop, "measure", lambda *arguments: costs)
    monkeypatch.chdir(tmp_path)


def config_of(run: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((run / "config.yaml").read_text()))


def test_train__needs_nothing_but_data(cli: Any, dataset: Path) -> None:
    result = cli("train", "--data", dataset, *SHORT, "--no-check")
    assert result.code == 0, result.err
    run = Path("runs") / f"{dataset.name}-1"
    assert f"the run goes to {run}; --out names another folder" in result.err
    assert "laptop mode: 10 min 00 s on this machine (--time changes that)" in result.err
    assert "head dpt: " in result.err
    assert "model.safetensors is the model of the best one (select)" in result.err
    assert "a linear probe of the same features has" in result.err
    assert result.out.strip() == str(run / "model.safetensors")
    raw = config_of(run)
    assert (raw["init"], raw["freeze"], raw["iterations"], list(raw["tasks"])) == ("default", "encoder", 5, ["dpt"])

    again = cli("train", "--data", dataset, *SHORT, "--no-check", "--time", "1h")
    assert "laptop mode: 1 h 00 min on this machine" in again.err
    assert (Path("runs") / f"{dataset.name}-2" / "model.safetensors").exists()


def test_resumed_run__is_not_planned_again(
    cli: Any, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert cli("train", "--data", dataset, *SHORT, "--no-check", "--out", "a").code == 0
    before = config_of(Path("a"))

    def timed_again(*arguments: object) -> Costs:
        raise AssertionError("timed again")

    monkeypatch.setattr(laptop, "measure", timed_again)
    result = cli("train", "--resume", "a", "--data", dataset, "--no-check")
    assert result.code == 0, result.err
    assert config_of(Path("a")) == before


@pytest.mark.parametrize(
    ("options", "head"), [(("--freeze", "encoder"), "dpt"), (("--decoder", "setr_mla"), "setr_mla")]
)
def test_plan__needs_neither_decoder_nor_freeze(cli: Any, dataset: Path, options: tuple[str, ...], head: str) -> None:
    result = cli("train", "--data", dataset, *options, *SHORT, "--no-check", "--out", "a")
    assert result.code == 0, result.err
    raw = config_of(Path("a"))
    assert (raw["freeze"], list(raw["tasks"])) == ("encoder", [head])


def test_config__without_a_model_changes_the_plan_and_does_not_cancel_it(cli: Any, dataset: Path) -> None:
    Path("mine.yaml").write_text("ema: 0.5\niterations: 5\nfit: {short_side: 48}\n")
    result = cli("train", "--data", dataset, "--config", "mine.yaml", "--no-check", "--out", "a")
    assert result.code == 0, result.err
    assert "laptop mode: " in result.err
    raw = config_of(Path("a"))
    assert (raw["ema"], raw["iterations"], raw["freeze"]) == (0.5, 5, "encoder")


def test_config__with_a_model_says_that_nothing_is_planned(cli: Any, dataset: Path) -> None:
    assert cli("train", "--data", dataset, *SHORT, "--no-check", "--out", "a").code == 0
    whole = Path("a") / "config.yaml"
    result = cli("train", "--config", whole, "--freeze", "encoder", "--no-check", "--out", "b")
    assert result.code == 0, result.err
    assert f"{whole} sets model, so laptop mode plans nothing" in result.err


@pytest.mark.parametrize(("text", "options"), [("seed: 1", ("--freeze", "1")), ("freeze: encoder", ())])
def test_config__without_a_model_takes_the_encoder_that_ships(
    cli: Any, dataset: Path, text: str, options: tuple[str, ...]
) -> None:
    Path("mine.yaml").write_text(f"{text}\niterations: 1\nfit: {{short_side: 48}}\n")
    given = ("--data", dataset, "--config", "mine.yaml", "--decoder", "segmenter_linear", *options)
    result = cli("train", *given, "--no-check", "--out", "a")
    assert result.code == 0, result.err
    assert ("mine.yaml sets freeze, so laptop mode plans nothing" in result.err) == (not options)
    assert "has a model" not in result.err
    assert config_of(Path("a"))["init"] == "default"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--time", "soon"), "--time is 'soon'; a time from ten seconds on is accepted, such as 90s, 10m or 1h30m"),
        (
            ("--preset", "segmenter-s-mask", "--time", "10m"),
            "--time is for laptop mode, but the steps of this run are set otherwise; leave --time out",
        ),
        (
            ("--resume", "--time", "10m"),
            "--time is for a new run, but --resume continues one as it was planned; leave --time out",
        ),
    ],
)
def test_time__is_refused_where_it_means_nothing(
    cli: Any, dataset: Path, options: tuple[str, ...], message: str
) -> None:
    result = cli("train", "--data", dataset, "--out", "a", *options)
    assert (result.code, result.err.strip()) == (2, f"densevit: {message}")
    assert not os.path.exists("a")  # noqa: PTH110
