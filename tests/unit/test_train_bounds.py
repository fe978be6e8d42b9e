"""Numbers in the config of a run have bounds, and what is within them never overflows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.errors import ConfigError
from densevit.limits import VARIABLE
from densevit.training.config import TrainConfig
from densevit.training.optim import OptimConfig, build_optimiser
from densevit.training.resolve_config import complete
from densevit.training.schedule import ScheduleConfig
from densevit.training.train import train
from tests.e2e.scenes import recipe
from tests.factories import tiny_model


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


HUGE = 10**400
COUNTS = (
    "iterations", "accumulate", "max_bad_steps", "seed", "workers", "eval_every", "checkpoint_every", "log_every",
    "keep_states", "pictures", "schedule.warmup",
)  # fmt: skip
RATES = (
    "optim.lr", "optim.head_lr_mult", "optim.neck_lr_mult", "optim.weight_decay", "optim.clip_norm", "schedule.power",
    "schedule.min_lr", "timeout_s", "weighting.weights.coarse",
)  # fmt: skip


@pytest.mark.parametrize("value", [2**64, HUGE, -HUGE, -(2**63), 1.5], ids=lambda v: f"{v:.3g}" if v == 1.5 else None)
@pytest.mark.parametrize("key", COUNTS)
def test_count__beyond_its_bounds_is_refused(key: str, value: Any, dataset: Path) -> None:
    with pytest.raises(ConfigError, match=key):
        TrainConfig.parse({**complete(recipe(dataset, "coarse", iterations=1)), **nested(key, value)})


@pytest.mark.parametrize("value", [1e300, -1e300, float("inf"), float("nan"), HUGE], ids=lambda v: str(v)[:6])
@pytest.mark.parametrize("key", RATES)
def test_rate__beyond_its_bounds_is_refused(key: str, value: Any, dataset: Path) -> None:
    with pytest.raises(ConfigError, match=key):
        TrainConfig.parse({**complete(recipe(dataset, "coarse", iterations=1)), **nested(key, value)})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 1_000_001, r"batch_size: 1,000,001 is given, and up to 1,000,000 .*set DENSEVIT_LIMITS=batch="),
        ("weight", 1e300, "weight"),
    ],
)
def test_number_of_a_source__beyond_its_bounds_is_refused(key: str, value: Any, message: str, dataset: Path) -> None:
    data = recipe(dataset, "coarse", iterations=1)
    data["sources"][0][key] = value
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse(complete(data))


def test_workers__follow_the_budget(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = complete(recipe(dataset, "coarse", iterations=1, workers=2000))
    with pytest.raises(ConfigError, match=r"workers: 2,000 is given, and up to 1,024 .*DENSEVIT_LIMITS=workers="):
        TrainConfig.parse(data)
    monkeypatch.setenv(VARIABLE, "workers=2000")
    assert TrainConfig.parse(data).workers == 2000


@pytest.mark.parametrize(
    "optim",
    [
        {"betas": [0.9, 1.0]},
        {"betas": [-0.1, 0.9]},
        {"kind": "sgd", "nesterov": True, "momentum": 0},
        {"lr": 1e30, "head_lr_mult": 1e6, "weight_decay": 10},
    ],
    ids=str,
)
def test_optimiser_that_torch_refuses__is_an_error_of_the_config(optim: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        OptimConfig.parse(optim)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_largest_rates__do_not_overflow(kind: str) -> None:
    rates = {"lr": 1e25, "head_lr_mult": 1e5, "weight_decay": 1e5, "clip_norm": 1e30}
    model = tiny_model("segmenter_linear")
    optimiser = build_optimiser(OptimConfig.parse({"kind": kind, **rates}), model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


@pytest.mark.parametrize("schedule", [{"power": 1e6}, {"kind": "cosine", "min_lr": 1e6}, {"warmup": 10**12}], ids=str)
def test_schedule__is_finite_at_its_bounds(schedule: dict[str, Any]) -> None:
    parsed = ScheduleConfig.parse(schedule)
    assert all(0 <= parsed.lr_at(done, base=1e12, iterations=10**12) <= 1e12 for done in (0, 1, 10**12 - 1))


@pytest.mark.parametrize("seed", [2**32 - 1, 1 - 2**32])
def test_seed__at_its_bounds_trains(seed: int, dataset: Path, tmp_path: Path) -> None:
    data = recipe(dataset, "coarse", iterations=1, seed=seed)
    data["augment"] |= {"cutmix": 0.5}
    assert train(TrainConfig.parse(complete(data)), tmp_path / "run").exists()
