"""Runs and evaluations in which no target pixel counts are errors, and so are heads with a single class."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.data.sample import Dataset
from densevit.errors import ConfigError, DataError
from densevit.evaluation.evaluate import check_measured, evaluate
from densevit.evaluation.selection import open_dataset
from densevit.inference_config import InferenceConfig
from densevit.io import write_png
from densevit.tasks import parse_task
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.train import train
from tests.e2e.scenes import recipe


@pytest.fixture
def ignored(dataset: Path, tmp_path: Path) -> Path:
    """A copy of the data set in which every mask pixel of split train is ignored."""
    root = tmp_path / "data"
    shutil.copytree(dataset, root)
    for mask in (root / "masks" / "train").glob("[!.]*"):
        mask.unlink()
        write_png(mask, np.full((48, 64), 255, np.uint8))
    return root


def run_config(root: Path, **facts: Any) -> TrainConfig:
    return TrainConfig.parse(complete(recipe(root, "coarse", **{"iterations": 4, **facts})))


@pytest.mark.parametrize("denominator", ["valid", "all"])
@pytest.mark.parametrize("every", [{"eval_every": 2}, {"checkpoint_every": 2}, {}], ids=str)
def test_run_without_a_target_pixel__is_an_error_and_leaves_no_model(
    denominator: str, every: dict[str, int], ignored: Path, tmp_path: Path
) -> None:
    config = run_config(ignored, **every)
    task = config.tasks["coarse"].model_copy(update={"denominator": denominator})
    config = config.model_copy(update={"tasks": {"coarse": task}})

    with pytest.raises(DataError, match=r"'coarse': no pixel of the targets in the first [24] steps counts, .*doctor"):
        train(config, tmp_path / "run")

    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_run_with_one_batch_of_targets__is_trained(ignored: Path, dataset: Path, tmp_path: Path) -> None:
    masks = sorted((ignored / "masks" / "train").glob("[!.]*"))
    shutil.copy(dataset / "masks" / "train" / masks[0].name, masks[0])

    assert train(run_config(ignored, iterations=2 * len(masks)), tmp_path / "run").exists()


def test_evaluation_without_a_target_pixel__is_an_error(ignored: Path, tmp_path: Path) -> None:
    config = run_config(ignored)
    train(run_config_of_val(ignored), tmp_path / "run")
    data = open_dataset(config.sources[0].train, ("coarse",), dict(config.tasks))

    with pytest.raises(DataError, match=r"'coarse': no pixel of the targets in \d+ images counts.*ignore_index 255"):
        check_measured(evaluated(data, config), config.tasks, len(data))


def run_config_of_val(root: Path) -> TrainConfig:
    """A run that learns from split val, whose masks are whole."""
    config = run_config(root, iterations=1)
    source = config.sources[0]
    assert source.val is not None
    return config.model_copy(update={"sources": (source.model_copy(update={"train": source.val}),)})


def evaluated(data: Dataset, config: TrainConfig) -> dict[str, dict[str, Any]]:
    from densevit.training.build_model import build_model

    torch.manual_seed(0)
    return evaluate(build_model(config).eval(), dict(config.tasks), InferenceConfig(short_side=48), data)


def test_single_class__is_refused_in_training_and_evaluation(dataset: Path, tmp_path: Path) -> None:
    config = run_config(dataset)
    one = {"coarse": parse_task({"kind": "segmentation", "classes": ["car"]})}

    with pytest.raises(ConfigError, match=r"'coarse' has one class, 'car', .*at least two are needed: name the rest"):
        train(config.model_copy(update={"tasks": one}), tmp_path / "run")
    data = open_dataset(config.sources[0].train, ("coarse",), dict(config.tasks))
    with pytest.raises(ConfigError, match="'coarse' has one class"):
        evaluated(data, config.model_copy(update={"tasks": one}))


@pytest.mark.parametrize(
    ("task", "known", "unknown"),
    [
        ({"kind": "segmentation", "classes": ["a", "b"]}, [[255, 0]], [[255, 255]]),
        ({"kind": "segmentation", "classes": ["a", "b"], "denominator": "all"}, [[255, 1]], [[255, 255]]),
        ({"kind": "depth"}, [[0.0, 2.0]], [[0.0, 0.0]]),
        ({"kind": "regression", "channels": ["m"]}, [[[float("nan"), 1.0]]], [[[float("nan"), float("nan")]]]),
    ],
    ids=str,
)
def test_task__knows_whether_a_target_teaches(task: dict[str, Any], known: Any, unknown: Any) -> None:
    parsed = parse_task(task)
    assert [parsed.knows(torch.tensor([values])) for values in (known, unknown)] == [True, False]
