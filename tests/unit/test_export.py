"""Export: what is refused, what is written, and the arithmetic that an exporter gets wrong."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from densevit.checkpoints.native import Bundle, Card, save_bundle
from densevit.errors import ConfigError, DataError, DensevitError, EngineError, OutputError
from densevit.inference.predictor import Predictor
from densevit.inference_config import InferenceConfig
from densevit.tasks import parse_task
from densevit.types import Size
from densevit_runtime.engines import require_openvino
from densevit_runtime.metadata import Verified
from densevit_runtime.runtime import Runtime
from tests.disks import files_up_to
from tests.e2e.commands import Outcome
from tests.factories import tiny_model, write_small_default

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from densevit.export import builder, outputs, resampling, verify  # noqa: E402 - they import onnx
from densevit.export.job import export_model  # noqa: E402

SMALL = ((1, 40, 60), (3, 48, 48))


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SIZES", SMALL)


@pytest.fixture
def openvino() -> None:
    try:
        require_openvino()
    except EngineError as error:
        pytest.skip(str(error))


def run_graph(graph: builder.Graph, **inputs: Any) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, inputs)
    return found


def predictor(fit: InferenceConfig | None = None, *, num_classes: int = 5, **speed: Any) -> Predictor:
    """Segmenter with a linear decoder at 64 pixels."""
    model = tiny_model("segmenter_linear")
    if num_classes != 5:
        model.heads["main"].head = nn.Linear(32, num_classes)
        heads = {"main": model.config.heads["main"].model_copy(update={"out_channels": num_classes})}
        model.config = model.config.model_copy(update={"heads": heads})
    task = parse_task({"kind": "segmentation", "classes": [f"class {index}" for index in range(num_classes)]})
    bundle = Bundle(model, {"main": task}, fit or InferenceConfig(short_side=64), Card(name="tiny", licence="MIT"))
    from densevit.inference.speed import read_speed

    return Predictor(bundle, device="cpu", speed=read_speed(speed or None))


@pytest.mark.parametrize(
    ("old", "new"), [((37, 50), (16, 32)), ((16, 16), (48, 32)), ((300, 20), (32, 20)), ((1, 9), (16, 16))]
)
def test_antialiased__is_torchs_resize(old: Size, new: Size) -> None:
    graph = builder.Graph()
    image = graph.input("image", builder.FLOAT, ["B", "H", "W", 3])
    target = tuple(graph.input(name, builder.INT64, []) for name in ("h", "w"))
    resized = resampling.antialiased(image, (image.size(1), image.size(2)), target)
    graph.output("out", resized, builder.FLOAT, ["B", 3, "h", "w"])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *old, 3)).astype(np.float32)

    (actual,) = run_graph(graph, image=pixels, h=np.array(new[0]), w=np.array(new[1]))

    source = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    expected = F.interpolate(source, size=new, mode="bilinear", align_corners=False, antialias=True)
    np.testing.assert_allclose(actual, expected, atol=1e-3)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [(7, 40), (40, 7), (5, 5), (1, 6), (6, 1), (11, 333)])
def test_bands__are_torchs_bilinear_resize(old: int, new: int, corners: bool) -> None:
    graph = builder.Graph()
    lengths = [graph.input(name, builder.INT64, []) for name in ("old", "new")]
    axis = resampling.Triangles(*lengths, align_corners=corners)
    found = resampling.bands(axis, 16)
    graph.output("sources", found.sources, builder.INT64, ["blocks", "S"])
    graph.output("weights", found.weights, builder.FLOAT, ["blocks", "n", "S"])

    sources, weights = run_graph(graph, old=np.array(old), new=np.array(new))

    values = np.random.default_rng(0).normal(size=old).astype(np.float32)
    actual = np.einsum("bns,bs->bn", weights, values[sources]).ravel()[:new]
    image = torch.from_numpy(values).view(1, 1, 1, old)
    expected = F.interpolate(image, size=(1, new), mode="bilinear", align_corners=corners).flatten()
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_bands__do_not_change_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 6, 5, 7)).astype(np.float32)
    found = []
    for values in (50, 4_000_000):
        monkeypatch.setattr(outputs, "BAND_VALUES", values)
        graph = builder.Graph()
        x = graph.input("x", builder.FLOAT, ["B", 6, "h", "w"])
        size = (graph.value(33), graph.value(20))
        labels, scores = outputs.labels_and_scores(x, size, align_corners=True, dtype=builder.UINT8, scores=True)
        graph.output("labels", labels, builder.UINT8, ["B", "H", "W"])
        graph.output("scores", scores, builder.FLOAT, ["B", "H", "W"])
        found.append(run_graph(graph, x=logits))

    upsampled = F.interpolate(torch.from_numpy(logits), size=(33, 20), mode="bilinear", align_corners=True)
    for labels, scores in found:
        np.testing.assert_array_equal(labels, upsampled.argmax(1))
        np.testing.assert_allclose(scores, upsampled.softmax(1).amax(1), atol=1e-6)


@pytest.mark.parametrize(("num_classes", "dtype"), [(256, "uint8"), (300, "uint16")])
def test_labels__have_the_smallest_type(num_classes: int, dtype: str, tmp_path: Path) -> None:
    export_model(predictor(num_classes=num_classes), tmp_path / "m.onnx")

    assert Runtime.load(tmp_path / "m.onnx").engine.outputs["main"].dtype == dtype


def test_file__says_what_it_is(tmp_path: Path) -> None:
    exported = export_model(predictor(), tmp_path / "m.onnx", scores=True)

    metadata = Runtime.load(tmp_path / "m.onnx").metadata
    assert metadata == exported.metadata
    assert (metadata.name, metadata.licence, metadata.patch_size) == ("tiny", "MIT", (16, 16))
    assert metadata.heads["main"].classes == tuple(f"class {index}" for index in range(5))
    assert metadata.heads["main"].short_side == 64
    assert metadata.verified.sizes == SMALL
    assert metadata.verified.labels_equal["main"] > 0.999
    assert metadata.verified.largest_difference["main.scores"] < 1e-5


def test_file__is_the_same_every_time(tmp_path: Path) -> None:
    model = predictor()
    for name in ("a.onnx", "b.onnx"):
        export_model(model, tmp_path / name)

    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_heads__run_at_their_own_sizes_and_can_be_chosen(tmp_path: Path) -> None:
    checkpoint = write_small_default(tmp_path / "small.safetensors")

    exported = export_model(checkpoint, tmp_path / "m.onnx", heads=["depth", "streets"])

    heads = exported.metadata.heads
    assert list(heads) == ["depth", "streets"]
    assert (heads["depth"].short_side, heads["streets"].short_side) == (240, 480)
    assert (heads["depth"].unit, heads["depth"].relative) == ("m", False)


def test_weights__are_stored_once_for_all_heads(tmp_path: Path) -> None:
    checkpoint = write_small_default(tmp_path / "small.safetensors")

    all_heads = export_model(checkpoint, tmp_path / "all.onnx")

    assert all_heads.megabytes < 2 * export_model(checkpoint, tmp_path / "one.onnx", heads=["depth"]).megabytes


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: predictor(quality="best"),
            "quality best cannot be exported: it runs windows and mirror images, and a graph runs a photo whole and "
            "once; export quality fast",
        ),
        (
            lambda: predictor(merging={"kind": "tome"}),
            "token merging cannot be exported: its sizes depend on the image; switch merging off",
        ),
        (
            lambda: predictor(InferenceConfig(short_side=64, window=48)),
            "head 'main' is run with windows of 48, and a graph runs a photo whole and once; pass --speed "
            "short_side=48 to run it so, or choose other heads with --head",
        ),
        (
            lambda: predictor(InferenceConfig(short_side=64, flip=True)),
            "head 'main' is run with mirror images, and a graph runs a photo whole and once; pass --speed "
            "short_side=64 to run it so, or choose other heads with --head",
        ),
        (
            lambda: predictor(engine="onnxruntime"),
            "engine 'onnxruntime' runs the model, whose modules are replaced; load it with engine torch to export it",
        ),
    ],
)
def test_export__refuses(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        export_model(make(), tmp_path / "m.onnx")

    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_export__refuses_decoders_and_layers_from_outside(tmp_path: Path) -> None:
    class Mine(nn.Linear):
        pass

    model = predictor()
    model.model.encoder.blocks[0].attn.qkv.__class__ = Mine

    with pytest.raises(ConfigError, match=r"layer encoder.blocks.0.attn.qkv is a Mine, which cannot be exported"):
        export_model(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("out", "to", "message"),
    [
        ("m.onnx", "onx", "there is no format 'onx'; did you mean 'onnx'?"),
        ("m.xml", "onnx", "m.xml cannot be a file of onnx, which ends in .onnx; rename it"),
        ("m.bin", None, "m.bin ends in .bin; .onnx (ONNX) and .xml (OpenVINO) are accepted"),
    ],
)
def test_export__refuses_a_format(out: str, to: str | None, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        export_model("default", out, to=to)

    assert str(caught.value) == message


def test_export__refuses_a_graph_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densevit.export.graph._normalised", lambda model, pixels: pixels * 0.01)

    with pytest.raises(EngineError, match=r"the exported graph does not reproduce the model: .*nothing was written"):
        export_model(predictor(), tmp_path / "m.onnx", scores=True)

    assert not list(tmp_path.iterdir())


def test_export__never_replaces_a_file_of_somebody_else(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("mine")

    with pytest.raises(DataError, match="densevit did not write"):
        export_model(predictor(), tmp_path / "m.onnx")

    assert (tmp_path / "m.onnx").read_text() == "mine"


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_export__leaves_nothing_on_a_full_disk(
    name: str, small_disk: Callable[[str], Path], request: pytest.FixtureRequest
) -> None:
    if name == "m.xml":
        request.getfixturevalue("openvino")
    place = small_disk("32k")

    with pytest.raises(OutputError, match=r"cannot be written"):
        export_model(predictor(), place / name)

    assert not [path for path in place.iterdir() if path.stat().st_size]


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_export__says_that_there_is_no_space_for_temporary_files(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if name == "m.xml":
        request.getfixturevalue("openvino")
    model = predictor()

    with files_up_to(1000), pytest.raises(OutputError, match=r"cannot be .* free some space there, or set TMPDIR$"):
        export_model(model, tmp_path / name)

    assert not list(tmp_path.iterdir())


def test_check__accepts_rounding_and_no_more() -> None:
    good = Verified(sizes=SMALL, largest_difference={"depth": 9e-4}, labels_equal={"rooms": 0.9991})
    verify.check(good)

    for bad in (replace(good, largest_difference={"depth": 2e-3}), replace(good, labels_equal={"rooms": 0.998})):
        with pytest.raises(EngineError):
            verify.check(bad)


def test_differences__count_nan_as_infinite() -> None:
    found = verify.Differences()
    found.add_values("depth", np.array([1.0, np.nan]), np.array([1.0, 2.0]))

    assert found.largest == {"depth": float("inf")}


def test_photos__are_spread_over_a_folder(tmp_path: Path) -> None:
    assert len(verify.verification_photos(None)) == 3
    shutil.copy(verify.SHIPPED / "street.jpg", tmp_path)
    assert len(verify.verification_photos(tmp_path)) == 3

    with pytest.raises(DensevitError):
        verify.verification_photos(tmp_path / "missing")


@pytest.mark.parametrize("short_side", [360, 504])
def test_input_size__is_rounded_in_the_same_way_for_every_photo(short_side: int) -> None:
    """Both are halfway between two multiples of 16."""
    config = InferenceConfig(short_side=short_side)

    assert len({min(config.input_size((side, side), (16, 16))) for side in range(64, 2000)}) == 1


def test_checkpoint__is_exported_by_its_path(tmp_path: Path) -> None:
    model = predictor()
    checkpoint = tmp_path / "tiny.safetensors"
    save_bundle(Bundle(model.model, model.tasks, model.fit, model.card), checkpoint)

    assert export_model(checkpoint, tmp_path / "m.onnx").metadata.source == str(checkpoint)


def test_export__names_the_package_that_is_missing() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None; from densevit.cli.main import main; "
        "sys.argv = ['densevit', 'export', 'default', '--to', 'onnx']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr == (
        "densevit: exporting needs the package onnx, which is missing; pip install 'densevit[onnx]'\n"
    )


def test_openvino__is_two_files_with_the_metadata(tmp_path: Path, openvino: None) -> None:
    exported = export_model(predictor(num_classes=300), tmp_path / "m.xml")

    runtime = Runtime.load(tmp_path / "m.xml")
    assert exported.files == (tmp_path / "m.xml", tmp_path / "m.bin")
    assert runtime.metadata == exported.metadata
    assert runtime.engine.outputs["main"].dtype == "int32"


def test_command__says_how_well_the_file_agrees(cli: Callable[..., Outcome], tmp_path: Path) -> None:
    model = predictor()
    checkpoint, out = tmp_path / "tiny.safetensors", tmp_path / "tiny.onnx"
    save_bundle(Bundle(model.model, model.tasks, model.fit, model.card), checkpoint)

    done = cli("export", checkpoint, "--out", out, "--scores")

    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].startswith(f"{out}: ")
    assert lines[1].startswith("  main: labels equal to the model's on ")
    assert [line.split(" by at most ")[0] for line in lines[2:]] == [
        "  main.entropy: differs",
        "  main.scores: differs",
    ]


def test_command__needs_a_format(cli: Callable[..., Outcome]) -> None:
    done = cli("export", "default")

    assert (done.code, done.err) == (
        2,
        "densevit: neither --to nor --out is given; name a format, as in --to onnx\n",
    )
