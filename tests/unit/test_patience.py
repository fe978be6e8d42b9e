"""Runs that end when their evaluations no longer gain."""

import logging
from pathlib import Path

import pytest

from densevit.errors import ConfigError
from densevit.training.checkpoint import load_state
from densevit.training.hooks import TrainHooks
from densevit.training.run.log import read_log
from densevit.training.train import train
from tests.unit.runs import config, same, weights

STILL = {"optim": {"lr": 1e-30}, "eval_every": 1, "checkpoint_every": 1, "patience": 2}
"""Weights that do not move, so that no evaluation is better than the first."""


def evaluations(out: Path) -> list[int]:
    return [row["iteration"] for row in read_log(out / "log.jsonl") if row["event"] == "eval"]


def test_run__ends_when_evaluations_no_longer_gain(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        out = train(config(dataset, "coarse", iterations=9, **STILL), tmp_path / "a").parent
    assert evaluations(out) == [1, 2, 3]
    assert "the run ends after 3 of 9 steps; raise patience to go on" in caplog.text
    assert [row["outcome"] for row in read_log(out / "log.jsonl") if row["event"] == "end"] == ["finished"]


def test_run__that_ended_early_makes_no_further_step_when_resumed(dataset: Path, tmp_path: Path) -> None:
    first = config(dataset, "coarse", iterations=9, **STILL)
    out = train(first, tmp_path / "a").parent
    train(first, out, resume=True)
    assert evaluations(out) == [1, 2, 3]
    train(config(dataset, "coarse", iterations=9, **(STILL | {"patience": 4})), out, resume=True)
    assert evaluations(out) == [1, 2, 3, 4, 5]


def test_resumed_run__ends_where_an_unbroken_one_does(dataset: Path, tmp_path: Path) -> None:
    class Kill(TrainHooks):
        def before_step(self, iteration: int, batches: object) -> None:
            if iteration == 2:
                raise KeyboardInterrupt

    facts = config(dataset, "coarse", iterations=9, **STILL)
    whole = train(facts, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(facts, tmp_path / "killed", hooks=Kill())
    state = load_state(tmp_path / "killed" / "states")
    assert state is not None
    assert state["stale"] == 1
    killed = train(facts, tmp_path / "killed", resume=True)
    assert evaluations(killed.parent) == evaluations(whole.parent)
    assert same(weights(whole), weights(killed))


def test_patience__needs_val(dataset: Path) -> None:
    sources = [{"train": {"root": str(dataset), "split": "train"}}]
    with pytest.raises(ConfigError, match="select: best and patience need evaluations, but no source has val"):
        config(dataset, "coarse", sources=sources, patience=1)
