"""A predictor's features, and moving and saving it."""

from pathlib import Path

import numpy as np
import pytest
import torch

import densevit
from densevit.errors import ConfigError, DataError
from densevit.inference.predictor import Predictor
from densevit.inference.speed import SpeedConfig
from densevit.inference_config import InferenceConfig
from densevit.pixels import fit_image
from tests.unit.predictors import photo, predictor

# The tiny model runs photos at a short side of 48 pixels, with patches of 16.
WIDE = (60, 80)


def test_features__are_the_taps_of_the_encoder_as_maps():
    model = predictor()
    image = photo(*WIDE)

    features = model.features(image)

    taps = model.model.encode(fit_image(image, (48, 64))[None])
    assert list(features) == ["block_0", "block_1", "block_2", "block_3"]
    for number, (name, expected) in enumerate(zip(features, taps.maps(), strict=True)):
        assert (features[name] == expected[0].detach().numpy()).all()
        assert (features.prefix[name] == taps.prefix[number][0].detach().numpy()).all()
    assert (features.grid, features.image_size, features.input_size, features.scale) == (
        (3, 4),
        WIDE,
        (48, 64),
        (20, 20),
    )
    assert features.last is features["block_3"]
    assert features["block_0"].dtype == np.float32


def test_features__of_a_stem_have_finer_grids():
    features = predictor("dpt/hybrid").features(photo(*WIDE))

    assert [name for name in features if name.startswith("stem")] == ["stem_0", "stem_1"]
    assert features["stem_0"].shape[1:] == (12, 16)
    assert features.last.shape[1:] == features.grid


def test_features__take_another_size():
    assert predictor().features(photo(*WIDE), short_side=96).grid == (6, 8)


def test_features__say_which_maps_there_are():
    with pytest.raises(ConfigError, match=r"there is no feature map 'block_9'; this encoder gives block_0, block_1"):
        predictor().features(photo(*WIDE))["block_9"]
    assert "block_9" not in predictor().features(photo(*WIDE))


def test_features__learn_a_map_by_ridge_regression():
    """A linear probe: brightness from features."""
    model = predictor()
    rows, values = [], []
    for image in (photo(96, 96), photo(64, 128)):
        maps = model.features(image, short_side=96).last
        rows.append(maps.reshape(len(maps), -1).T)
        values.append(fit_image(image, (maps.shape[1], maps.shape[2])).mean(0).numpy().ravel())
    x, y = np.concatenate(rows), np.concatenate(values)
    x = np.hstack([x, np.ones((len(x), 1))])
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ y)
    assert np.corrcoef(x @ weights, y)[0, 1] > 0.8


# Moving


def test_to__gives_the_predictor_itself():
    model = predictor()
    assert model.to("cpu") is model


def test_to__refuses_a_device_that_is_not_there():
    with pytest.raises(ConfigError, match="device 'nowhere' cannot be used"):
        predictor().to("nowhere")


def test_to__refuses_programs_of_another_device(monkeypatch):
    model = predictor()
    model.speed = SpeedConfig(engine="openvino")
    monkeypatch.setattr("densevit.inference.predictor.pick_device", lambda name: torch.device("cuda"))
    with pytest.raises(ConfigError, match=r"builds programs for cpu and cannot move to cuda; load the model there"):
        model.to("cuda")


# Saving


def test_save__writes_a_checkpoint_with_the_settings_of_the_predictor(tmp_path: Path):
    model = predictor()
    model.fit = InferenceConfig(short_side=96)

    path = model.save(tmp_path / "deeper" / "mine.safetensors")

    again = densevit.load(path)
    assert isinstance(again, Predictor)
    assert (again.fit, again.tasks, again.card) == (model.fit, model.tasks, model.card)
    assert torch.equal(again.predict(photo())["main"].logits, model.predict(photo())["main"].logits)
    assert (again.predict(photo()).image == photo()).all()


def test_save__replaces_its_own_file_and_no_other(tmp_path: Path):
    model, path = predictor(), tmp_path / "mine.safetensors"
    model.save(path)
    model.save(path)
    path.write_bytes(b"somebody's")

    with pytest.raises(DataError, match="densevit did not write what is there now"):
        model.save(path)

    assert path.read_bytes() == b"somebody's"
    assert densevit.load(model.save(path, overwrite=True)).card == model.card


def test_save__wants_the_suffix_of_checkpoints(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"mine.pth does not end in .safetensors, as densevit's checkpoints do"):
        predictor().save(tmp_path / "mine.pth")


def test_save__refuses_a_model_that_an_engine_runs(tmp_path: Path):
    model = predictor()
    model.speed = SpeedConfig(engine="openvino")
    with pytest.raises(ConfigError, match="engine 'openvino' runs the model"):
        model.save(tmp_path / "mine.safetensors")


def test_read_only_image__is_taken_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    image = np.ascontiguousarray(photo(48, 64))
    image.flags.writeable = False
    torch.set_warn_always(True)
    try:
        fit_image(image, (48, 64))
    finally:
        torch.set_warn_always(False)
    assert not recwarn.list
