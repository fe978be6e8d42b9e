"""The run folder: environment, log, best checkpoint, ends of every kind, and going on after a resume."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.checkpoints.native import load_bundle, read_header
from densevit.errors import DataError
from densevit.tasks import parse_task
from densevit.training.build_model import build_model
from densevit.training.config import TrainConfig
from densevit.training.hooks import TrainHooks
from densevit.training.resolve_config import complete
from densevit.training.run import recorder as run_module
from densevit.training.run.environment import environment, git_state
from densevit.training.run.log import read_log
from densevit.training.run.progress import ProgressMeter, duration
from densevit.training.run.recorder import RunRecorder, score_of
from densevit.training.train import train
from tests.e2e.scenes import recipe


def make_config(dataset: Path, *heads: str, **facts: Any) -> TrainConfig:
    return TrainConfig.parse(complete(recipe(dataset, *(heads or ("coarse",)), **{"iterations": 10, **facts})))


class Rig:
    """A run with a tiny model that is told what a loop would tell."""

    def __init__(self, config: TrainConfig, out: Path, start: int = 0, **facts: Any) -> None:
        self.config, self.out = config, out
        self.model, self.tasks = build_model(config).eval(), dict(config.tasks)
        self.run = RunRecorder(config, out, start=start, parameters=self.model.num_parameters(), **facts)

    def steps(self, first: int, last: int) -> None:
        for done in range(first, last + 1):
            self.run.step(done, {"coarse": torch.tensor(1 / done)}, lr=0.1)

    def evaluated(self, done: int, miou: float) -> None:
        self.run.evaluated(done, {"coarse": {"mIoU": miou, "aAcc": 0.9}}, self.model, self.tasks)

    def break_off(self, after: int, error: BaseException) -> None:
        with self.run:
            self.steps(1, after)
            raise error

    def rows(self, event: str) -> list[dict[str, Any]]:
        return [row for row in read_log(self.out / "log.jsonl") if row["event"] == event]

    def best_miou(self) -> float:
        return float(read_header(self.out / "best.safetensors").card.metrics["coarse"]["mIoU"])


@pytest.fixture
def config(dataset: Path) -> TrainConfig:
    return make_config(dataset)


# The folder


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of a segmentation and a depth head."""
    out = tmp_path_factory.mktemp("runs") / "short"
    train(make_config(dataset, "coarse", "depth", iterations=4, eval_every=2, pictures=2), out)
    return out


def test_folder__holds_all_that_a_run_leaves(finished: Path) -> None:
    names = {path.name for path in finished.glob("[!.]*")}
    assert names == {
        "config.yaml", "dataset.yaml", "environment.json", "log.jsonl", "states", "evaluations", "best.safetensors",
        "model.safetensors", "report.html",
    }  # fmt: skip


def test_log__has_every_event_in_order(finished: Path) -> None:
    events = [row["event"] for row in read_log(finished / "log.jsonl") if row["event"] != "best"]
    assert events == ["start", "step", "step", "eval", "eval", "step", "step", "eval", "eval", "end"]


def test_best__is_a_whole_model_with_the_figures_of_its_evaluation(finished: Path) -> None:
    bundle = load_bundle(finished / "best.safetensors")
    rows = read_log(finished / "log.jsonl")
    at = max(row["iteration"] for row in rows if row["event"] == "best")
    figures = {row["head"]: row for row in rows if row["event"] == "eval" and row["iteration"] == at}
    assert bundle.card.metrics["coarse"]["mIoU"] == figures["coarse"]["mIoU"]
    assert bundle.card.metrics["depth"]["AbsRel"] == figures["depth"]["AbsRel"]


def test_evaluations__show_the_same_images_each_time_and_the_worst(finished: Path) -> None:
    details = [json.loads((finished / "evaluations" / f"{n:08d}" / "details.json").read_text()) for n in (2, 4)]
    fixed = [[one["name"] for one in d["heads"]["coarse"]["fixed"]] for d in details]
    assert fixed[0] == fixed[1]
    assert len(fixed[0]) == 2
    worst = [one["value"] for one in details[1]["heads"]["depth"]["worst"]]
    assert worst == sorted(worst, reverse=True)  # AbsRel: less is better
    assert len(list((finished / "evaluations" / "00000004").glob("*.jpg"))) == 2 * (2 + 2)


def test_pictures__can_be_left_out(dataset: Path, tmp_path: Path) -> None:
    train(make_config(dataset, iterations=1, pictures=0), tmp_path / "a")
    assert list((tmp_path / "a").rglob("*.jpg")) == []
    details = json.loads((tmp_path / "a" / "evaluations" / "00000001" / "details.json").read_text())
    assert sum(map(sum, details["heads"]["coarse"]["confusion"])) > 0


def test_without_val_data__there_is_no_best_but_a_model_and_a_report(dataset: Path, tmp_path: Path) -> None:
    sources = [{"train": {"root": str(dataset), "split": "train"}}]
    train(make_config(dataset, iterations=1, sources=sources), tmp_path / "a")
    assert not (tmp_path / "a" / "best.safetensors").exists()
    assert (tmp_path / "a" / "model.safetensors").exists()
    assert "finished" in (tmp_path / "a" / "report.html").read_text()


# The best so far


def test_best__is_kept_when_later_figures_are_worse(config: TrainConfig, tmp_path: Path) -> None:
    rig = Rig(config, tmp_path)
    for done, miou in ((1, 0.5), (2, 0.7), (3, 0.6)):
        rig.evaluated(done, miou)
    assert rig.best_miou() == 0.7
    assert [row["iteration"] for row in rig.rows("best")] == [1, 2]


def test_best__is_known_to_a_resumed_run(config: TrainConfig, tmp_path: Path) -> None:
    first = Rig(config, tmp_path)
    first.evaluated(2, 0.7)
    resumed = Rig(config, tmp_path, start=2)
    resumed.evaluated(4, 0.65)
    assert resumed.best_miou() == 0.7
    resumed.evaluated(6, 0.71)
    assert resumed.best_miou() == 0.71


def test_best__comes_again_when_its_evaluation_does(config: TrainConfig, tmp_path: Path) -> None:
    first = Rig(config, tmp_path)
    first.evaluated(2, 0.5)
    first.evaluated(4, 0.7)
    resumed = Rig(config, tmp_path, start=2)  # killed after 4, the last state is of 2
    resumed.evaluated(4, 0.7)
    assert [row["iteration"] for row in resumed.rows("best")] == [2, 4]


def test_best__of_an_earlier_run_does_not_count_for_a_new_one(config: TrainConfig, tmp_path: Path) -> None:
    Rig(config, tmp_path).evaluated(2, 0.9)
    fresh = Rig(config, tmp_path)
    fresh.evaluated(2, 0.4)
    assert fresh.best_miou() == 0.4


def test_select__best_keeps_the_model_of_the_best_evaluation(dataset: Path, tmp_path: Path) -> None:
    rig = Rig(make_config(dataset, select="best"), tmp_path)
    for done, miou in ((1, 0.7), (2, 0.6)):
        rig.evaluated(done, miou)
    path = rig.run.finish(rig.model, rig.tasks)
    assert read_header(path).card.metrics["coarse"]["mIoU"] == 0.7


def test_best__needs_a_figure(config: TrainConfig, tmp_path: Path) -> None:
    Rig(config, tmp_path).evaluated(1, math.nan)
    assert not (tmp_path / "best.safetensors").exists()


def test_score__is_the_mean_of_the_headlines_and_respects_their_direction() -> None:
    tasks = {
        "labels": parse_task({"kind": "segmentation", "classes": ["a", "b"]}),
        "height": parse_task({"kind": "regression", "channels": ["m"]}),
    }
    good = score_of({"labels": {"mIoU": 0.5}, "height": {"MAE": 0.1}}, tasks)
    bad = score_of({"labels": {"mIoU": 0.5}, "height": {"MAE": 0.4}}, tasks)
    assert good == pytest.approx(0.2)
    assert bad is not None
    assert bad < good


# Ends


def test_failure__is_noted_with_its_reason(config: TrainConfig, tmp_path: Path) -> None:
    rig = Rig(config, tmp_path)
    with pytest.raises(ValueError, match="a <b>strange</b> batch"):
        rig.break_off(3, ValueError("a <b>strange</b> batch"))
    (end,) = rig.rows("end")
    assert (end["iteration"], end["outcome"], end["error"]) == (3, "failed", "ValueError: a <b>strange</b> batch")
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;strange&lt;/b&gt; batch" in page


def test_interruption__is_noted(config: TrainConfig, tmp_path: Path) -> None:
    rig = Rig(config, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        rig.break_off(2, KeyboardInterrupt())
    assert [row["outcome"] for row in rig.rows("end")] == ["interrupted"]
    assert "interrupted" in (tmp_path / "report.html").read_text()


def test_train__that_fails_leaves_a_report(dataset: Path, tmp_path: Path) -> None:
    class Refuse(TrainHooks):
        def on_eval_progress(self, done: int, total: int) -> None:
            raise DataError("mask 3 is damaged")

    with pytest.raises(DataError, match="mask 3"):
        train(make_config(dataset, iterations=2, eval_every=2), tmp_path / "a", hooks=Refuse())
    assert "mask 3 is damaged" in (tmp_path / "a" / "report.html").read_text()


def test_report__that_fails_stops_nothing_and_is_said_once(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(run_module, "write_report", fail)
    rig = Rig(config, tmp_path)
    rig.evaluated(1, 0.5)
    rig.evaluated(2, 0.6)
    path = rig.run.finish(rig.model, rig.tasks)
    assert path.exists()
    said = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert said == [f"the report of {tmp_path} could not be written (OSError: no space left)"]


def test_report__is_written_between_evaluations_too(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "REPORT_EVERY_S", 0.0)
    rig = Rig(config, tmp_path)
    rig.run.step(1, {"coarse": torch.tensor(1.0)}, lr=0.1)
    assert "not finished" in (tmp_path / "report.html").read_text()


# Resuming


def test_resume__doubles_no_line(config: TrainConfig, tmp_path: Path) -> None:
    first = Rig(config, tmp_path)
    first.steps(1, 4)
    first.evaluated(4, 0.5)
    first.steps(5, 6)
    first.evaluated(6, 0.6)
    resumed = Rig(config, tmp_path, start=4)
    resumed.evaluated(4, 0.5)  # as after an evaluation that was cut off
    resumed.steps(5, 8)
    resumed.evaluated(8, 0.7)
    assert [row["iteration"] for row in resumed.rows("step")] == list(range(1, 9))
    assert [row["iteration"] for row in resumed.rows("eval")] == [4, 8]
    assert len(resumed.rows("start")) == len(resumed.rows("resume")) == 1


def test_resume__drops_the_evaluations_that_come_again(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    train(make_config(dataset, iterations=4, eval_every=2, checkpoint_every=2, keep_states=2), out)
    (out / "states" / "state-00000004.pt").unlink()
    RunRecorder(make_config(dataset, iterations=4), out, start=2, parameters=1)
    assert [path.name for path in (out / "evaluations").iterdir()] == ["00000002"]


def test_resume__goes_on_with_the_clock(config: TrainConfig, tmp_path: Path) -> None:
    rig = Rig(config, tmp_path)
    rig.run.log.write("step", 3, lr=0.1)
    rows = read_log(tmp_path / "log.jsonl")
    rows[-1]["seconds"] = 500.0
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert 500 <= Rig(config, tmp_path, start=3).run.log.seconds < 560


def test_resume__of_a_finished_run_keeps_the_figures_on_the_card(config: TrainConfig, tmp_path: Path) -> None:
    first = Rig(config, tmp_path)
    first.evaluated(10, 0.5)
    again = Rig(config, tmp_path, start=10, metrics=first.run.metrics)
    path = again.run.finish(again.model, again.tasks)
    assert read_header(path).card.metrics["coarse"] == {"mIoU": 0.5, "aAcc": 0.9}


def test_log__of_a_killed_run_is_read_up_to_the_cut(config: TrainConfig, tmp_path: Path) -> None:
    rig = Rig(config, tmp_path)
    rig.steps(1, 3)
    text = (tmp_path / "log.jsonl").read_text()
    (tmp_path / "log.jsonl").write_text(text[:-20])
    Rig(config, tmp_path, start=3)
    assert [row["iteration"] for row in rig.rows("step")] == [1, 2]


# Environment


def test_environment__tells_programs_machine_and_command() -> None:
    found = environment()
    assert found["torch"] == torch.__version__
    assert found["torch"].startswith(found["packages"]["torch"].partition("+")[0])
    assert found["command"][0]
    assert {"python", "threads", "cores", "cpu", "time", "git", "switches"} <= found.keys()
    json.dumps(found)


def test_environment__of_every_session_is_kept(config: TrainConfig, tmp_path: Path) -> None:
    Rig(config, tmp_path)
    Rig(config, tmp_path, start=4)
    record = json.loads((tmp_path / "environment.json").read_text())
    assert [session["start"] for session in record["sessions"]] == [0, 4]
    assert {session["seed"] for session in record["sessions"]} == {config.seed}


@pytest.mark.parametrize(("changes", "dirty"), [("", False), (" M train.py", True)])
def test_git_state__is_commit_and_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str, dirty: bool
) -> None:
    git = tmp_path / "git"
    git.write_text(f'#!/bin/sh\ncase "$3" in rev-parse) echo {"a" * 40};; status) echo "{changes}";; esac\n')
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert git_state(tmp_path) == {"commit": "a" * 40, "dirty": dirty}


def test_git_state__without_git_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


# Progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pace(clock: Clock, **facts: int) -> ProgressMeter:
    return ProgressMeter(0, **{"iterations": 100, "eval_every": 50, "images": 8, **facts}, clock=clock)


def take(pace: ProgressMeter, clock: Clock, steps: int, seconds: float) -> None:
    for done in range(pace.done + 1, pace.done + steps + 1):
        clock.now += seconds
        pace.step(done, {"a": torch.tensor(0.5)}, lr=1e-3)


def test_pace__counts_images_by_the_second_without_the_evaluations() -> None:
    clock = Clock()
    it = pace(clock)
    take(it, clock, 10, 2.0)
    clock.now += 100
    assert it.evaluated() == 100
    take(it, clock, 10, 2.0)
    assert it.images_per_second == pytest.approx(4.0)


def test_pace__time_left_has_the_evaluations_to_come() -> None:
    clock = Clock()
    it = pace(clock)
    take(it, clock, 50, 2.0)
    clock.now += 30
    it.evaluated()
    assert it.seconds_left == pytest.approx(50 * 2.0 + 30)
    take(it, clock, 10, 2.0)
    assert it.seconds_left == pytest.approx(40 * 2.0 + 30)


def test_pace__is_no_flood(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    it = pace(clock, iterations=100_000)
    with caplog.at_level(logging.INFO, "densevit.progress"):
        take(it, clock, 36_000, 0.1)
    assert 20 <= len(caplog.records) <= 120  # an hour of ten steps a second


def test_pace__draws_live_only_for_who_follows(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    it = pace(clock)
    with caplog.at_level(logging.DEBUG, "densevit.progress"):
        take(it, clock, 50, 0.1)
    assert 20 <= len(caplog.records) <= 27  # about five a second


def test_pace__says_after_the_first_steps_that_hours_are_left(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    it = ProgressMeter(0, 1000, eval_every=0, images=4, advice="do less", clock=clock)
    with caplog.at_level(logging.WARNING):
        take(it, clock, 20, 60.0)
    assert [record.message for record in caplog.records] == ["at this speed 16 h 36 min are left; do less"]


def test_pace__of_minutes_gives_no_advice(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    it = ProgressMeter(0, 1000, eval_every=0, images=4, advice="do less", clock=clock)
    with caplog.at_level(logging.WARNING):
        take(it, clock, 4, 2.0)
        take(it, clock, 20, 60.0)
    assert caplog.records == []


def test_pace__line_has_what_a_person_asks_for(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    it = pace(clock)
    with caplog.at_level(logging.INFO, "densevit.progress"):
        take(it, clock, 11, 2.0)
    line = caplog.records[-1].message
    assert line.startswith("iteration 11/100  loss 0.5  lr 1.00e-03  4 images/s  2 min 58 s left")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (183_600, "2 d 3 h")],
)
def test_duration__is_told_in_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words
