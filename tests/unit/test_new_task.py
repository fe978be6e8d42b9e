"""A new task is one class and one row in ``TASKS``, with which it is trained, measured, saved and streamed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.data import parse_data
from densevit.data.sample import ClassTable
from densevit.data.transforms import Targets
from densevit.evaluation.evaluate import evaluate
from densevit.evaluation.selection import choose_head, open_for
from densevit.evaluation.snapshots import load_evaluation
from densevit.inference.predictor import Predictor
from densevit.inference.raster.outputs import RasterConfig
from densevit.inference.sliding_window import SlidingWindow
from densevit.io import read_labels, write_png
from densevit.layers import resize
from densevit.tasks import TASKS, Task
from densevit.tasks.base import ValueFormat
from densevit.tasks.metrics import RegressionMetrics, SegmentationMetrics
from densevit.training.config import TrainConfig
from densevit.training.resolve_config import complete
from densevit.training.start import check_run
from densevit.training.train import train
from densevit.types import DenseOutput, Size
from tests.e2e.commands import Outcome
from tests.e2e.scenes import ENCODER, SIZE, scene, write_model
from tests.tolerances import SAME_MATHS

WINDOWS = SlidingWindow(window=48, overlap=16)


class Flow(Task):
    """How far each pixel moves to the right and down, in pixels; NaN in the target where that is unknown."""

    target = "values"
    kind: Literal["flow"] = "flow"

    @property
    def channel_names(self) -> tuple[str, ...]:
        return ("right", "down")

    @property
    def mirrored_channels(self) -> tuple[int, ...]:
        return (0,)

    @property
    def headline(self) -> tuple[str, bool]:
        return "MAE", False

    @property
    def value_format(self) -> ValueFormat:
        return ValueFormat("flow", "px")

    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        return targets.values

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        flow = resize(output.logits, (target.shape[-2], target.shape[-1]), align_corners=align_corners).float()
        known = target.isfinite()
        return (flow - target)[known].abs().sum() / known.sum().clamp(min=1)

    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).abs().mean()

    def count(self, target: Tensor) -> Tensor:
        return target.isfinite().sum().float()

    def new_metrics(self) -> RegressionMetrics:
        return RegressionMetrics(2)

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        return resize(logits[None], size, align_corners=align_corners)[0]

    def colourise(self, prediction: NDArray[Any]) -> NDArray[np.uint8]:
        grey = (128 + 20 * np.nan_to_num(prediction[0])).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "flow", Flow)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Scenes whose red things move to the right and down, and whose last column is unknown."""
    root = tmp_path / "data"
    for split, seeds in (("train", range(4)), ("val", range(100, 102))):
        for folder in ("images", "values"):
            (root / folder / split).mkdir(parents=True)
        for seed in seeds:
            image, labels, _ = scene(seed)
            flow = np.stack([labels == 1, 2.0 * (labels == 1)], axis=-1).astype(np.float32)
            flow[:, -1] = np.nan
            np.save(root / "values" / split / f"{seed}.npy", flow)
            write_png(root / "images" / split / f"{seed}.png", image)
    return root


def config(data: Path) -> TrainConfig:
    source = {split: {"root": str(data), "split": split} for split in ("train", "val")}
    raw: dict[str, Any] = {
        "model": {"encoder": ENCODER, "heads": {"flow": {"decoder": {"kind": "segmenter_linear"}}}},
        "tasks": {"flow": {"kind": "flow"}},
        "sources": [{**source, "batch_size": 2}],
        "fit": {"short_side": SIZE[0]},
        "augment": {"crop": SIZE, "scale": (1.0, 1.0), "colour": 0.0},
        "iterations": 3,
        "log_every": 1,
    }
    return TrainConfig.parse(complete(raw))


@pytest.fixture
def checkpoint(data: Path, tmp_path: Path) -> Path:
    """After a few steps."""
    return train(config(data), tmp_path / "run")


@pytest.fixture
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.load(checkpoint, device="cpu")


def test_new_task__is_checked_trained_and_measured(data: Path, tmp_path: Path) -> None:
    run = config(data)
    assert check_run(run) == []

    model = Predictor.load(train(run, tmp_path / "run"), device="cpu")

    dataset = open_for(parse_data({"root": data, "split": "val"}), "flow")
    head, dataset = choose_head(model.tasks, dataset, "flow", None)
    measured = evaluate(model.model, model.tasks, model.fit, dataset)[head]
    assert 0 < measured["MAE"] < 3
    assert "mean_entropy" not in measured
    shown = load_evaluation(tmp_path / "run", until=3)
    assert shown is not None
    assert shown[1]["heads"]["flow"]["ranked_by"] == "MAE"
    assert len(shown[1]["heads"]["flow"]["worst"]) == 2
    assert (tmp_path / "run" / "report.html").is_file()


def test_new_task__is_evaluated_by_the_command_line(
    cli: Callable[..., Outcome], checkpoint: Path, predictor: Predictor, data: Path, tmp_path: Path
) -> None:
    options = ("--model", checkpoint, "--data", data, "--split", "val", "--json", tmp_path / "figures.json")

    assert cli("evaluate", *options, "--task", "flow").code == 0

    measured = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    dataset = open_for(parse_data({"root": data, "split": "val"}), "flow")
    expected = evaluate(predictor.model, predictor.tasks, predictor.fit, dataset)["flow"]
    assert (measured["task"], measured["decoder"], measured["num_images"]) == ("flow", "flow", 2)
    assert measured["MAE"] == expected["MAE"]


def test_new_task__tells_the_report_what_its_pictures_show(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Flow, "error_key", "Error: wrong by more than a pixel.")

    train(config(data), tmp_path / "run")

    assert Flow.error_key in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_new_task__is_predicted_and_saved(predictor: Predictor, tmp_path: Path) -> None:
    image = scene(7).image
    prediction = predictor.predict(image)

    record = prediction.save(tmp_path / "out", "a")

    assert record["heads"]["flow"] == {"task": "flow", "values": "a.flow.npy", "colours": "a.flow.colours.png"}
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {"a.json", "a.flow.npy", "a.flow.colours.png"}
    values = np.load(tmp_path / "out" / "a.flow.npy")
    assert values.shape == (2, *image.shape[:2])
    np.testing.assert_array_equal(values, prediction["flow"].prediction)
    assert prediction.overlay().shape == image.shape
    assert prediction.primary is None


@pytest.mark.parametrize("windows", [None, WINDOWS])
def test_new_task__is_averaged_with_its_mirror_image(predictor: Predictor, windows: SlidingWindow | None) -> None:
    image = scene(7).image

    averaged = predictor.predict(image, windows=windows, flip=True)["flow"].prediction

    plain = predictor.predict(image, windows=windows)["flow"].prediction
    mirrored = predictor.predict(np.ascontiguousarray(image[:, ::-1]), windows=windows)["flow"].prediction[..., ::-1]
    expected = (plain + mirrored * np.array([-1, 1])[:, None, None]) / 2
    np.testing.assert_allclose(averaged, expected, **SAME_MATHS)


def test_new_task__is_streamed(predictor: Predictor, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    image = scene(7, (530, 70)).image
    write_png(tmp_path / "area.png", image)

    record = predictor.predict_raster(
        tmp_path / "area.png", tmp_path / "out", config=RasterConfig(windows=WINDOWS, format="GTiff")
    )

    assert record["heads"]["flow"] == {"task": "flow", "values": "area.flow.flow.tif"}
    assert json.loads((tmp_path / "out" / "area.json").read_text(encoding="utf-8")) == record
    with rasterio.open(tmp_path / "out" / "area.flow.flow.tif") as dataset:
        assert (dataset.count, dataset.dtypes[0], dataset.tags()["unit"]) == (2, "float32", "px")
        values = dataset.read()
    np.testing.assert_array_equal(values, predictor.predict(image, windows=WINDOWS)["flow"].prediction)


class Foreground(Task):
    """One logit per pixel, positive where there is a thing: classes that are no arg max."""

    target = "labels"
    kind: Literal["foreground"] = "foreground"

    @property
    def channel_names(self) -> tuple[str, ...]:
        return ("logit",)

    @property
    def headline(self) -> tuple[str, bool]:
        return "mIoU", True

    @property
    def class_table(self) -> ClassTable:
        return ClassTable(("background", "thing"), palette=((0, 0, 0), (200, 60, 60)))

    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        return targets.labels

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        logits = resize(output.logits, (target.shape[-2], target.shape[-1]), align_corners=align_corners)
        return F.binary_cross_entropy_with_logits(logits[:, 0], (target == 1).float())

    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (student - teacher).square().mean()

    def count(self, target: Tensor) -> Tensor:
        return torch.tensor(float(target.numel()))

    def new_metrics(self) -> SegmentationMetrics:
        return SegmentationMetrics(2)

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        return (resize(logits[None], size, align_corners=align_corners)[0, 0] > 0).to(torch.uint8)

    def colourise(self, prediction: NDArray[Any]) -> NDArray[np.uint8]:
        return np.array(self.class_table.palette, np.uint8)[prediction]


def test_new_classes__are_saved_and_streamed_as_labels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    monkeypatch.setitem(TASKS, "foreground", Foreground)
    path = write_model(tmp_path / "m.safetensors", "coarse", tasks={"coarse": {"kind": "foreground"}})
    model = Predictor.load(path, device="cpu")
    image = scene(7, (530, 70)).image
    write_png(tmp_path / "area.png", image)

    record = model.predict(image, windows=WINDOWS).save(tmp_path / "saved", "area")["heads"]["coarse"]
    streamed = model.predict_raster(tmp_path / "area.png", tmp_path / "out", config=RasterConfig(windows=WINDOWS))

    saved = read_labels(tmp_path / "saved" / record["labels"])
    assert set(np.unique(saved)) == {0, 1}
    np.testing.assert_array_equal(saved, read_labels(tmp_path / "out" / "area.coarse.labels.png"))
    shares = {"background": round((saved == 0).mean(), 6), "thing": round((saved == 1).mean(), 6)}
    assert record["shares"] == streamed["heads"]["coarse"]["shares"] == shares
    assert record["overlay"] == "area.coarse.overlay.png"
