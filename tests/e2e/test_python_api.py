"""The package from Python: load, predict, and what a result gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import densevit
from densevit.errors import CheckpointError, ConfigError, DataError
from tests.e2e.scenes import CLASSES, Scenes, scene

PHOTO = scene(3, (50, 75)).image


@pytest.fixture(scope="module")
def model(trained: Path) -> densevit.Predictor:
    """The trained model, loaded as a user would."""
    return densevit.load(trained)


@pytest.fixture(scope="module")
def prediction(model: densevit.Predictor) -> densevit.Prediction:
    """Its prediction of a photo."""
    return model.predict(PHOTO)


@pytest.mark.parametrize(
    "given",
    [
        "path",
        "name",
        Image.fromarray(PHOTO),
        torch.from_numpy(PHOTO).permute(2, 0, 1),
        torch.from_numpy(PHOTO).permute(2, 0, 1)[None].float() / 255,
        PHOTO.astype(np.float32) / 255,
    ],
    ids=["path", "name", "PIL", "tensor", "float batch", "float array"],
)
def test_predict__takes_a_photo_in_any_form(model, prediction, tmp_path, given):
    if isinstance(given, str):
        path = tmp_path / "photo.png"
        Image.fromarray(PHOTO).save(path)
        given = path if given == "path" else str(path)
    np.testing.assert_array_equal(model.predict(given).labels, prediction.labels)


def test_predict__gives_typed_results_in_the_size_of_the_photo(prediction):
    size = PHOTO.shape[:2]
    found = {name: getattr(prediction, name) for name in ("labels", "scores", "entropy", "depth")}
    assert {name: (values.shape, values.dtype) for name, values in found.items()} == {
        "labels": (size, np.uint8),
        "scores": (size, np.float32),
        "entropy": (size, np.float32),
        "depth": (size, np.float32),
    }
    assert (prediction.depth_quantity, prediction.depth_unit) == ("depth", "m")
    assert prediction.overlay().shape == PHOTO.shape


def test_predict__the_primary_head_gives_labels_and_classes(prediction):
    chosen = prediction[prediction.primary]
    assert prediction.labels is chosen.labels
    assert prediction.class_names == chosen.class_names


def test_predict__the_same_photo_gives_the_same_result(model, prediction):
    again = model.predict(PHOTO)
    assert all(torch.equal(again[name].logits, prediction[name].logits) for name in prediction)


def test_predict__every_head_is_as_if_it_ran_alone(trained, prediction):
    alone = densevit.load(trained, heads=["depth"]).predict(PHOTO)
    assert list(alone) == ["depth"]
    assert torch.equal(alone["depth"].logits, prediction["depth"].logits)


def test_predict__save_writes_into_a_folder(prediction, tmp_path):
    record = prediction.save(tmp_path / "out")
    assert (tmp_path / "out" / "prediction.json").exists()
    assert set(record["heads"]) == set(prediction)


@pytest.mark.parametrize("heads", ["depth", ("depth",), ["depth"]])
def test_load__heads_may_be_a_name_or_several(trained, heads):
    assert densevit.load(trained, heads=heads).heads == ("depth",)


def test_load__an_unknown_head_is_refused(trained):
    with pytest.raises(ConfigError, match="there is no head 'dept'; did you mean 'depth'"):
        densevit.load(trained, heads=("dept",))


def test_load__an_unknown_model_is_refused():
    with pytest.raises(CheckpointError) as caught:
        densevit.load("depth-anything-v2-smal")
    assert str(caught.value) == "there is no model 'depth-anything-v2-smal'; did you mean 'depth-anything-v2-small'?"


def test_load__the_model_knows_what_it_is(model):
    assert (model.card.name, model.card.licence) == ("tiny", "Apache-2.0")
    assert model.tasks["dpt"].plain()["classes"] == list(CLASSES)
    assert not model.model.training


def test_predict__something_else_than_a_photo_is_refused(model):
    with pytest.raises(DataError, match="the image is of type dict; a path, a Pillow image"):
        model.predict({})


def test_evaluate__refuses_the_split_of_a_data_set_in_memory(model):
    with pytest.raises(
        ConfigError, match=r"split is 'val', but a densevit\.data\.Dataset has no splits; give the data"
    ):
        densevit.evaluate(model, Scenes(range(2)), split="val")


def test_package__names_all_exist():
    assert [name for name in densevit.__all__ if not hasattr(densevit, name)] == []


def test_package__unknown_names_do_not_exist():
    with pytest.raises(AttributeError, match="module 'densevit' has no attribute 'Predicter'"):
        _ = densevit.Predicter


def test_package__models_begin_with_the_one_that_ships():
    assert densevit.list_models()[0] == "default"
    assert "segmenter-s-mask" in densevit.list_models()


def test_package__importing_it_imports_no_torch():
    heavy = {"torch", "numpy", "PIL", "pydantic"}
    code = f"import sys, densevit; densevit.list_models; print(sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
