"""``densevit.train`` and ``densevit.evaluate``: the commands as functions."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor, nn

import densevit
from densevit.checkpoints.native import read_header
from densevit.data import DATASETS, FolderConfig
from densevit.decoders import DECODERS
from densevit.errors import ConfigError, DataError
from densevit.inference.pipeline import InferenceOptions
from densevit.types import Taps
from tests.e2e.scenes import CLASSES, Scenes, recipe, write_model


@pytest.fixture
def config(dataset: Path) -> dict[str, Any]:
    return recipe(dataset, "coarse", iterations=2)


def scenes(split: str) -> Scenes:
    return Scenes(range(4) if split == "train" else range(100, 102))


class Probe(nn.Module):
    def __init__(self, *, embed_dim: int, num_taps: int, out_channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(embed_dim, out_channels, 1)

    def forward(self, taps: Taps) -> Tensor:
        logits: Tensor = self.head(taps.maps()[-1])
        return logits


# Training


def test_train__is_the_command_to_the_bit(cli, config, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    cli("train", "--config", tmp_path / "run.yaml", "--out", tmp_path / "command", "--set", "optim.lr=1e-3")

    result = densevit.train(config=config, out=tmp_path / "call", overrides={"optim.lr": 1e-3}, device="cpu")

    assert result.path == tmp_path / "call" / "model.safetensors"
    assert result.path.read_bytes() == (tmp_path / "command" / "model.safetensors").read_bytes()
    assert result.metrics == read_header(result.path).card.metrics
    assert 0 <= result.metrics["coarse"]["mIoU"] <= 1


def test_train__takes_functions_for_data_and_decoder(tmp_path, small_default):
    result = densevit.train(
        scenes,
        tmp_path / "run",
        init="default",
        decoders=Probe,
        overrides={"iterations": 2, "features": None, "augment.crop": [32, 32]},
    )

    model = densevit.load(result.path)
    assert list(model.tasks) == ["Probe"]
    assert model.tasks["Probe"].class_table.names == CLASSES
    assert densevit.evaluate(model, Scenes(range(100, 102)))["Probe"]["mIoU"] == pytest.approx(
        result.metrics["Probe"]["mIoU"]
    )


def test_train__resumes(config, tmp_path):
    whole = densevit.train(config={**config, "checkpoint_every": 1}, out=tmp_path / "whole")
    densevit.train(config={**config, "checkpoint_every": 1}, out=tmp_path / "again")
    (tmp_path / "again" / "model.safetensors").unlink()

    again = densevit.train(out=tmp_path / "again", resume=True)

    assert again.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ConfigError, "neither data nor a run was named"),
        ({"resume": True}, ConfigError, "no run folder was named"),
        ({"resume": True, "time": "1m"}, ConfigError, "--time is for a new run"),
        ({"data": 7, "out": "x"}, ConfigError, "data is of type int; a path, keys or config of a data set"),
        ({"data": {"kind": "nothing"}, "out": "x"}, ConfigError, "data: data set kind 'nothing' is unknown"),
        ({"data": "not-there", "out": "x", "preset": "segmenter-ti-mask"}, DataError, "not-there does not exist"),
    ],
)
def test_train__refuses(arguments, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error) as caught:
        densevit.train(**arguments)

    assert message in str(caught.value)


def test_train__swallows_no_keyword():
    with pytest.raises(TypeError, match="iterations"):
        densevit.train(iterations=3)


# Evaluation


def test_evaluate__gives_the_figures_of_the_command(cli, trained, dataset, tmp_path):
    cli(
        "evaluate",
        "--model",
        trained,
        "--data",
        dataset,
        "--split",
        "val",
        "--head",
        "dpt",
        "--json",
        tmp_path / "m.json",
    )

    measured = densevit.evaluate(trained, dataset, split="val", heads="dpt")

    written = json.loads((tmp_path / "m.json").read_text())
    assert measured.keys() == {"dpt"}
    assert {key: written[key] for key in ("mIoU", "aAcc", "per_class")} == {
        key: measured["dpt"][key] for key in ("mIoU", "aAcc", "per_class")
    }


def test_evaluate__takes_a_predictor_and_data_in_any_form(trained, dataset):
    predictor = densevit.load(trained)
    keys = {"root": str(dataset), "split": "val"}
    expected = densevit.evaluate(predictor, dataset, split="val", heads=["dpt", "setr"])

    for data in (keys, FolderConfig.parse(keys), str(dataset)):
        assert densevit.evaluate(predictor, data, split="val", heads=["dpt", "setr"]) == expected
    assert densevit.evaluate(predictor, keys, heads=["dpt", "setr"]) == expected


def test_evaluate__takes_functions_and_options(trained):
    seen: list[tuple[int, int]] = []

    plain = densevit.evaluate(trained, scenes, split="val", heads="dpt", progress=lambda *done: seen.append(done))
    flipped = densevit.evaluate(trained, Scenes(range(100, 102)), heads="dpt", options=InferenceOptions(flip=True))

    assert seen == [(1, 2), (2, 2)]
    assert plain["dpt"]["mIoU"] != flipped["dpt"]["mIoU"]
    assert densevit.evaluate(trained, Scenes(range(100, 102)), heads="dpt") == plain


def test_evaluate__of_a_model_in_its_run_folder_takes_the_data_of_the_run(trained, dataset):
    measured = densevit.evaluate(trained, heads="dpt")

    assert measured["dpt"]["mIoU"] == read_header(trained).card.metrics["dpt"]["mIoU"]


def test_evaluate__warns_of_what_differs_from_the_run(trained, dataset, caplog):
    with caplog.at_level(logging.WARNING):
        densevit.evaluate(trained, dataset, split="train", heads="dpt")

    assert "not as in the model's run: split is 'train' instead of 'val'" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": 7}, "data is of type int; a path, keys or config of a data set"),
        ({"task": "segmentatoin"}, "task 'segmentatoin' is unknown; did you mean 'segmentation'?"),
        ({"heads": "dtp", "data": Scenes(range(1))}, "there is no head 'dtp'; did you mean 'dpt'?"),
    ],
)
def test_evaluate__refuses(arguments, message, trained):
    with pytest.raises(ConfigError) as error:
        densevit.evaluate(trained, **arguments)

    assert message in str(error.value)


# Loading


@pytest.mark.parametrize("name", ["num_classes", "classes"])
def test_load__refuses_classes_and_says_how_to_get_them(name, tmp_path):
    for source in ("segmenter-s-mask", write_model(tmp_path / "m.safetensors", "coarse")):
        with pytest.raises(
            ConfigError, match=f"load\\(\\) got '{name}', but a model has the classes that it was trained"
        ):
            densevit.load(source, **{name: 3})


def test_package__adds_plugins():
    densevit.add_decoder("probe", Probe)
    densevit.add_dataset("scenes", scenes)

    assert "probe" in DECODERS
    assert "scenes" in DATASETS
    with pytest.raises(ConfigError, match="states no kind; write kind: Literal"):
        densevit.add_task(Probe)
