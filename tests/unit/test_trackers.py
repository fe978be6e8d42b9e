"""Trackers: what they are told, that nothing is told twice, and that none of them can stop a run."""

import logging
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from densevit.errors import ConfigError
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.run.recorder import RunRecorder
from densevit.training.run.trackers import TRACKERS, RunFacts, Trackers
from densevit.training.train import train
from tests.e2e.scenes import recipe

PICTURE = np.zeros((8, 12, 3), np.uint8)


def facts(out: Path, start: int = 0) -> RunFacts:
    return RunFacts(out, "birds", "mine-abc", "abc", {"seed": 1}, start)


def open_trackers(out: Path, *names: str, tracked: dict[str, int] | None = None) -> Trackers:
    return Trackers(names, facts(out), tracked=tracked or {}, kept={})


def make_config(dataset: Path, **facts: Any) -> TrainConfig:
    return TrainConfig.parse(complete(recipe(dataset, "coarse", **{"iterations": 4, **facts})))


class Recorder(types.ModuleType):
    """A module whose every function notes its calls, and gives an object that does so too."""

    def __init__(self, name: str, calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> None:
        super().__init__(name)
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((f"{self.__name__}.{name}", args, kwargs))
            return [] if name == "search_runs" else Recorder(self.__name__, self.calls)

        return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a recording module in the place of a package."""

    def install(name: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        monkeypatch.setitem(sys.modules, name, Recorder(name, calls))
        return calls

    return install


# Adapters


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("wandb", ("wandb.log", ({"lr": 0.1},), {"step": 3})),
        ("mlflow", ("mlflow.log_metrics", ({"lr": 0.1},), {"step": 3})),
        ("trackio", ("trackio.log", ({"lr": 0.1},), {"step": 3})),
    ],
)
def test_adapter__hands_on_numbers_pictures_and_the_end(
    fake: Any, tmp_path: Path, name: str, logged: tuple[str, tuple[Any, ...], dict[str, Any]]
) -> None:
    calls = fake(name)
    trackers = open_trackers(tmp_path, name)
    opened = len(calls)
    trackers.numbers("step", 3, {"lr": 0.1})
    trackers.picture(3, "labels/1 a photo", PICTURE)
    trackers.close(finished=True)
    assert opened > 0
    assert calls[opened] == logged
    assert len(calls) >= opened + 3


def test_wandb__takes_up_the_same_run(fake: Any, tmp_path: Path) -> None:
    calls = fake("wandb")
    open_trackers(tmp_path, "wandb")
    assert calls[0][0] == "wandb.init"
    assert calls[0][2]["id"] == "abc"
    assert calls[0][2]["resume"] == "allow"
    assert calls[0][2]["project"] == "birds"


def test_wandb__is_told_that_a_run_broke_off(fake: Any, tmp_path: Path) -> None:
    calls = fake("wandb")
    open_trackers(tmp_path, "wandb").close(finished=False)
    assert calls[-1] == ("wandb.finish", (), {"exit_code": 1})


def test_mlflow__gets_names_that_it_takes(fake: Any, tmp_path: Path) -> None:
    calls = fake("mlflow")
    trackers = open_trackers(tmp_path, "mlflow")
    trackers.numbers("eval", 1, {"fläche/IoU (%)": 0.5})
    assert calls[-1] == ("mlflow.log_metrics", ({"fl_che/IoU ___": 0.5},), {"step": 1})


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(name)]


def test_tensorboard__has_curves_and_pictures_of_a_run(dataset: Path, tmp_path: Path) -> None:
    train(make_config(dataset, trackers=["tensorboard"], eval_every=2, pictures=1), tmp_path / "a")
    events = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    assert {"lr", "loss/coarse", "coarse/mIoU"} <= set(events.Tags()["scalars"])
    (tag,) = events.Tags()["images"]
    assert [event.step for event in events.Images(tag)] == [2, 4]


def test_tensorboard__of_a_resumed_run_shows_every_step_once(dataset: Path, tmp_path: Path) -> None:
    config = make_config(dataset, trackers=["tensorboard"])
    for start, last in ((0, 6), (4, 8)):  # killed after 6, the last state is of 4
        run = RunRecorder(config, tmp_path, start=start, parameters=1)
        for done in range(start + 1, last + 1):
            run.step(done, {"coarse": torch.tensor(float(done))}, lr=0.1)
        run.trackers.close(finished=False)
    assert scalars(tmp_path / "tensorboard", "loss/coarse") == [(n, float(n)) for n in range(1, 9)]


# Nothing twice


def test_other_trackers__are_told_nothing_twice(dataset: Path, fake: Any, tmp_path: Path) -> None:
    calls = fake("wandb")
    config = make_config(dataset, trackers=["wandb"])
    for start, last in ((0, 6), (4, 5), (4, 8)):
        run = RunRecorder(config, tmp_path, start=start, parameters=1)
        for done in range(start + 1, last + 1):
            run.step(done, {"coarse": torch.tensor(1.0)}, lr=0.1)
    assert [kwargs["step"] for name, _, kwargs in calls if name == "wandb.log"] == list(range(1, 9))
    assert len({kwargs["id"] for name, _, kwargs in calls if name == "wandb.init"}) == 1


def test_an_evaluation_that_was_cut_off__is_told_when_it_comes_again(fake: Any, tmp_path: Path) -> None:
    calls = fake("trackio")
    trackers = open_trackers(tmp_path, "trackio", tracked={"step": 8, "eval": 4})
    opened = len(calls)
    trackers.numbers("step", 8, {"lr": 0.1})
    trackers.numbers("eval", 4, {"mIoU": 0.1})
    trackers.numbers("eval", 8, {"mIoU": 0.2})
    assert calls[opened:] == [("trackio.log", ({"mIoU": 0.2},), {"step": 8})]


def test_numbers__that_are_not_known_are_left_out(fake: Any, tmp_path: Path) -> None:
    calls = fake("trackio")
    trackers = open_trackers(tmp_path, "trackio")
    opened = len(calls)
    trackers.numbers("eval", 1, {"a": float("nan"), "b": 0.5, "c": None, "d": float("inf")})
    trackers.numbers("eval", 2, {"a": float("nan")})
    assert calls[opened:] == [("trackio.log", ({"b": 0.5},), {"step": 1})]


# Failures


@pytest.mark.parametrize("name", sorted(TRACKERS))
def test_missing_package__is_named_with_its_extra(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [m for m in sys.modules if m.startswith((f"{name}.", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError) as refusal:
        open_trackers(tmp_path, name)
    assert str(refusal.value).startswith(f"tracker {name!r} needs the package {name}, which cannot be imported (")
    assert str(refusal.value).endswith(f"; install densevit[{name}], or remove it from trackers")


def test_missing_package__leaves_the_folder_free(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"install densevit\[wandb\]"):
        train(make_config(dataset, trackers=["wandb"], iterations=1), tmp_path / "a")
    train(make_config(dataset, iterations=1), tmp_path / "a")


@pytest.mark.parametrize("broken", ["init", "log", "finish"])
def test_tracker_that_fails__stops_nothing_and_is_left_alone(
    fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    calls = fake("trackio")

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host\nmore words")

    setattr(sys.modules["trackio"], broken, fail)
    trackers = open_trackers(tmp_path, "trackio")
    for step in (1, 2, 3):
        trackers.numbers("step", step, {"lr": 0.1})
    trackers.close(finished=True)
    said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert said == ["tracker trackio failed (ConnectionError: no route to host); the run continues without it"]
    assert len([call for call in calls if call[0] == "trackio.log"]) == (3 if broken == "finish" else 0)


def test_one_that_fails__leaves_the_others(fake: Any, tmp_path: Path) -> None:
    fake("trackio")
    calls = fake("wandb")
    sys.modules["trackio"].init = lambda **_: 1 / 0  # type: ignore[attr-defined]
    open_trackers(tmp_path, "trackio", "wandb").numbers("step", 1, {"lr": 0.1})
    assert calls[-1][0] == "wandb.log"


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["tensorbord"], "trackers: tracker 'tensorbord' is unknown; did you mean 'tensorboard'?"),
        (["wandb", "wandb"], "trackers: names one tracker twice: wandb, wandb"),
    ],
)
def test_config__refuses_trackers_that_are_none(dataset: Path, names: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_config(dataset, trackers=names)
    assert problem in str(refusal.value)


def test_no_tracker__is_imported_unless_asked_for(dataset: Path, tmp_path: Path, fake: Any) -> None:
    recorded = [fake(name) for name in ("wandb", "mlflow", "trackio")]
    RunRecorder(make_config(dataset), tmp_path, start=0, parameters=1)
    assert recorded == [[], [], []]
    assert not (tmp_path / "tensorboard").exists()
