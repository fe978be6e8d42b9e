"""``densevit train`` on data that is no plain folder of photos: archives, public layouts, Python, bands."""

import numpy as np
import pytest

from densevit.checkpoints.native import load_bundle
from densevit.data.class_names import CITYSCAPES, CITYSCAPES_COLOURS
from tests.contract import fakes
from tests.e2e.runs import write_run
from tests.unit.rasters import write_array


def test_train__reads_a_public_data_set_from_an_archive_with_workers(cli, tmp_path):
    (tmp_path / "set").mkdir()
    fakes.cityscapes(tmp_path / "set")
    archive = fakes.pack(tmp_path / "set", tmp_path / "cityscapes.zip")
    config = write_run(
        tmp_path / "run.yaml", None, workers=2, augment={"crop": [16, 16], "cutmix": 0.5, "classmix": 0.5}
    )

    done = cli("train", "--config", config, "--data", archive, "--dataset", "cityscapes", "--out", tmp_path / "out")

    assert done.code == 0, done.err
    task = load_bundle(tmp_path / "out" / "model.safetensors").tasks["main"]
    assert (task.classes, task.palette) == (CITYSCAPES, CITYSCAPES_COLOURS)
    place = ("--data", archive, "--dataset", "cityscapes", "--split", "val")
    measured = cli("evaluate", "--model", tmp_path / "out" / "model.safetensors", *place)
    assert measured.code == 0, measured.err
    assert "IoU vegetation" in measured.out
    again = cli("train", "--config", tmp_path / "out" / "config.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err


def test_train__learns_from_a_data_set_in_python(cli, tmp_path):
    place = {"kind": "python", "factory": "tests.contract.fakes:make_samples", "arguments": {"length": 3}}
    config = write_run(tmp_path / "run.yaml", [{"train": place, "val": place, "batch_size": 2}])

    done = cli("train", "--config", config, "--out", tmp_path / "out")

    assert done.code == 0, done.err
    assert load_bundle(tmp_path / "out" / "model.safetensors").tasks["main"].classes == ("a", "b", "c")


def test_train__learns_from_images_of_other_bands(cli, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 9000, (24, 24, 6)).astype(np.uint16)
    write_array(tmp_path / "images" / "a.tif", pixels)
    fakes.save((pixels[:, :, 0] > 4500).astype(np.uint8), tmp_path / "masks" / "a.png")
    place = {"root": str(tmp_path), "bands": [4, 3, 2, 1, 6], "full_scale": 10000, "classes": ["low", "high"]}
    config = write_run(tmp_path / "run.yaml", [{"train": place, "val": place, "batch_size": 2}], in_channels=5)

    done = cli("train", "--config", config, "--out", tmp_path / "out")

    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ({"kind": "cityscapes", "rot": "x"}, "rot: unknown key; did you mean 'root'?"),
        ({"kind": "citiscapes", "root": "x"}, "data set kind 'citiscapes' is unknown; did you mean 'cityscapes'?"),
        ({"kind": "cityscapes", "root": "x"}, "x does not exist; "),
        ({"kind": "python", "factory": "nowhere_at_all:f"}, "factory 'nowhere_at_all:f' cannot be imported"),
    ],
)
def test_train__refuses_data_that_is_not_there(cli, tmp_path, place, problem):
    config = write_run(tmp_path / "run.yaml", [{"train": place}])

    done = cli("train", "--config", config, "--out", tmp_path / "out")

    assert (done.code, "Traceback" in done.err) == (2, False), done.err
    assert problem in done.err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_predict__reads_photos_in_an_archive(cli, small_default, tmp_path):
    fakes.photo(tmp_path / "set" / "photos" / "a.png")
    archive = fakes.pack(tmp_path / "set", tmp_path / "set.zip")

    done = cli("predict", f"{archive}!/photos", "--out", tmp_path / "out")

    assert done.code == 0, done.err
    assert (tmp_path / "out" / "a.json").is_file()
