"""Configs of short runs, and what they leave: for the tests of the loop and of what goes around it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.checkpoints.native import load_bundle
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from tests.e2e.scenes import ENCODER, recipe


def config(
    dataset: Path, *heads: str, iterations: int = 2, encoder: dict[str, Any] | None = None, **facts: Any
) -> TrainConfig:
    raw = recipe(dataset, *heads, iterations=iterations, **facts)
    raw["model"]["encoder"] = ENCODER | (encoder or {})
    return TrainConfig.parse(complete(raw))


def weights(model: Path) -> dict[str, Tensor]:
    return load_bundle(model).model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
