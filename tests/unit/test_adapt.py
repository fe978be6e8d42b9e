import logging
from typing import Any

import pytest
import torch

from densevit.checkpoints.adapt import start_from
from densevit.checkpoints.native import Bundle, Card
from densevit.errors import CheckpointError
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Segmentation, Task
from tests.factories import tiny_encoder

STREETS = ("road", "car", "sky")
LINEAR, MASK = {"kind": "segmenter_linear"}, {"kind": "segmenter_mask", "num_heads": 2}


def model(
    decoder: dict[str, Any], num_classes: int, *, head: str = "labels", seed: int = 0, **facts: Any
) -> DenseModel:
    torch.manual_seed(seed)
    config = {"encoder": tiny_encoder(**facts), "heads": {head: {"decoder": decoder, "out_channels": num_classes}}}
    return DenseModel(ModelConfig.parse(config))


def task(*classes: str) -> dict[str, Task]:
    return {"labels": Segmentation(classes=classes)}


def donor(decoder: dict[str, Any], **facts: Any) -> Bundle:
    """A model of STREETS whose parameters all differ from the model of seed 0."""
    network = model(decoder, len(STREETS), seed=1, **facts)
    for parameter in network.parameters():
        parameter.data.normal_()
    return Bundle(network, task(*STREETS), InferenceConfig(), Card())


def fates(report: Any) -> dict[str, str]:
    return {row.name: row.status for row in report.rows}


def test_start__equal_models_take_every_tensor() -> None:
    given, own = donor(MASK), model(MASK, 3)

    report = start_from(own, task(*STREETS), given, "donor")

    stored = given.model.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in own.state_dict().items())
    assert set(fates(report).values()) == {"loaded"}
    assert set(fates(report)) == set(own.state_dict())


@pytest.mark.parametrize(
    ("decoder", "rows"), [(LINEAR, "head.weight"), (MASK, "class_tokens"), (MASK, "mask_norm.weight")]
)
@pytest.mark.parametrize("classes", [("sky", "lorry", "road", "bus"), ("sky", "lorry", "road")])
def test_start__classes_of_both_keep_their_rows(decoder: dict[str, Any], rows: str, classes: tuple[str, ...]) -> None:
    given, own = donor(decoder), model(decoder, len(classes))
    before = own.decoder("labels").state_dict()[rows].clone()

    report = start_from(own, task(*classes), given, "donor")

    axis = 1 if rows == "class_tokens" else 0
    after, stored = own.decoder("labels").state_dict()[rows], given.model.decoder("labels").state_dict()[rows]
    for index, name in enumerate(classes):
        kept = name not in STREETS
        expected = before.select(axis, index) if kept else stored.select(axis, STREETS.index(name))
        assert torch.equal(after.select(axis, index), expected)
    assert f"2 of {len(classes)} classes, by name" in str(report)


def test_start__a_head_of_another_name_is_found_by_its_decoder() -> None:
    given, own = donor(LINEAR), model(LINEAR, 3, head="mine")

    report = start_from(own, {"mine": Segmentation(classes=STREETS)}, given, "donor")

    assert torch.equal(own.decoder("mine").head.weight, given.model.decoder("labels").head.weight)
    assert "from head labels" in str(report)


def test_start__another_decoder_stays_as_it_was() -> None:
    own = model(MASK, 3)
    before = own.decoder("labels").class_tokens.clone()

    report = start_from(own, task(*STREETS), donor(LINEAR), "donor")

    assert torch.equal(own.decoder("labels").class_tokens, before)
    assert fates(report)["heads.labels.class_tokens"] == "missing"


def test_start__position_grid_patches_and_blocks_are_adapted() -> None:
    given = donor(LINEAR, taps=(0, 1, 2, 3))
    own = model(LINEAR, 3, taps=(0, 1), patch_size=8, positions={"kind": "learned", "grid": (6, 6), "num_prefix": 1})

    report = start_from(own, task(*STREETS), given, "donor")

    stored = fates(report)
    assert stored["encoder.pos_embed"] == stored["encoder.patch_embed.proj.weight"] == "adapted"
    assert stored["encoder.blocks.1.mlp.fc1.weight"] == "loaded"
    assert "grid 3 x 3 -> 6 x 6" in str(report)
    assert "patch 16 x 16 -> 8 x 8" in str(report)


def test_start__blocks_that_the_donor_lacks_are_named() -> None:
    report = start_from(model(LINEAR, 3, taps=(0, 1, 2, 3)), task(*STREETS), donor(LINEAR, taps=(0, 1)), "donor")

    assert fates(report)["encoder.blocks.3.mlp.fc1.weight"] == "missing"


def test_start__an_encoder_of_another_width_is_refused() -> None:
    own = model(LINEAR, 3, embed_dim=64)

    with pytest.raises(CheckpointError) as caught:
        start_from(own, task(*STREETS), donor(LINEAR), "donor.safetensors")

    assert str(caught.value) == (
        "donor.safetensors has an encoder of width 32, 2 heads and mlp, but the model has 64, 2 and mlp; "
        "leave model.encoder out to take that of init, or choose another init"
    )


def test_start__facts_that_differ_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        start_from(model(LINEAR, 3, norm_eps=1e-3), task(*STREETS), donor(LINEAR), "donor")

    assert caplog.messages == ["the encoder of donor was trained with norm_eps 1e-06 but the model has 0.001"]
