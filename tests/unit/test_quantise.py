"""int8 files: the arithmetic, the choice of layers, the gate, and what is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.checkpoints.native import Bundle, Card
from densevit.errors import ConfigError, DataError, EngineError
from densevit.evaluation.figure import Figure
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.tasks import parse_task
from densevit_runtime.runtime import Runtime
from tests.e2e.scenes import write_dataset, write_model
from tests.factories import tiny_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from densevit.export import quantise, quantise_layers, verify  # noqa: E402 - they import onnx
from densevit.export.builder import FLOAT, Graph  # noqa: E402
from densevit.export.quantise import Quantised, quantise_model  # noqa: E402
from densevit.export.quantise_choice import Trials  # noqa: E402
from densevit.export.quantise_gate import LABELS, VALUES, HeadResult, MaxLoss  # noqa: E402
from densevit.export.quantise_graph import LayerRange, quantise_graph  # noqa: E402
from densevit.export.quantise_layers import Layer, find_layers, rounded  # noqa: E402
from densevit.export.quantise_photos import Source  # noqa: E402
from densevit.export.quantise_trial import Survey, survey, trial  # noqa: E402

MIOU, DELTA1 = Figure("mIoU", higher_is_better=True), Figure("delta1", higher_is_better=True)
SEGMENTATION = parse_task({"kind": "segmentation", "classes": [f"class {index}" for index in range(5)]})


@pytest.fixture(autouse=True)
def narrow_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise_layers, "LEAST_DEPTH", 32)
    monkeypatch.setattr(verify, "SIZES", ((1, 40, 60), (3, 48, 48)))


def predictor(kind: str = "segmenter_linear") -> Predictor:
    torch.manual_seed(0)
    bundle = Bundle(tiny_model(kind), {"main": SEGMENTATION}, InferenceConfig(short_side=64), Card(name="tiny"))
    return Predictor(bundle, device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(random.integers(0, 255, (50 + index, 70, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


def write(out: Path, photos: Path, *, max_loss: tuple[str, ...] = ("20 labels",), **options: Any) -> Quantised:
    return quantise_model(predictor(), "tiny", out, Source(photos), max_loss=max_loss, **options)


def linear_graph(depth: int, width: int, seed: int = 0) -> tuple[Any, np.ndarray]:
    """x (B, T, depth) times a weight."""
    graph = Graph()
    weight = np.random.default_rng(seed).normal(0, 0.05, (depth, width)).astype(np.float32)
    x = graph.input("image", FLOAT, ["B", "T", depth])
    y = graph.op("MatMul", x, graph.weight("layer.weight.T", torch.from_numpy(weight)), name="layer")
    graph.output("out", y, FLOAT, ["B", "T", width])
    return graph.model(), weight


def run(model: Any, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"image": x})[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_rounded__is_within_half_a_step_of_every_channel(axis: int) -> None:
    weight = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    weight[2, :] = weight[:, 3] = 0
    weight[4, 4] = 1e-42

    values, scale = rounded(weight, axis)

    steps = scale[:, None] if axis == 0 else scale[None]
    assert (np.abs(values * steps - weight) <= steps * 0.501).all()
    assert (scale > 0).all()
    assert np.abs(values.astype(int)).max() == 127


@pytest.mark.parametrize(
    ("fill", "problem"), [(np.nan, "its weights are not finite"), (0.0, "its weights are all zero"), (0.1, "")]
)
def test_layers__with_weights_that_cannot_be_rounded_are_named(fill: float, problem: str) -> None:
    graph = Graph()
    x = graph.input("image", FLOAT, ["B", "T", 64])
    weight = graph.weight("layer.weight.T", torch.full((64, 8), fill))
    graph.output("out", graph.op("MatMul", x, weight, name="layer"), FLOAT, ["B", "T", 8])

    (layer,) = find_layers(graph.model())

    assert (layer.name, layer.kind, layer.problem) == ("layer", "linear", problem)


@pytest.mark.parametrize("zero", [0.5, 0.05])
def test_tokens__have_scales_of_their_own(zero: float) -> None:
    model, weight = linear_graph(64, 48)
    (layer,) = find_layers(model)
    x = np.random.default_rng(1).normal(size=(2, 7, 64)).astype(np.float32)
    x = x if zero == 0.5 else np.maximum(x, -0.1)
    x[0, 3] *= 1000
    x[1, 2] = 0
    integer = quantise_graph(model, {layer: LayerRange(negative=zero)}, "onnx")
    onnx.checker.check_model(integer)

    actual, expected = run(integer, x), x @ weight

    error = np.abs(actual - expected).mean(-1) / np.abs(expected).mean(-1).clip(1e-6)
    assert error.max() < 0.02
    assert not np.array_equal(actual, expected)
    assert (actual[1, 2] == 0).all()


def test_trial__is_what_the_integer_graph_computes() -> None:
    model, _ = linear_graph(64, 48)
    (layer,) = find_layers(model)
    x = np.random.default_rng(1).normal(size=(7, 64)).astype(np.float32)
    found = survey(model, [layer], [x], threads=1)
    integer = quantise_graph(model, found.ranges, "onnx")

    tried = trial(model, found.ranges, "onnx", group=64, threads=1)(x, layer)["out"]

    assert found.operations[layer] == found.total == 2 * 7 * 64 * 48
    np.testing.assert_allclose(tried, run(integer, x[None]), atol=1e-4)
    np.testing.assert_array_equal(found.expected[0]["out"], run(model, x[None]))


def test_convolutions__are_rounded_per_map() -> None:
    graph = Graph()
    kernel = torch.from_numpy(np.random.default_rng(0).normal(0, 0.05, (32, 32, 3, 3)).astype(np.float32))
    x = graph.input("image", FLOAT, ["B", 32, "h", "w"])
    bias = graph.weight("layer.bias", torch.linspace(-1, 1, 32))
    y = graph.op("Conv", x, graph.weight("layer.weight", kernel), bias, name="layer", kernel_shape=[3, 3], pads=[1] * 4)
    graph.output("out", y, FLOAT, ["B", 32, "h", "w"])
    model = graph.model()
    (layer,) = find_layers(model)
    assert (layer.kind, layer.name) == ("convolution", "layer")
    image = np.random.default_rng(1).normal(size=(32, 9, 11)).astype(np.float32)
    found = survey(model, [layer], [image], threads=1)
    expected = run(model, image[None])

    actual = run(quantise_graph(model, found.ranges, "onnx"), image[None])
    tried = trial(model, found.ranges, "onnx", group=64, threads=1)(image, layer)["out"]

    assert 0 < np.abs(actual - expected).mean() < 0.02 * np.abs(expected).max()
    assert np.abs(tried - actual).mean() < 0.005 * np.abs(expected).max()


@pytest.mark.parametrize("largest_bias", [None, 0.0, 1.0])
@pytest.mark.parametrize("readers", [1, 2])
def test_convolutions__are_the_same_in_openvino(largest_bias: float | None, readers: int) -> None:
    openvino = pytest.importorskip("openvino")
    random = np.random.default_rng(0)
    first, second = (torch.from_numpy(random.normal(0, 0.05, (64, 64, 3, 3)).astype(np.float32)) for _ in range(2))
    graph = Graph()
    x = graph.input("image", FLOAT, ["B", 64, "h", "w"])
    bias = None if largest_bias is None else graph.weight("layer.bias", torch.linspace(0, largest_bias, 64))
    shape = {"kernel_shape": [3, 3], "pads": [1] * 4}
    y = graph.op("Conv", x, graph.weight("layer.weight", first), bias, name="layer", **shape)
    z = graph.op("Conv", graph.op("Relu", y), graph.weight("next.weight", second), name="next", **shape)
    graph.output("out", z if readers == 1 else z + y, FLOAT, ["B", 64, "h", "w"])
    model = graph.model()
    layers = find_layers(model)
    image = random.normal(0.7, 1, size=(64, 6, 7)).astype(np.float32)
    ranges = survey(model, layers, [image], threads=1).ranges
    integer = quantise_graph(model, ranges, "openvino").SerializeToString()

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(integer), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    actual = compiled([image[None]])[0]

    expected = run(model, image[None])
    assert 0 < np.abs(actual - expected).mean() < 0.02 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("texts", "figure", "amount"),
    [((), "mIoU", 0.5), ((), "labels", 1.0), (("0.25 miou",), "mIoU", 0.25), (("2 labels", "1 mIoU"), "labels", 2.0)],
)
def test_max_loss__is_read(texts: tuple[str, ...], figure: str, amount: float) -> None:
    assert MaxLoss.parse(texts, {"main": SEGMENTATION}).amounts[figure] == amount


@pytest.mark.parametrize("text", ["0.5", "mIoU", "-1 mIoU", "0.5 AbsRel", "", "nan mIoU"])
def test_max_loss__that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not understood"):
        MaxLoss.parse([text], {"main": SEGMENTATION})


def test_max_loss__twice_of_one_figure_is_refused() -> None:
    with pytest.raises(ConfigError, match="names mIoU twice"):
        MaxLoss.parse(["1 mIoU", "2 miou"], {"main": SEGMENTATION})


def test_max_loss__of_delta1_in_points_is_refused() -> None:
    depth = parse_task({"kind": "depth", "max_depth_m": 10.0})

    with pytest.raises(ConfigError, match="would accept nearly anything"):
        MaxLoss.parse(["0.5 delta1"], {"depth": depth})


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (HeadResult("a", 3, 0.992, LABELS), ""),
        (HeadResult("a", 3, 0.98, LABELS), "head 'a': 2.00 % of its labels differ, 1 % are accepted"),
        (HeadResult("a", 3, 0.98, VALUES), "head 'a': its values differ by 2.00 %, 1 % are accepted"),
        (
            HeadResult("a", 3, 0.98, VALUES, Figure("MAE", False), 1, 9),
            "head 'a': its values differ by 2.00 %, 1 % are accepted",
        ),
        (HeadResult("a", 3, 0.98, LABELS, MIOU, 0.7, 0.696), ""),
        (HeadResult("a", 3, 1.0, LABELS, MIOU, 0.7, 0.69), "head 'a' loses 1.00 mIoU, 0.5 is accepted"),
        (HeadResult("a", 3, 1.0, VALUES, DELTA1, 0.8, 0.79), "head 'a' loses 0.0100 delta1, 0.005 is accepted"),
        (HeadResult("a", 3, 1.0, LABELS, MIOU, 0.7, float("nan")), "head 'a' loses nan mIoU, 0.5 is accepted"),
    ],
)
def test_gate__says_what_is_lost(result: HeadResult, problem: str) -> None:
    assert MaxLoss.parse((), {"main": SEGMENTATION}).excess(result) == problem


def test_trials__give_up_the_layers_that_cost_more_than_they_gain() -> None:
    layers = [Layer(name, name, "linear", 1, (name,), 64) for name in ("cheap", "dear", "large")]
    operations = dict(zip(layers, (100, 10, 890), strict=True))
    cost = dict(zip(layers, (0.1, 0.9, 0.9), strict=True))
    trials = Trials(Survey({}, operations, 1000, ()), {layer: {"a": cost[layer]} for layer in layers}, cost)

    assert [layer.name for layer in trials.chosen()] == ["cheap", "large"]
    assert [layer.name for layer in trials.without_worst(layers)] == ["cheap", "large"]
    assert trials.worst(1) == "dear (90.00%)"


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_quantised_file__says_what_was_measured(suffix: str, photos: Path, tmp_path: Path) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    out = tmp_path / f"m{suffix}"

    quantised = write(out, photos)

    metadata = Runtime.load(out).metadata
    assert metadata.precision == "int8"
    record = metadata.card["int8"]
    assert record["heads"]["main"]["photos"] == 3
    assert record["heads"]["main"]["agreement"] == pytest.approx(quantised.measured.results[0].agreement, abs=1e-6)
    assert record["bytes"]["int8"] < record["bytes"]["float32"]
    assert 0.2 < record["share_of_operations"] <= 1
    assert set(record["agreement_lost_by_layer"]) > {"encoder.blocks.0.attn.qkv", "encoder.blocks.0.mlp.fc2"}
    assert metadata.verified.labels_equal["main"] > 0.5
    labels = Runtime.load(out).predict(photos / "0.png")["main"].labels
    assert (labels == predictor().predict(photos / "0.png")["main"].labels).mean() > 0.8


def test_loss_above_the_gate__writes_nothing_and_names_layers(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"(?s)int8 loses too much.*encoder\.blocks.*nothing was written"):
        write(tmp_path / "m.onnx", photos, max_loss=("0 labels",))

    assert not list(tmp_path.glob("m*"))


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "without a photo"), (("notes.txt",), "without a photo"), (("broken.png",), "broken.png")],
)
def test_folders_without_photos__are_refused(names: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).write_bytes(b"\x89PNG no photo")

    with pytest.raises(DataError, match=message):
        write(tmp_path / "m.onnx", tmp_path / "data")

    assert not (tmp_path / "m.onnx").exists()


def test_no_data__is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a folder with --data DIR"):
        quantise_model(predictor(), "tiny", tmp_path / "m.onnx", Source(None))


def test_processors_without_vnni__are_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(quantise, "has_vnni", lambda: False)

    write(tmp_path / "m.onnx", photos, say=said.append)

    assert any("no AVX-512 VNNI" in sentence for sentence in said)


def test_command__measures_the_metric_where_there_are_targets(cli: Callable[..., Any], tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", train=1, val=2)
    model = write_model(tmp_path / "model.safetensors", "segmenter", "depth")
    losses = ("--max-loss", "50 mIoU", "--max-loss", "0.1 delta1")

    files = ("--out", tmp_path / "m.onnx", "--json", tmp_path / "m.json")
    outcome = cli("quantize", model, "--data", data, *files, *losses)

    assert outcome.code == 0, outcome.err
    record = json.loads((tmp_path / "m.json").read_text(encoding="utf-8"))
    assert "no targets" not in outcome.err
    assert set(record["heads"]) == {"segmenter", "depth"}
    for head, metric in (("segmenter", "mIoU"), ("depth", "delta1")):
        assert set(record["heads"][head][metric]) == {"float32", "int8"}
    assert "x as fast as torch in float32" in outcome.out


def test_command__refuses_unknown_precisions(cli: Callable[..., Any], tmp_path: Path) -> None:
    outcome = cli("export", "default", "--precision", "int4", "--out", tmp_path / "m.onnx")

    assert outcome.code == 2
    assert "float32 and int8 are accepted" in outcome.err
