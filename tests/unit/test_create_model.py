"""``create_model``: published weights, or random ones, to train on other classes; and ``train`` from such weights."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import densevit
from densevit.checkpoints.native import read_header
from densevit.checkpoints.published import PUBLISHED, Published
from densevit.data.description import describe
from densevit.errors import CheckpointError, ConfigError
from densevit.model import DenseModel
from densevit.training.fine_tuning import FINE_TUNED
from densevit.training.resolve_config import resolve_config
from tests.e2e.scenes import CLASSES, write_model
from tests.publisher import TINY, Place

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SMALL = ("--set", "augment.crop=[32, 32]", "--set", "fit.short_side=32", "--set", "optim.lr=1e-9")


def layouts_with_classes() -> dict[str, Published]:
    rows = [row for row in PUBLISHED.values() if row.task == "segmentation"]
    return {f"{row.import_options['as_source']}-{row.family}": row for row in reversed(rows)}


@pytest.fixture
def several(tmp_path: Path) -> Path:
    return write_model(tmp_path / "several.safetensors", "coarse", "segmenter", "depth")


def test_model__is_ready_to_train_with_the_weights_of_its_name(row: Published) -> None:
    model = densevit.create_model(row.name)

    loaded = densevit.load(row.name).model.state_dict()
    assert isinstance(model, DenseModel)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("layout", layouts_with_classes().values(), ids=list(layouts_with_classes()))
def test_other_classes__change_only_the_classifier(
    layout: Published, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = place.publish(layout, tmp_path / "origin")
    with caplog.at_level(logging.INFO):
        model = densevit.create_model(row.name, num_classes=11)

    loaded = densevit.load(row.name).model.state_dict()
    state = model.state_dict()
    new = [name for name, tensor in state.items() if tensor.shape != loaded[name].shape]
    (line,) = [record.getMessage() for record in caplog.records if "random values" in record.getMessage()]
    assert model.config.heads["labels"].out_channels == 11
    assert state.keys() == loaded.keys()
    assert all(torch.equal(state[name], loaded[name]) for name in state if name not in new)
    assert 0 < len(new) < len(state) // 2
    old = read_header(place.folder(row.name) / "model.safetensors").model.heads["labels"].out_channels
    assert line == (
        f"head labels of {row.name} has 11 classes instead of {old}: {', '.join(new)} begin with random values, and "
        f"all other weights are those of {row.name}"
    )
    sides = [2 * side for side in model.config.encoder.patch_size]
    output = model(torch.rand(2, 3, *sides))["labels"]
    output.logits.sum().backward()
    assert output.logits.shape[1] == 11


def test_as_many_classes__keep_all_weights(row: Published, caplog: pytest.LogCaptureFixture) -> None:
    model = densevit.create_model(row.name)
    number = model.config.heads["labels"].out_channels

    again = densevit.create_model(row.name, num_classes=number).state_dict()

    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())
    assert "random values" not in caplog.text


@pytest.mark.parametrize(("name", "number"), [("segmenter-ti-mask", 150), ("segmenter-s-linear", 150)])
def test_random_model__needs_no_network(name: str, number: int, place: Place) -> None:
    first, second = (densevit.create_model(name, pretrained=False, num_classes=n) for n in (None, 3))

    heads = [model.config.heads["labels"].out_channels for model in (first, second)]
    assert heads == [number, 3]
    assert first.training
    assert not torch.equal(*(next(model.encoder.parameters()) for model in (first, second)))
    assert place.server.requests == []


def test_random_model__of_a_published_name_has_the_architecture_of_its_preset(place: Place) -> None:
    model = densevit.create_model("segmenter-ti-mask-ade20k", pretrained=False)

    assert model.config == densevit.create_model("segmenter-ti-mask", pretrained=False).config
    assert place.server.requests == []


def test_random_model__has_the_architecture_of_a_checkpoint(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.safetensors", "coarse")

    given, random = (densevit.create_model(path, pretrained=pretrained) for pretrained in (True, False))

    assert given.config == random.config
    assert not torch.equal(next(given.encoder.parameters()), next(random.encoder.parameters()))


def test_preset_without_weights__is_refused_with_what_to_do() -> None:
    with pytest.raises(CheckpointError, match=r'create_model\("segmenter-s-linear", pretrained=False\) does'):
        densevit.create_model("segmenter-s-linear")


@pytest.mark.parametrize(
    ("num_classes", "message"),
    [
        (3, "has several heads with classes; give num_classes={'coarse': 3, 'segmenter': 3}"),
        ({"segmenter": 3, "corse": 3}, "has no head 'corse' with classes; it has coarse, segmenter"),
        ({"depth": 3}, "has no head 'depth' with classes; it has coarse, segmenter"),
        ({"segmenter": 0}, "heads.segmenter.out_channels"),
        ({"segmenter": "three"}, "heads.segmenter.out_channels"),
        ({"segmenter": 10**9}, "heads.segmenter.out_channels"),
    ],
)
def test_classes__are_of_one_head(num_classes: Any, message: str, several: Path) -> None:
    with pytest.raises(ConfigError) as error:
        densevit.create_model(several, num_classes=num_classes)
    assert message in str(error.value)


def test_classes__of_one_head_leave_the_others_alone(several: Path) -> None:
    given, model = densevit.create_model(several), densevit.create_model(several, num_classes={"segmenter": 9})

    assert [head.out_channels for head in model.config.heads.values()] == [
        9 if name == "segmenter" else head.out_channels for name, head in given.config.heads.items()
    ]
    for name, tensor in given.decoder("coarse").state_dict().items():
        assert torch.equal(tensor, model.decoder("coarse").state_dict()[name])


def test_depth__has_no_classes(place: Place, tmp_path: Path) -> None:
    row = place.publish(PUBLISHED["dpt-hybrid-nyu"], tmp_path / "origin")

    with pytest.raises(ConfigError) as error:
        densevit.create_model(row.name, num_classes=3)

    assert str(error.value) == f"{row.name} has no classes, since it predicts depth; leave num_classes out"


# Training


@pytest.mark.parametrize("name", ["setr-pup-l-ade20k", "segmenter-ti-mask"])
def test_train__goes_on_from_a_published_model(
    name: str, place: Place, dataset: Path, cli: Any, tmp_path: Path
) -> None:
    row = place.publish(PUBLISHED[name], tmp_path / "origin")
    out = tmp_path / "run"

    result = cli("train", "--init", row.name, "--data", dataset, "--out", out, "--set", "iterations=1", *SMALL)

    assert result.code == 0, result.err
    trained, given = densevit.load(out / "model.safetensors"), densevit.load(row.name)
    assert trained.tasks["labels"].plain()["classes"] == list(CLASSES)
    assert trained.model.config.encoder == given.model.config.encoder
    assert trained.model.config.heads["labels"].decoder == given.model.config.heads["labels"].decoder
    assert "classes, by name" in result.err


def test_train__starts_with_all_weights_but_those_of_classes(
    row: Published, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"augment.crop": [32, 32], "fit.short_side": 32, "iterations": 1, "optim.lr": 1e-12}

    result = densevit.train(dataset, tmp_path / "run", init=row.name, overrides=small, device="cpu")

    given, trained = (densevit.load(source).model.state_dict() for source in (row.name, result.path))
    kept = [key for key in given if given[key].shape == trained[key].shape and not key.endswith(STATISTICS)]
    assert len(kept) > len(given) // 2
    for key in kept:
        torch.testing.assert_close(trained[key], given[key], rtol=1e-5, atol=1e-6)


def test_train__has_settings_for_what_nobody_set(several: Path, dataset: Path) -> None:
    data = describe(dataset).config
    one = write_model(several.parent / "one.safetensors", "coarse")

    config = resolve_config(None, [], init=str(one), data=data)

    assert (config.iterations, config.schedule.warmup) == (FINE_TUNED["iterations"], 50)
    with pytest.raises(ConfigError, match=r"has 2 heads that could be fine-tuned on the data \(coarse, segmenter\)"):
        resolve_config(None, [], init=str(several), data=data)


def test_train__of_a_name_that_is_offline_ends_with_2(place: Place, dataset: Path, cli: Any, tmp_path: Path) -> None:
    result = cli("train", "--init", "segmenter-ti-mask", "--data", dataset, "--out", tmp_path / "run")

    assert result.code == 2
    assert "the weights of segmenter-ti-mask could not be fetched" in result.err


def test_every_layout__has_a_tiny_checkpoint() -> None:
    assert {(row.import_options["as_source"], row.family, row.task) for row in PUBLISHED.values()} <= TINY.keys()
