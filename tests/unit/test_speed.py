from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.checkpoints.native import load_bundle
from densevit.encoder.token_merging_rules import TomeMerging
from densevit.errors import ConfigError
from densevit.inference.predictor import Predictor
from densevit.inference.speed import SpeedConfig, apply_speed, read_speed
from tests.e2e.scenes import scene, write_model
from tests.factories import tiny_model


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny model whose encoder has blocks 0 to 2, patch size 8 and photos of short side 48."""
    return write_model(tmp_path / "tiny.safetensors", "setr", "segmenter", "depth")


SWITCHES: list[dict[str, Any]] = [
    {"merging": {"kind": "tome", "first": 0, "every": 1}},
    {"merging": {"kind": "algm", "local_block": 0, "local_threshold": 0.5}},
    {"patch_size": 12},
    {"short_side": 24},
    {"exit_block": 1},
    {"exit_block": 0, "patch_size": 16, "short_side": 64, "merging": {"kind": "tome", "first": 0, "share": 0.3}},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_predictor__gives_every_head_at_the_size_of_the_photo(weights: Path, switches: dict[str, Any]) -> None:
    photo = scene(0, (50, 70)).image

    prediction = Predictor.load(weights, device="cpu", speed=switches).predict(photo)

    assert {prediction[head].labels.shape for head in ("setr", "segmenter")} == {(50, 70)}
    assert prediction.depth.shape == (50, 70)


def test_no_switch__changes_nothing(weights: Path) -> None:
    bundle = load_bundle(weights)

    assert apply_speed(bundle, SpeedConfig()) == bundle


def test_switches__leave_the_given_model_as_it_is(weights: Path) -> None:
    bundle = load_bundle(weights)
    before = bundle.model.config
    speed = SpeedConfig(merging=TomeMerging(first=1), patch_size=16, exit_block=1, short_side=32)

    cheaper = apply_speed(bundle, speed)

    assert (bundle.model.config, bundle.model.encoder.merging, bundle.fit.short_side) == (before, None, 48)
    own, shared = (m.state_dict()["encoder.blocks.0.mlp.fc1.weight"] for m in (bundle.model, cheaper.model))
    assert own.data_ptr() == shared.data_ptr()
    assert len(cheaper.model.encoder.blocks) == 2


def test_merging__stays_out_of_the_config_and_the_weights(weights: Path) -> None:
    bundle = load_bundle(weights)

    merged = apply_speed(bundle, SpeedConfig(merging=TomeMerging()))

    assert merged.model.config.plain() == bundle.model.config.plain()
    assert list(merged.model.state_dict()) == list(bundle.model.state_dict())


def test_patch_size__keeps_what_a_flat_photo_gives(weights: Path) -> None:
    bundle = load_bundle(weights)
    images = torch.full((1, 3, 48, 48), 0.4)

    larger = apply_speed(bundle, SpeedConfig(patch_size=16))

    own, _ = bundle.model.encoder.patch_embed(images)
    new, _ = larger.model.encoder.patch_embed(images)
    assert (own.shape[-2:], new.shape[-2:]) == ((6, 6), (3, 3))
    torch.testing.assert_close(new[0, :, 0, 0], own[0, :, 0, 0], rtol=1e-3, atol=1e-4)


def test_exit_block__moves_later_taps_there(weights: Path) -> None:
    bundle = load_bundle(weights)

    early = apply_speed(bundle, SpeedConfig(exit_block=1)).model

    assert early.config.encoder.taps == (0, 1)
    assert early.config.head_taps("setr") == (0, 1, 1)
    assert early.config.head_taps("depth") == (0, 1, 1, 1)
    images = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        taps, all_taps = early.encode(images), bundle.model.encode(images)
    assert torch.equal(taps.tokens[1], all_taps.tokens[1])


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"exit_block": 3}, "exit_block is 3 but the encoder ends with block 2; take one from 0 to 2"),
        (
            {"merging": {"kind": "tome", "first": 1}, "exit_block": 0},
            "merging.first is 1 but the encoder ends with block 0; take one from 0 to 0",
        ),
        (
            {"mergin": {"kind": "tome"}},
            "speed is not a valid SpeedConfig:\n  mergin: unknown key; did you mean 'merging'?",
        ),
        ({"patch_size": 0}, "speed is not a valid SpeedConfig:\n  patch_size: Input should be greater than 0 (got 0)"),
    ],
)
def test_switch__is_refused(weights: Path, switches: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Predictor.load(weights, device="cpu", speed=switches)

    assert str(caught.value) == message


def test_patch_size__of_a_hybrid_encoder_is_refused(weights: Path) -> None:
    from dataclasses import replace

    from densevit.tasks import parse_task

    model = tiny_model("dpt/hybrid")
    task = parse_task({"kind": "segmentation", "classes": [str(i) for i in range(5)]})
    bundle = replace(load_bundle(weights), model=model, tasks={"main": task})

    with pytest.raises(ConfigError) as caught:
        apply_speed(bundle, SpeedConfig(patch_size=32))

    assert str(caught.value) == (
        "patch_size is 32 but the encoder has a convolutional stem of stride 16; its patches cannot be resampled; "
        "use short_side"
    )


def test_read_speed__lays_pairs_over_files(tmp_path: Path) -> None:
    file = tmp_path / "speed.yaml"
    file.write_text("short_side: 320\nmerging: {kind: tome, share: 0.3}\n", encoding="utf-8")

    speed = read_speed([str(file), "merging.share=0.5", "patch_size=24"])

    assert speed.set_values()["merging"]["share"] == 0.5
    assert (speed.short_side, speed.patch_size) == (320, 24)


def test_read_speed__takes_itself_data_and_paths(tmp_path: Path) -> None:
    file = tmp_path / "speed.yaml"
    file.write_text("exit_block: 7\n", encoding="utf-8")
    speed = SpeedConfig(exit_block=7)

    assert {read_speed(source) for source in (speed, {"exit_block": 7}, file, str(file), ["exit_block=7"])} == {speed}
    assert read_speed(None) == SpeedConfig()


def test_read_speed__refuses_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError) as caught:
        read_speed("fast.yaml")

    assert str(caught.value) == "cannot read config fast.yaml: No such file or directory; give the path of a YAML file"


def test_resume__does_not_take_results_of_another_speed(cli: Any, weights: Path, tmp_path: Path) -> None:
    from PIL import Image

    photo = tmp_path / "photo.png"
    Image.fromarray(np.asarray(scene(0).image)).save(photo)
    arguments = ("predict", photo, "--model", weights, "--out", tmp_path / "out", "--resume")

    first = cli(*arguments, "--speed", "short_side=32")
    again = cli(*arguments, "--speed", "short_side=32")
    other = cli(*arguments)

    assert "1 predicted, 0 skipped" in first.err
    assert "0 predicted, 1 skipped" in again.err
    assert "1 predicted, 0 skipped" in other.err
