"""DPT of transformers on DINOv2: what its configs and its name say, and what is refused."""

import logging
from typing import Any

import pytest

from densevit.checkpoints.importers import IMPORTERS, Imported, ImportOverrides, Source, build
from densevit.errors import CheckpointError
from densevit.inference_config import WholeProtocol
from densevit.tasks import Depth
from tests.parity.foreign import FIXTURES

DPT_ON_DINOV2 = FIXTURES["hf-dpt-dinov2"]


def imported(name: str = "x", backbone: dict[str, Any] | None = None, **overrides: Any) -> Imported:
    config = dict(DPT_ON_DINOV2.description["hf_config"])
    config["backbone_config"] = config["backbone_config"] | (backbone or {})
    source = Source(name, DPT_ON_DINOV2.state, {"config.json": config}, ImportOverrides(**overrides))
    return build("transformers", IMPORTERS["transformers"], source)


def max_depth_m(imported: Imported) -> float:
    task = imported.bundle.tasks["depth"]
    assert isinstance(task, Depth)
    assert task.quantity == "depth"
    return task.max_depth_m


@pytest.mark.parametrize(
    ("name", "overrides", "metres"),
    [
        ("hf://facebook/dpt-dinov2-small-nyu", {}, 10),
        ("hf://facebook/dpt-dinov2-giant-kitti@main", {}, 80),
        ("models/dpt-dinov2-base-nyu", {"release": "kitti"}, 80),
        ("models/mine", {"release": "nyu"}, 10),
        ("models/mine", {"release": "nyu", "max_depth_m": 25}, 25),
    ],
)
def test_release__is_that_of_the_name_or_the_option(name: str, overrides: dict[str, Any], metres: float) -> None:
    assert max_depth_m(imported(name, **overrides)) == metres


def test_release__that_nothing_tells_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert max_depth_m(imported("models/annual")) == 80

    assert "does not say which release of DPT on DINOv2 it is; depths up to 80 m are taken for valid" in caplog.text


def test_release__of_another_program_is_refused() -> None:
    with pytest.raises(CheckpointError, match="release 'vkitti' is none of nyu, kitti"):
        imported(release="vkitti")


def test_protocol__is_that_of_the_published_processor() -> None:
    bundle = imported(release="nyu").bundle

    assert isinstance(bundle.protocol, WholeProtocol)
    assert (bundle.protocol.resize, bundle.protocol.pad_multiple, bundle.fit.short_side) == (False, 14, 480)
    assert bundle.model.config.normalisation.mean == pytest.approx([0.485, 0.456, 0.406])
    assert bundle.model.config.normalisation.std == pytest.approx([0.229, 0.224, 0.225])


@pytest.mark.parametrize("normed", [True, False])
def test_final_norm__is_that_of_the_config(normed: bool) -> None:
    result = imported(backbone={"apply_layernorm": normed}, release="nyu")

    ignored = [row.name for row in result.report.rows if row.status == "ignored"]
    assert result.bundle.model.config.encoder.final_norm is normed
    assert ("backbone.layernorm.weight" in ignored) is not normed


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ({"model_type": "beit"}, "on the backbone 'beit' .* only its plain ViT, its hybrid and DINOv2"),
        ({"reshape_hidden_states": True}, "reshape_hidden_states=True in its backbone_config"),
        ({"hidden_act": "relu"}, "hidden_act='relu' in its backbone_config"),
        ({"register_order": 1}, "not known: register_order"),
        ({"out_indices": [0, 1, 2, 3], "out_features": None}, "increasing block indices"),
    ],
)
def test_backbone__that_cannot_be_reproduced_is_refused(backbone: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        imported(backbone=backbone)


def test_config__that_is_missing_is_asked_for() -> None:
    with pytest.raises(CheckpointError, match="--num-heads and --taps and --norm-eps"):
        build("transformers", IMPORTERS["transformers"], Source("x", DPT_ON_DINOV2.state))
