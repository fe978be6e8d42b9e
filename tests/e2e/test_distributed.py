"""Runs of two real processes: the same model as one process makes, whatever dies on the way."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from torch import Tensor

from densevit.checkpoints.native import load_bundle
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.train import train
from tests.e2e.commands import command
from tests.e2e.killed_run import SecondOfTwo
from tests.e2e.scenes import HEADS, recipe, write_dataset, write_model

DPT = {**HEADS["dpt"], "decoder": {**HEADS["dpt"]["decoder"], "head": {"kind": "segmentation", "dropout": 0.0}}}
"""Batch norm in fusion and head; without dropout, whose masks depend on how the batch is cut."""

SAME = 1e-6
"""Largest difference of a weight between one process and two: the order of float32 sums."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose unknown pixels are unevenly spread, and a config on it, with a teacher for one of two heads."""
    root = tmp_path_factory.mktemp("distributed")
    write_dataset(root / "data")
    for number, path in enumerate(sorted((root / "data" / "masks" / "train").iterdir())):
        labels = np.array(Image.open(path))
        labels[: 9 * number] = 255  # of 48 rows
        Image.fromarray(labels).save(path)
    facts: dict[str, Any] = {
        "optim": {"kind": "sgd", "lr": 3e-3, "head_lr_mult": 4.0, "clip_norm": 2.0},
        "weighting": {"kind": "uncertainty"},
        "ema": 0.9,
        "teacher": {"checkpoint": str(write_model(root / "teacher.safetensors", "coarse", seed=3))},
        "checkpoint_every": 3,
        "keep_states": 2,
        "eval_every": 3,
    }
    config = recipe(root / "data", "dpt", "coarse", iterations=5, **facts)
    config["model"]["heads"]["dpt"] = DPT
    (root / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(config))))
    return root


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """The run of one process."""
    raw = yaml.safe_load((place / "run.yaml").read_text())
    return train(TrainConfig.parse(complete(raw)), place / "alone").parent


def start(place: Path, out: Path, *options: str) -> list[subprocess.Popen[str]]:
    """Two processes of a run, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = command("train", "--config", place / "run.yaml", "--out", out, "--device", "cpu", *options)
    facts = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            call,
            env={**os.environ, **facts, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and messages of each."""
    outcomes = []
    for process in processes:
        _, err = process.communicate(timeout=300)
        outcomes.append((process.returncode, err))
    return outcomes


@pytest.fixture
def spawned() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that must not outlive a test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def weights(run: Path) -> dict[str, Tensor]:
    return load_bundle(run / "model.safetensors").model.state_dict()


def difference(one: Path, other: Path) -> float:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def evaluations(run: Path) -> list[tuple[int, str, float]]:
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(row["iteration"], row["head"], row["mIoU"]) for row in rows if row["event"] == "eval"]


def kill_one(pair: list[subprocess.Popen[str]], states: Path) -> None:
    """SIGKILL one process as soon as there is a state; the other must not wait for it."""
    deadline = time.monotonic() + 240
    while not list(states.glob("state-*")) and time.monotonic() < deadline:
        assert all(process.poll() is None for process in pair), finish(pair)
        time.sleep(0.005)
    pair[1].send_signal(signal.SIGKILL)
    codes = [code for code, _ in finish(pair)]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0


def test_accumulation__gives_the_weights_of_the_whole_batch(place: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((place / "run.yaml").read_text())
    raw["model"]["heads"].pop("dpt")  # the statistics of batch norm are those of a micro-batch
    raw["tasks"].pop("dpt")
    for parts in (1, 4):
        train(TrainConfig.parse(complete({**raw, "accumulate": parts})), tmp_path / str(parts))
    assert difference(tmp_path / "1", tmp_path / "4") <= SAME


def test_copies__give_the_model_of_one_process_and_resume_to_the_same_bits(
    place: Path, alone: Path, tmp_path: Path, spawned: list[subprocess.Popen[str]]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    spawned += start(place, whole)
    outcomes = finish(spawned)
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    assert difference(alone, whole) <= SAME
    assert [row[:2] for row in evaluations(whole)] == [row[:2] for row in evaluations(alone)]
    assert [row[2] for row in evaluations(whole)] == pytest.approx([row[2] for row in evaluations(alone)], abs=2e-3)

    pair = start(place, killed)
    spawned += pair
    kill_one(pair, killed / "states")
    again = start(place, killed, "--resume")
    spawned += again
    assert [code for code, _ in finish(again)] == [0, 0]
    assert difference(whole, killed) == 0
    assert evaluations(whole) == evaluations(killed)


def test_shards__give_the_model_of_one_process_and_resume_in_another_number(
    place: Path, alone: Path, tmp_path: Path, spawned: list[subprocess.Popen[str]]
) -> None:
    run = tmp_path / "run"
    pair = start(place, run, "--set", "shard=true")
    spawned += pair
    kill_one(pair, run / "states")
    again = start(place, run, "--set", "shard=true", "--resume")
    spawned += again
    outcomes = finish(again)
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    assert difference(alone, run) <= SAME

    first, last = sorted((run / "states").iterdir())
    (last / ".metadata").write_bytes(b"no table of contents")
    raw = yaml.safe_load((run / "config.yaml").read_text())
    train(TrainConfig.parse(raw), run, resume=True)
    assert difference(alone, run) <= SAME
    assert (first.name, last.name) == ("state-00000003.dcp", "state-00000005.dcp")


@pytest.mark.slow
def test_torchrun__starts_a_run_again_that_lost_a_process(
    place: Path, alone: Path, tmp_path: Path, spawned: list[subprocess.Popen[str]]
) -> None:
    run = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    program = ["-m", "tests.e2e.killed_run", str(place / "run.yaml"), str(run), "0", SecondOfTwo.__name__]
    spawned.append(
        subprocess.Popen(
            [*launch, *program],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
    )
    ((code_of_all, err),) = finish(spawned)
    assert code_of_all == 0, err
    assert "after 0 of 5 steps" in err
    assert "after 3 of 5 steps" in err
    assert difference(alone, run) <= SAME


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are known by name on Linux alone")
def test_shards__leave_no_thread_that_could_abort_the_end_of_python(place: Path, tmp_path: Path) -> None:
    raw = yaml.safe_load((place / "run.yaml").read_text())
    train(TrainConfig.parse(complete({**raw, "iterations": 1, "shard": True})), tmp_path / "run")

    names = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]

    assert [name for name in names if "gloo" in name] == []
