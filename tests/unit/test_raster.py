"""Rasters that stream: equal to the prediction of the same photo, placed on the earth, resumable, whole or absent."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from densevit.checkpoints.native import Bundle, Card
from densevit.errors import ConfigError, DataError
from densevit.inference.predictor import Predictor
from densevit.inference.raster import job as streaming
from densevit.inference.raster.job import RasterConfig
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference_config import InferenceConfig
from densevit.io.raster import open_raster
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import Depth, Regression, Segmentation
from tests.factories import VARIANTS, tiny_encoder
from tests.unit.predictors import LABELS, photo, predictor
from tests.unit.rasters import CONFIG, PLACE, SIDES, WINDOWS, bands, leftovers, rasterio, read, write

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> Predictor:
    return predictor()


@pytest.fixture(scope="module")
def expected(model: Predictor) -> NDArray[Any]:
    labels = model.predict(photo(*SIDES), windows=WINDOWS).labels
    assert len(np.unique(labels)) > 2
    return labels


@pytest.fixture
def tif(tmp_path: Path) -> Path:
    return write(tmp_path / "area.tif", bands())


# Results


def test_labels__are_those_of_the_same_photo_and_lie_in_the_same_place(
    model: Predictor, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"scores": True})

    record = model.predict_raster(tif, tmp_path / "out", config=config)

    assert leftovers(tmp_path / "out") == [
        "area.json",
        "area.main.labels.tif",
        "area.main.scores.tif",
    ]
    with rasterio.open(tmp_path / "out" / record["heads"]["main"]["labels"]) as dataset:
        assert np.array_equal(dataset.read(1), expected)
        assert (dataset.crs, dataset.transform, dataset.nodata) == ("EPSG:32633", PLACE, 255)
        assert (dataset.block_shapes, dataset.compression.name) == ([(512, 512)], "deflate")
        assert dataset.colormap(1)[1][:3] == LABELS.palette[1]
        assert json.loads(dataset.tags()["classes"]) == list("abcde")
    scores = model.predict(photo(*SIDES), windows=WINDOWS).scores
    assert np.array_equal(read(tmp_path / "out" / "area.main.scores.tif"), np.rint(scores * 100))
    assert record["heads"]["main"]["shares"]["b"] == pytest.approx((expected == 1).mean(), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("dpt/ignore, depth", Depth()),
        ("dpt/ignore, regression", Regression(channels=("x", "y", "z"), unit_vectors=True)),
        ("dpt/ignore, segmentation", LABELS),
        ("setr_pup/mmseg", LABELS),
    ],
)
@pytest.mark.parametrize("held", [10**9, 100_000], ids=["in memory", "in a scratch file"])
def test_values__are_those_of_the_same_photo(
    name: str, task: Any, held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HELD_BYTES", held)
    model, size = predictor(name, task), (600, 200)
    source = write(tmp_path / "a.tif", np.moveaxis(photo(*size), -1, 0))

    record = model.predict_raster(source, tmp_path, config=CONFIG)["heads"]["main"]

    result: Any = model.predict(photo(*size), windows=WINDOWS)["main"]
    with rasterio.open(tmp_path / (record.get("labels") or record["values"])) as dataset:
        found = dataset.read()
    wanted = result.labels if task is LABELS else result.depth if isinstance(task, Depth) else result.values
    assert np.array_equal(found, wanted.reshape(found.shape))
    assert not list(tmp_path.glob("*.densevit-partial"))
    assert not list(tmp_path.glob(".*.densevit-partial"))


def test_depth__is_written_in_millimetres_on_demand(tmp_path: Path) -> None:
    model, source = predictor("dpt/ignore, depth", Depth()), write(tmp_path / "a.tif", bands()[:, :100, :90])

    model.predict_raster(source, tmp_path, config=CONFIG.model_copy(update={"depth": "uint16"}))

    depth = model.predict(photo(*SIDES)[:100, :90], windows=WINDOWS).depth
    assert np.array_equal(read(tmp_path / "a.main.mm.tif"), np.rint(depth.astype(float) * 1000))


def test_nodata__is_skipped_and_written_as_nodata(model: Predictor, tmp_path: Path) -> None:
    values = bands().clip(1, 255)
    values[:, 300:, 250:] = 0
    seen: list[int] = []
    source = write(tmp_path / "a.tif", values, nodata=0)

    hook = model.model.register_forward_hook(lambda _model, images, _output: seen.append(len(images[0])))
    try:
        model.predict_raster(source, tmp_path, config=CONFIG)
    finally:
        hook.remove()

    labels = read(tmp_path / "a.main.labels.tif")
    assert (labels[300:, 250:] == 255).all()
    assert (labels[:300] != 255).all()
    assert (labels[:, :250] != 255).all()
    whole = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    valid = labels != 255
    assert np.array_equal(labels[valid], model.predict(whole, windows=WINDOWS).labels[valid])
    assert sum(seen) < 11 * 6 * 0.8


def test_scale__keeps_the_rasters_own_pixels(model: Predictor, tif: Path, tmp_path: Path) -> None:
    config = RasterConfig(windows=WINDOWS.model_copy(update={"scale": 0.4}))

    model.predict_raster(tif, tmp_path, config=config)

    scaled = model.predict(photo(*SIDES), windows=config.windows).labels
    assert (read(tmp_path / "area.main.labels.tif") == scaled).mean() > 0.8  # GDAL averages, we antialias


@pytest.mark.parametrize("form", ["COG", "PNG"])
def test_other_formats__hold_the_same_labels(
    form: str, model: Predictor, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    record = model.predict_raster(tif, tmp_path / "out", config=RasterConfig(windows=WINDOWS, format=form))

    file = tmp_path / "out" / record["heads"]["main"]["labels"]
    assert np.array_equal(read(file), expected)
    if form == "COG":
        with rasterio.open(file) as dataset:
            assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    else:
        with Image.open(file) as image:
            assert image.mode == "P"
    assert len(leftovers(tmp_path / "out")) == 2


def test_plain_png__gives_png(model: Predictor, expected: NDArray[Any], tmp_path: Path) -> None:
    Image.fromarray(photo(*SIDES)).save(tmp_path / "a.png")

    record = model.predict_raster(tmp_path / "a.png", tmp_path / "out", config=CONFIG)

    assert record["heads"]["main"]["labels"] == "a.main.labels.png"
    assert np.array_equal(read(tmp_path / "out" / "a.main.labels.png"), expected)


# What is read


def picture(path: Path, **options: Any) -> NDArray[np.uint8]:
    with open_raster(path, **options) as source:
        return source.read(slice(0, 40), slice(10, 60))


def test_kinds_of_rasters__are_read_as_photos(tmp_path: Path) -> None:
    rgb = bands()[:, :40, :60]
    sixteen = rgb.astype(np.uint16) * 257
    expected = np.moveaxis(rgb, 0, -1)[:, 10:]
    grey = np.repeat(expected[..., :1], 3, axis=2)

    assert np.array_equal(picture(write(tmp_path / "rgb.tif", rgb)), expected)
    assert np.array_equal(picture(write(tmp_path / "sixteen.tif", sixteen)), expected)
    assert np.array_equal(picture(write(tmp_path / "grey.tif", rgb[:1])), grey)
    assert np.array_equal(picture(write(tmp_path / "float.tif", (rgb / 255).astype(np.float32))), expected)
    five = write(tmp_path / "five.tif", np.concatenate([rgb[:2] // 2, rgb[::-1]]))
    assert np.array_equal(picture(five, bands=(5, 4, 3)), expected)
    signed = write(tmp_path / "signed.tif", rgb.astype(np.int16) * 10 + 100)
    assert np.array_equal(picture(signed, limits=(100, 2650)), expected)


def test_transparent_pixels__are_nodata(tmp_path: Path) -> None:
    rgba = np.concatenate([bands()[:, :40, :60], np.full((1, 40, 60), 255, np.uint8)])
    rgba[3, 10:] = 0
    path = write(tmp_path / "rgba.tif", rgba, photometric="rgb", alpha="yes")

    with open_raster(path) as source:
        assert source.bands == (1, 2, 3)
        valid = source.valid(slice(0, 40), slice(0, 60))
    assert valid is not None
    assert np.array_equal(valid[:, 0], np.arange(40) < 10)


@pytest.mark.parametrize(
    ("count", "dtype", "options", "message"),
    [
        (5, "uint8", {}, "has 5 bands; 1 or 3, with or without alpha, are accepted by default; name one or three"),
        (3, "uint8", {"bands": (4, 3, 2)}, "bands 4,3,2 were given for .*; one or three of 1 to 3 are accepted"),
        (3, "int16", {}, "holds int16; uint8, uint16 and floats .*; say which values are black and white"),
        (3, "uint16", {"limits": (9, 3)}, "the range is 9 to 3; a low and a higher value are accepted"),
    ],
)
def test_raster__that_is_not_understood_is_refused(
    count: int, dtype: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a.tif", np.zeros((count, 20, 20), dtype))

    with pytest.raises(DataError, match=message), open_raster(path, **options):
        pass


def test_disparity__has_no_millimetres(tmp_path: Path) -> None:
    model = predictor("dpt/ignore, depth", Depth(quantity="disparity"))

    with pytest.raises(ConfigError, match="gives disparity, which has no unit; uint16 holds millimetres"):
        model.predict_raster(write(tmp_path / "a.tif", bands()), tmp_path, config=RasterConfig(depth="uint16"))


# Command line


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    from densevit.checkpoints.native import Bundle, Card, save_bundle
    from densevit.inference_config import InferenceConfig

    task = Segmentation(classes=tuple("abcde"))
    path = tmp_path / "tiny.safetensors"
    save_bundle(Bundle(predictor().model, {"main": task}, InferenceConfig(short_side=48), Card()), path)
    return path


def test_command__streams_georeferenced_files(
    cli: Any, weights: Path, expected: NDArray[Any], tif: Path, tmp_path: Path
) -> None:
    way = ("--window", 128, "--overlap", 32, "--blend", "hann", "--window-batch", "auto")

    done = cli("predict", tif, "--out", tmp_path / "out", "--model", weights, *way)

    assert done.code == 0, done.err
    assert np.array_equal(read(tmp_path / "out" / "area.main.labels.tif"), expected)
    again = cli("predict", tif, "--out", tmp_path / "out", "--model", weights, "--resume", *way)
    assert "0 predicted, 1 skipped" in again.err


def test_command__streams_others_on_demand_and_predicts_by_windows_else(
    cli: Any, weights: Path, expected: NDArray[Any], tmp_path: Path
) -> None:
    Image.fromarray(photo(*SIDES)).save(tmp_path / "a.png")
    way = ("--model", weights, "--window", 128, "--overlap", 32, "--blend", "hann")

    assert cli("predict", tmp_path / "a.png", "--out", tmp_path / "s", "--stream", *way).code == 0
    assert cli("predict", tmp_path / "a.png", "--out", tmp_path / "w", *way).code == 0

    for folder in ("s", "w"):
        assert np.array_equal(np.asarray(Image.open(tmp_path / folder / "a.main.labels.png")), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--flip",), "--scales and --flip are for photos in memory; leave them out"),
        (("--bands", "red"), "--bands got 'red' but takes numbers separated by commas, for example --bands 4,3,2"),
        (("--window", 100), "window is 100 but must be a multiple of patch size 16; use 112"),
    ],
)
def test_command__refuses_with_exit_code_2(
    arguments: tuple[Any, ...], message: str, cli: Any, weights: Path, tif: Path, tmp_path: Path
) -> None:
    done = cli("predict", tif, "--out", tmp_path / "out", "--model", weights, *arguments)

    assert done.code == 2
    assert message in done.err.replace("\n", " ")


def test_command__refuses_a_text_file(cli: Any, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("not a raster")

    done = cli("predict", tmp_path / "a.tif", "--out", tmp_path / "out", "--model", weights, "--stream")

    assert done.code == 2
    assert "a.tif is neither a TIFF nor a PNG" in done.err
    assert leftovers(tmp_path / "out") == []


# Heads with windows of their own size


def test_raster__runs_each_head_in_windows_of_its_own_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    heads = {name: {"decoder": VARIANTS["segmenter_linear"].decoder, "out_channels": 5} for name in ("near", "far")}
    model = DenseModel(ModelConfig.parse({"encoder": tiny_encoder(), "heads": heads}))
    model.heads["far"].load_state_dict(model.heads["near"].state_dict())
    fit = InferenceConfig.parse({"short_side": 64, "heads": {"far": 128}})
    predictor = Predictor(Bundle(model, dict.fromkeys(heads, LABELS), fit, Card()), device="cpu")
    source = write(tmp_path / "area.tif", bands())

    predictor.predict_raster(source, tmp_path / "out")

    image = np.moveaxis(bands(), 0, -1)
    in_memory = predictor.predict(image, windows=SlidingWindow())
    for head, side in (("near", 64), ("far", 128)):
        streamed = read(tmp_path / "out" / f"area.{head}.labels.tif")
        assert np.array_equal(streamed, in_memory[head].labels)
        assert np.array_equal(streamed, predictor.predict(image, windows=SlidingWindow(window=side))[head].labels)
    assert not np.array_equal(in_memory["near"].labels, in_memory["far"].labels)


# Memory

LARGE = """
import json, sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
import large_raster
large_raster.make_raster(Path({source!r}), {side})
large_raster.child(Path({source!r}), Path({folder!r}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is measured in Linux's unit")
def test_large_raster__takes_bounded_memory(tmp_path: Path) -> None:
    side = int(os.environ.get("DENSEVIT_RASTER_SIDE", "2048"))  # 32768 takes some ten minutes
    facts = {"root": str(ROOT), "benchmarks": str(ROOT / "benchmarks"), "side": side}
    script = LARGE.format(source=str(tmp_path / "big.tif"), folder=str(tmp_path / "out"), **facts)

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stderr
    row = json.loads(run.stdout.splitlines()[-1])
    assert row["side"] == side
    assert row["peak_mb"] - row["before_mb"] < 800
    assert row["peak_mb"] < 3000
