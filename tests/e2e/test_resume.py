"""Real processes that are killed: whatever the moment, the resumed run ends with the bits of one that ran through."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from densevit.checkpoints.native import load_bundle
from densevit.training.checkpoint import states_in
from densevit.training.config import TrainConfig
from densevit.training.hooks import TrainHooks
from densevit.training.resolve_config import complete
from densevit.training.train import train
from densevit_runtime.io.outputs import MANIFEST
from tests.e2e.killed_run import AfterTheLastState, InAnEvaluation, InAState, SlowSteps
from tests.e2e.scenes import ENCODER, recipe, write_dataset

ITERATIONS = 14


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config with everything that a state must hold: drop path, dropout, EMA, a loss scale, learnt loss weights."""
    root = tmp_path_factory.mktemp("resume")
    write_dataset(root / "data")
    facts: dict[str, Any] = {
        "checkpoint_every": 3,
        "eval_every": 5,
        "keep_states": 3,
        "accumulate": 2,
        "precision": "fp16",
        "checkpoint_blocks": True,
        "ema": 0.9,
        "weighting": {"kind": "uncertainty"},
        "schedule": {"kind": "cosine", "warmup": 3},
        "augment": {"crop": [48, 64], "scale": [0.8, 1.2], "colour": 0.3},
    }
    config = recipe(root / "data", "segmenter", "dpt", iterations=ITERATIONS, **facts)
    config["model"]["encoder"] = {**ENCODER, "drop_path": 0.3}
    (root / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    return root


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """The run that nothing happened to."""
    return run_here(place, place / "whole")


def run_here(place: Path, out: Path, **facts: Any) -> Path:
    raw = yaml.safe_load((place / "run.yaml").read_text())
    return train(TrainConfig.parse(complete({**raw, **facts})), out, resume=True).parent


def start(place: Path, out: Path, *, workers: int = 0) -> subprocess.Popen[str]:
    """The command in a process of its own, where Ctrl-C works although pytest may run in a shell's background."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from densevit.cli.main import main; main()"
    )
    options = ["--config", place / "run.yaml", "--out", out, "--resume", "--device", "cpu", "--set"]
    return run_python("-c", code, "train", *options, f"workers={workers}")


def start_killed(place: Path, out: Path, moment: type[TrainHooks], *, workers: int = 0) -> subprocess.Popen[str]:
    """The run in a process of its own that ``moment`` brings to an end."""
    return run_python("-m", "tests.e2e.killed_run", place / "run.yaml", out, workers, moment.__name__)


def run_python(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "DENSEVIT_DEBUG": ""},
    )


def weights(run: Path) -> dict[str, Tensor]:
    return load_bundle(run / "model.safetensors").model.state_dict()


def rows(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    drop = {"seconds", "images_per_second", "evaluation_seconds"}
    return [{k: v for k, v in x.items() if k not in drop} for x in lines if x["event"] in {"step", "eval", "best"}]


def same_model(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    equal = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    cards = [load_bundle(run / "model.safetensors").card.metrics for run in (one, other)]
    return equal and cards[0] == cards[1]


def test_killed_run__ends_with_the_same_bits_whatever_the_moment(place: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for moment, workers in ((InAState, 2), (InAnEvaluation, 0), (AfterTheLastState, 2)):
        process = start_killed(place, run, moment, workers=workers)
        _, err = process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, err
        assert not (run / "model.safetensors").exists()
    assert [path.name for path in states_in(run / "states")] == [f"state-{n:08}.pt" for n in (9, 12, 14)]

    # After all that the last state is damaged on the disk: one bit of a weight.
    path = states_in(run / "states")[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    run_here(place, run)
    assert same_model(whole, run)
    assert rows(run) == rows(whole)
    assert not list((run / "states").glob(".*"))


def test_killed_run__at_any_time(place: Path, whole: Path, tmp_path: Path) -> None:
    run, draw = tmp_path / "run", random.Random(int(time.time()))
    process = start(place, run, workers=2)
    deadline = time.monotonic() + 240
    while not (run / "log.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(draw.uniform(0, 2))
    process.kill()
    process.communicate()
    run_here(place, run)
    assert same_model(whole, run)
    assert rows(run) == rows(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal__ends_the_run_after_the_step_with_a_state(
    place: Path, whole: Path, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    process = start(place, run, workers=2 if number == signal.SIGINT else 0)
    deadline = time.monotonic() + 240
    while not (run / "log.jsonl").exists() or len(rows(run)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    done = int(states_in(run / "states")[-1].stem[6:])
    assert err.splitlines()[-1] == (
        f"densevit: stopped after {done} of {ITERATIONS} steps; the state is saved; continue with densevit train "
        f"--resume --out {run}"
    )
    run_here(place, run)
    assert same_model(whole, run)
    assert rows(run) == rows(whole)


def test_second_run_in_a_folder__is_refused_and_the_first_goes_on(place: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = start_killed(place, run, SlowSteps)
    assert first.stdout is not None
    assert first.stdout.readline() == "step\n"
    second = start(place, run)
    _, err = second.communicate(timeout=120)
    assert second.returncode == 2
    assert f"densevit: {run} is in use by process {first.pid} on " in err.splitlines()[-1]
    first.kill()  # at once, as a cluster does
    first.communicate()
    run_here(place, run)
    assert same_model(whole, run)
    assert rows(run) == rows(whole)
    assert {path.name for path in run.glob(".*")} <= {MANIFEST}


def test_second_ctrl_c__stops_at_once(place: Path, tmp_path: Path) -> None:
    process = start_killed(place, tmp_path / "run", SlowSteps)
    assert process.stdout is not None
    assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    for _ in range(30):  # on a busy machine two signals may arrive as one
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=2)
            break
    assert process.returncode in {130, -signal.SIGINT}
    assert not states_in(tmp_path / "run" / "states")


def test_resume__takes_the_run_folder_as_its_value(cli: Any, place: Path, tmp_path: Path) -> None:
    run_here(place, tmp_path / "run", iterations=3)
    outcome = cli("train", "--resume", tmp_path / "run", "--set", "iterations=4")
    assert (outcome.code, outcome.out.strip()) == (0, str(tmp_path / "run" / "model.safetensors"))
    assert rows(tmp_path / "run")[-1]["iteration"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "neither data nor a run was named; give --data DIR, or --resume with the folder of a run"),
        (("--resume",), "no run folder was named; give --out DIR"),
        (
            ("--resume", "RUN/none"),
            "RUN/none holds no run, it has no config.yaml; name its folder, or begin it with --config",
        ),
        (("RUN/a",), "RUN/a was given without an option; write --out RUN/a, or --resume RUN/a to continue a run"),
        (("--resume", "RUN/a", "--out", "RUN/b"), "--resume RUN/a and --out RUN/b are two run folders; give one"),
    ],
)
def test_resume__says_what_is_missing(cli: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    outcome = cli("train", *(argument.replace("RUN", str(tmp_path)) for argument in arguments))
    assert outcome.code == 2
    assert outcome.err.strip() == "densevit: " + message.replace("RUN", str(tmp_path))
