"""The average of the weights: its warm-up, the running statistics that belong to it, and that it cannot hurt."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from densevit.checkpoints.native import read_header
from densevit.training.checkpoint import load_state
from densevit.training.ema import ema_weights, init_ema, update_ema, warmed_decay
from densevit.training.train import train
from tests.factories import random_images, tiny_model
from tests.unit.runs import config, weights


def test_decay__rises_to_its_value() -> None:
    decays = [warmed_decay(0.98, done) for done in (0, 8, 90, 10_000)]
    assert decays == pytest.approx([0.1, 0.5, 0.91, 0.98])


def test_average__forgets_the_start_in_a_short_run() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 100.0)
    ema = init_ema(model, 0.999)
    nn.init.constant_(model.weight, 1.0)
    for done in range(30):
        update_ema(ema, model, 0.999, done)
    assert ema["weight"].item() == pytest.approx(1.0, abs=1e-3)


def test_average__has_the_running_statistics_that_belong_to_it() -> None:
    model = tiny_model("setr_naive/mmseg")
    own = copy.deepcopy(model.state_dict())
    ema = init_ema(model, 0.9)
    (name,) = [name for name in ema if name.endswith("running_mean")]
    model.train()
    model(random_images((2, 2)))
    update_ema(ema, model, 0.9, 0)
    moved = model.state_dict()[name].clone()
    assert torch.allclose(ema[name], 0.1 * own[name] + 0.9 * moved)

    with ema_weights(model, ema) as averaged:
        assert torch.equal(averaged.state_dict()[name], ema[name])
    assert torch.equal(model.state_dict()[name], moved)
    assert not any("num_batches" in name or name in ("mean", "std") for name in ema)


def test_short_run__is_no_worse_with_an_average(dataset: Path, tmp_path: Path) -> None:
    def mean_score(**facts: Any) -> float:
        scores = []
        for seed in range(2):
            out = tmp_path / f"{len(facts)}-{seed}"
            train(config(dataset, "setr", iterations=30, seed=seed, **facts), out)
            scores.append(metric(out))
        return sum(scores) / len(scores)

    assert mean_score(ema=0.98) >= mean_score() - 0.02


def metric(run: Path) -> float:
    return float(read_header(run / "model.safetensors").card.metrics["setr"]["mIoU"])


def test_state__of_before_the_statistics_were_averaged_is_resumed(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(config(dataset, "setr", iterations=2, ema=0.9), out)
    state = load_state(out / "states")
    assert state is not None
    state["average"] = {name: v for name, v in state["average"].items() if "running" not in name}
    torch.save(state, out / "states" / "state-00000002.pt")

    model = train(config(dataset, "setr", iterations=2, ema=0.9), out, resume=True)

    saved = weights(model)
    statistics = [name for name in saved if "running" in name]
    assert statistics
    assert all(torch.equal(saved[name], state["model"][name]) for name in statistics)
