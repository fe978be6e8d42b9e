from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.checkpoints.native import Bundle, Card, Storage, load_bundle, save_bundle
from densevit.errors import ConfigError
from densevit.training.build_model import build_model, set_training
from densevit.training.config import TrainConfig
from tests.factories import tiny_encoder


def config(**facts: Any) -> TrainConfig:
    """A linear head on a tiny encoder with drop path."""
    data = {
        "model": {
            "encoder": tiny_encoder(drop_path=0.5),
            "heads": {"labels": {"decoder": {"kind": "segmenter_linear"}, "out_channels": 2}},
        },
        "tasks": {"labels": {"kind": "segmentation", "classes": ("a", "b")}},
        "sources": [{"train": {"root": "data"}, "heads": ["labels"]}],
        "augment": {"crop": (32, 32)},
        "iterations": 1,
        **facts,
    }
    return TrainConfig.parse(data)


def test_frozen_encoder__takes_no_gradient_and_drops_no_path_from_the_start() -> None:
    model = build_model(config(freeze="encoder"))  # the feature cache is filled before the first step

    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model.encode(images).tokens[-1], model.encode(images).tokens[-1])


@pytest.mark.parametrize(("freeze", "training"), [("encoder", False), ("none", True)])
def test_set_training__keeps_a_frozen_encoder_in_evaluation_mode(freeze: str, training: bool) -> None:
    run = config(freeze=freeze)
    model = build_model(run).eval()

    set_training(model, run)

    assert model.heads.training
    assert {module.training for module in model.encoder.modules()} == {training}


def test_partly_frozen_encoder__trains_its_upper_blocks_alone() -> None:
    run = config(freeze=3)
    model = build_model(run)

    set_training(model, run)

    trained = {name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.encoder.named_parameters() if name.startswith("blocks.3.")}
    assert not model.encoder.blocks[2].training
    assert model.encoder.blocks[3].training


def test_freeze__of_every_block_is_refused() -> None:
    with pytest.raises(ConfigError, match="freeze is 4 but the encoder has 4 blocks; choose 1 to 3"):
        build_model(config(freeze=4))


@pytest.mark.parametrize("frozen", [False, True])
def test_freeze_norms__keeps_running_statistics_and_trains_the_rest(frozen: bool, tmp_path: Path) -> None:
    naive = {"heads": {"labels": {"decoder": {"kind": "setr_naive", "channels": 8}, "out_channels": 2}}}
    model = {"encoder": tiny_encoder(), **naive}
    donor = build_model(config(model=model))
    tasks: Any = config().tasks
    save_bundle(Bundle(donor, tasks, config().fit, Card()), tmp_path / "m.safetensors")
    run = config(model=model, init=str(tmp_path / "m.safetensors"), freeze_norms=frozen)
    trained = build_model(run)
    before = {name: value.clone() for name, value in trained.named_buffers() if "running" in name}

    set_training(trained, run)
    trained(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))["labels"].logits.sum().backward()

    after = dict(trained.named_buffers())
    assert before
    assert {torch.equal(value, after[name]) for name, value in before.items()} == {frozen}
    assert all(parameter.grad is not None for parameter in trained.heads.parameters())


def test_freeze_norms__needs_a_trained_model() -> None:
    with pytest.raises(ConfigError, match="freeze_norms keeps the statistics of a trained model; name one with init"):
        config(freeze_norms=True)


def test_init__default_is_the_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor = build_model(config())
    tasks: Any = config().tasks
    save_bundle(Bundle(donor, tasks, config().fit, Card()), tmp_path / "m.safetensors")
    monkeypatch.setattr("densevit.checkpoints.hub.DEFAULT", tmp_path / "m.safetensors")

    model = build_model(config(init="default", seed=1))

    given = donor.state_dict()
    assert all(torch.equal(tensor, given[name]) for name, tensor in model.state_dict().items())


def test_encoder_weights__may_be_a_checkpoint_that_stores_them_rounded(tmp_path: Path) -> None:
    donor, path = build_model(config()), tmp_path / "m.safetensors"
    tasks: Any = config().tasks
    save_bundle(Bundle(donor, tasks, config().fit, Card()), path, Storage(int8=("encoder.blocks.*.weight",)))

    encoder = build_model(config(encoder_weights=str(path), seed=1)).encoder.state_dict()

    stored = load_bundle(path).model.encoder.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in encoder.items())


def test_init__takes_what_fits_and_keeps_the_rest(tmp_path: Path) -> None:
    donor = build_model(config())
    tasks: Any = config().tasks
    save_bundle(Bundle(donor, tasks, config().fit, Card()), tmp_path / "m.safetensors")
    three = config(
        init=str(tmp_path / "m.safetensors"),
        model={
            "encoder": tiny_encoder(),
            "heads": {"labels": {"decoder": {"kind": "segmenter_linear"}, "out_channels": 3}},
        },
        tasks={"labels": {"kind": "segmentation", "classes": ("a", "b", "c")}},
    )

    model = build_model(three)

    own, given = model.state_dict(), donor.state_dict()
    assert {name for name in own if own[name].shape != given[name].shape} == {
        "heads.labels.head.weight",
        "heads.labels.head.bias",
    }
    assert all(torch.equal(own[name], given[name]) for name in own if name.startswith("encoder."))
