"""Depth Anything 3 for single photos: what its config and its name say, its sizes, and what is refused."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.checkpoints.importers import IMPORTERS, Imported, ImportOverrides, Source, build, detect
from densevit.checkpoints.open import import_file
from densevit.decoders.dpt import DepthHead
from densevit.errors import CheckpointError, ConfigError
from densevit.inference.predictor import Predictor
from densevit.inference.protocol_resize import opencv_twice, whole_size
from densevit.inference_config import WholeProtocol
from densevit.io import write_json
from densevit.tasks import Depth
from densevit.types import DenseOutput, Size
from tests.parity.foreign import FIXTURES

DA3 = FIXTURES["da3-mono"]
GIVEN: dict[str, Any] = {"num_heads": 2, "taps": (0, 1, 2, 3)}
NET = {"name": "vitl", "out_layers": [0, 1, 2, 3], "alt_start": -1, "qknorm_start": -1, "rope_start": -1}
NET |= {"cat_token": False}
HEAD = {"dim_in": 1024, "output_dim": 1, "features": 256, "out_channels": [256, 512, 1024, 1024]}


def imported(name: str = "x", config: dict[str, Any] | None = None, **overrides: Any) -> Imported:
    side = {} if config is None else {"config.json": config}
    source = Source(name, DA3.state, side, ImportOverrides(**(GIVEN | overrides)))
    return build("depth_anything_3", IMPORTERS["depth_anything_3"], source)


def published_config(**changes: Any) -> dict[str, Any]:
    parts = {"__object__": {"name": "DepthAnything3Net"}, "net": NET, "head": HEAD}
    return {"model_name": "da3metric-large", "config": parts | changes}


def task_of(imported: Imported) -> Depth:
    task = imported.bundle.tasks["depth"]
    assert isinstance(task, Depth)
    return task


@pytest.mark.parametrize(
    ("name", "config", "overrides", "quantity"),
    [
        ("hf://depth-anything/DA3MONO-LARGE", None, {}, "relative_depth"),
        ("hf://depth-anything/DA3METRIC-LARGE/model.safetensors", None, {}, "depth"),
        ("mine/model.safetensors", published_config(), {}, "depth"),
        ("DA3METRIC-LARGE/model.safetensors", {"model_name": "da3mono-large"}, {}, "relative_depth"),
        ("DA3MONO-LARGE/model.safetensors", None, {"release": "metric"}, "depth"),
    ],
)
def test_release__is_that_of_the_option_or_the_config_or_the_name(
    name: str, config: dict[str, Any] | None, overrides: dict[str, Any], quantity: str
) -> None:
    assert task_of(imported(name, config, **overrides)).quantity == quantity


@pytest.mark.parametrize("name", ["mine/model.safetensors", "da3mono/mine/model.safetensors"])
def test_release__that_nothing_tells_is_asked_for(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"does not say release .* give --release"):
        imported(name)


def test_metric_depth__is_for_a_focal_length_of_300_pixels() -> None:
    task = task_of(imported(release="metric"))

    assert (task.unit, task.canonical_focal_px, task.max_depth_m) == ("m", 300, 200)
    assert task.describe()["canonical_focal_px"] == 300


def test_network__has_the_epsilon_of_its_final_norm_and_the_exponential() -> None:
    result = imported(release="mono")

    encoder = result.bundle.model.encoder
    assert (encoder.norm.eps, encoder.blocks[0].norm1.eps) == (1e-5, 1e-6)
    head = result.bundle.model.config.heads["depth"].decoder.head
    assert isinstance(head, DepthHead)
    assert head.activation == "exp"
    sky = [row for row in result.report.rows if "sky" in row.name]
    assert [row.status for row in sky] == ["ignored"] * 4
    counts = result.counts
    assert counts.source == counts.built + counts.ignored


def test_file__of_the_hub_is_read_with_its_config(tmp_path: Path) -> None:
    torch.save({f"model.{name}": tensor for name, tensor in DA3.state.items()}, tmp_path / "model.pth")
    write_json(tmp_path / "config.json", published_config())

    result = import_file(str(tmp_path / "model.pth"), num_heads=2)

    assert (result.importer, task_of(result).quantity) == ("depth_anything_3", "depth")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (published_config(net=NET | {"alt_start": 8}), "alt_start=8 in its net of config.json, but only -1"),
        (published_config(net=NET | {"cat_token": True}), "cat_token=True in its net of config.json, but only False"),
        (published_config(head=HEAD | {"activation": "linear"}), "activation='linear' in its head of config.json"),
        (published_config(head=HEAD | {"pos_embed": True}), "pos_embed=True in its head of config.json"),
        (published_config(cam_dec={"dim_in": 8}), "has cam_dec={'dim_in': 8} in its config.json"),
        (published_config(anyview={}), "keys in its config.json that are not known: anyview"),
        (published_config(net=[1]), "its config file has an unexpected value"),
    ],
)
def test_config__of_another_network_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        imported(config=config)


def test_models_for_several_views__are_refused_by_name() -> None:
    for prefix in ("", "da3."):
        state = {prefix + name: tensor for name, tensor in DA3.state.items()}
        state[f"{prefix}backbone.pretrained.camera_token"] = torch.ones(1, 2, 8)

        with pytest.raises(CheckpointError, match="Depth Anything 3 for several views, whose attention runs across"):
            detect(state, "x")


def test_head__with_a_confidence_is_refused() -> None:
    names = [f"head.scratch.output_conv2.2.{param}" for param in ("weight", "bias")]
    state = DA3.state | {name: torch.cat((DA3.state[name],) * 2) for name in names}
    source = Source("x", state, {}, ImportOverrides(**GIVEN, release="mono"))

    with pytest.raises(CheckpointError, match="gives 2 values for each pixel, but only depth can be reproduced"):
        build("depth_anything_3", IMPORTERS["depth_anything_3"], source)


PROTOCOL = WholeProtocol(kind="depth_anything_3", net_size=(504, 504), multiple=14)


@pytest.mark.parametrize(
    ("photo", "size"),
    [
        ((480, 640), (378, 504)),
        ((1080, 1920), (280, 504)),  # 283.5 becomes 284, which is nearer to 280 than to 294
        ((1920, 1080), (504, 280)),
        ((100, 100), (504, 504)),
        ((504, 7), (504, 14)),  # a half goes up
        ((504, 1), (504, 14)),
    ],
)
def test_size__has_the_long_side_of_the_program_in_whole_patches(photo: Size, size: Size) -> None:
    assert whole_size(PROTOCOL, photo) == size


def test_resize__by_area_is_the_mean_of_what_each_pixel_covers() -> None:
    photo = np.arange(6, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2) * 30

    halved = opencv_twice(photo, 3, (2, 3)) * 255
    in_thirds = opencv_twice(photo[:2, :3], 2, (1, 2)) * 255

    torch.testing.assert_close(halved[0], torch.tensor([[15.0, 75.0, 135.0]] * 2))
    torch.testing.assert_close(in_thirds[0], torch.tensor([[10.0, 50.0]]))  # (0 + 30 / 2) / 1.5, (30 / 2 + 60) / 1.5


def test_resize__that_enlarges_stays_in_8_bits() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)

    pixels = opencv_twice(photo, 20, (14, 28)) * 255

    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)
    assert (pixels.min() >= 0) & (pixels.max() <= 255)


def test_photo__has_relative_depth_with_the_protocol_and_without() -> None:
    predictor = Predictor(imported(release="mono").bundle)
    photo = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    small = WholeProtocol(kind="depth_anything_3", net_size=(42, 42), multiple=14)

    for protocol in (None, small):
        result = predictor.predict(photo, protocol=protocol)
        assert (result.depth_quantity, result.depth_unit) == ("relative_depth", "")
        assert result.depth.shape == (30, 40)
        assert (result.depth > 0).all()


def test_relative_depth__is_blind_to_scale_and_shift_in_loss_and_metrics() -> None:
    task = Depth(quantity="relative_depth")
    true = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(0)) * 8 + 1
    values = 0.2 * true + 3

    assert task.loss(DenseOutput(values[:, None]), true, align_corners=False) < 1e-5
    metrics = task.new_metrics()
    metrics.update(values, true)
    assert metrics.compute()["AbsRel"] == pytest.approx(0, abs=1e-5)
    assert math.isclose(metrics.compute()["delta1"], 1)


def test_focal_length__is_of_metres_only() -> None:
    with pytest.raises(ConfigError, match="canonical_focal_px is of metres, but relative_depth has none; leave it out"):
        Depth.parse({"quantity": "relative_depth", "canonical_focal_px": 300})
