"""Web exports: small weights, the folder and what is in it, and getting onnxruntime-web."""

import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from densevit.cli.main import app
from densevit.errors import ConfigError, DataError, EngineError
from densevit_runtime.colour import colourise_depth
from densevit_runtime.metadata import Metadata

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - as above

from densevit.export import npm, small_weights, verify, web, web_files  # noqa: E402 - they import onnx
from densevit.export.quantise_layers import rounded  # noqa: E402
from densevit.export.small_weights import Storage, move_weights, store_small  # noqa: E402
from densevit.pages.web_page import FOLDER  # noqa: E402
from tests.web_models import tiny_predictor, write_archive  # noqa: E402


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SIZES", ((1, 40, 60), (3, 48, 48)))
    monkeypatch.setattr(web_files, "PROOF_SIZE", (24, 32))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "onnxruntime-web.tgz"
    monkeypatch.setattr(web, "ONNXRUNTIME_WEB", write_archive(path))
    return path


@pytest.fixture
def site(archive: Path, tmp_path: Path) -> Path:
    web.export_web(tiny_predictor(), tmp_path / "site", npm_package=archive)
    return tmp_path / "site"


def photo(height: int = 50, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def session(model: str | bytes) -> Any:
    """A session that dequantises weights, and rounds nothing else."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: onnx.ModelProto, **inputs: Any) -> list[NDArray[Any]]:
    found: list[NDArray[Any]] = session(model.SerializeToString()).run(None, inputs)
    return found


def weighty_model(**weights: NDArray[np.float32]) -> onnx.ModelProto:
    """A product, a convolution, a transposed convolution and a sum: x (1, 64, 8, 8) -> y."""
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["a"]),
        helper.make_node("ConvTranspose", ["a", "up"], ["b"]),
        helper.make_node("MatMul", ["b", "product"], ["c"]),
        helper.make_node("Add", ["c", "added"], ["y"]),
    ]
    random = np.random.default_rng(1)
    shapes = {"conv": (32, 64, 1, 1), "up": (32, 48, 1, 1), "product": (8, 200), "added": (48, 8, 200), "tiny": (3, 3)}
    tensors = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} | weights
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 48, 8, 200])
    stored = [numpy_helper.from_array(tensor, name) for name, tensor in tensors.items()]
    graph = helper.make_graph(nodes, "weighty", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize(
    ("storage", "share", "tolerance"), [("int8", 0.32, 2e-2), ("float16", 0.55, 2e-3), ("float32", 1, 0)]
)
def test_small_weights__are_smaller_and_nearly_the_same(storage: Storage, share: float, tolerance: float) -> None:
    model = weighty_model()
    x = np.random.default_rng(2).normal(size=(1, 64, 8, 8)).astype(np.float32)
    (expected,) = run(model, x=x)

    small = store_small(model, storage)

    (actual,) = run(small, x=x)
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    sizes = [
        sum(len(tensor.raw_data) for tensor in m.graph.initializer if "added" not in tensor.name)
        for m in (small, model)
    ]
    assert sizes[0] <= share * sizes[1]


def test_small_weights__have_a_scale_for_each_output_channel() -> None:
    small = store_small(weighty_model(), "int8")

    scales = {tensor.name: tensor.dims[0] for tensor in small.graph.initializer if tensor.name.endswith(".scale")}
    assert scales == {"conv.scale": 32, "up.scale": 48, "product.scale": 200}
    kinds = {tensor.name: tensor.data_type for tensor in small.graph.initializer}
    assert kinds["added.half"] == TensorProto.FLOAT16
    assert kinds["tiny"] == TensorProto.FLOAT


def test_small_weights__of_two_uses_are_not_quantised() -> None:
    model = weighty_model(product=np.ones((200, 8), np.float32))
    model.graph.node[2].input[0] = "product"  # in front of the product as well as behind
    model.graph.node[2].input[1] = "b"

    names = {tensor.name for tensor in store_small(model, "int8").graph.initializer}

    assert "product.half" in names


def test_small_weights__beyond_float16_stay() -> None:
    model = weighty_model(added=np.full((48, 8, 200), 1e6, np.float32))

    names = {tensor.name for tensor in store_small(model, "float16").graph.initializer}

    assert "added" in names


@pytest.mark.parametrize("storage", ["int8", "float16"])
def test_restored_weights__are_those_that_engines_make(storage: Storage) -> None:
    small = store_small(weighty_model(), storage)
    x = np.random.default_rng(2).normal(size=(1, 64, 8, 8)).astype(np.float32)

    restored = small_weights.restore(small)

    assert {node.op_type for node in restored.graph.node} == {"Conv", "ConvTranspose", "MatMul", "Add"}
    np.testing.assert_array_equal(run(restored, x=x), run(small, x=x))


def test_moved_weights__are_shared_and_found_again(tmp_path: Path) -> None:
    models = [store_small(weighty_model(), "int8") for _ in range(2)]
    x = np.random.default_rng(2).normal(size=(1, 64, 8, 8)).astype(np.float32)
    expected = run(models[0], x=x)

    content = move_weights(models, "weights.bin")

    (tmp_path / "weights.bin").write_bytes(content)
    (tmp_path / "model.onnx").write_bytes(models[1].SerializeToString())
    actual = session(str(tmp_path / "model.onnx")).run(None, {"x": x})
    np.testing.assert_array_equal(actual, expected)
    again = move_weights([store_small(weighty_model(), "int8")], "weights.bin")
    assert content == again  # equal tensors are stored once


def test_folder__gives_the_models_answers(site: Path) -> None:
    about = json.loads((site / "model.json").read_text(encoding="utf-8"))
    expected = tiny_predictor().predict(photo())

    assert [graph["heads"] for graph in about["graphs"]] == [["things", "normals"], ["distance"]]
    outputs: dict[str, NDArray[Any]] = {}
    for graph in about["graphs"]:
        found = session(str(site / graph["file"])).run(graph["heads"], {"image": photo()[None]})  # finds weights.bin
        outputs |= dict(zip(graph["heads"], found, strict=True))
    assert (outputs["things"][0] == expected["things"].labels).mean() >= 0.98
    np.testing.assert_allclose(outputs["distance"][0], expected["distance"].depth, rtol=0.02)
    np.testing.assert_allclose(outputs["normals"][0], expected["normals"].values, atol=0.05)


def test_folder__describes_itself(site: Path) -> None:
    about = json.loads((site / "model.json").read_text(encoding="utf-8"))

    metadata = Metadata.parse(json.dumps(about["metadata"]), "model.json")
    assert metadata.name == "tiny & <small>"
    assert metadata.heads["things"].classes[3] == "<b>car</b>"
    assert metadata.verified.labels_equal["things"] >= 0.99
    assert 0 < metadata.verified.mean_difference["distance"] <= 0.005
    assert about["storage"].startswith("int8")
    for name, facts in about["files"].items():
        content = (site / name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert {graph["file"] for graph in about["graphs"]} | {about["weights"], "proof.bin"} == set(about["files"])


def test_folder__holds_the_answer_for_a_small_photo(site: Path) -> None:
    proof = json.loads((site / "model.json").read_text(encoding="utf-8"))["proof"]
    content = (site / "proof.bin").read_bytes()

    def array(place: dict[str, Any]) -> NDArray[Any]:
        dtype = np.dtype(place["type"].removesuffix("Array").lower())
        assert place["offset"] % 8 == 0
        return np.frombuffer(content, dtype, place["length"], place["offset"])

    size = (proof["height"], proof["width"])
    expected = tiny_predictor().predict(array(proof["photo"]).reshape(*size, 3).copy())
    assert (array(proof["outputs"]["things"]).reshape(size) == expected["things"].labels).mean() >= 0.98
    np.testing.assert_allclose(array(proof["outputs"]["distance"]).reshape(size), expected["distance"].depth, rtol=0.02)
    assert array(proof["outputs"]["normals"]).size == 3 * size[0] * size[1]


def test_folder__keeps_all_its_files_offline(site: Path) -> None:
    script = (site / "service-worker.js").read_text(encoding="utf-8")
    folder = json.loads(script.splitlines()[0].removeprefix("self.FOLDER = ").removesuffix(";"))

    present = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert {*folder["page"], *folder["model"]} == present - {"service-worker.js", *hidden(present)}
    heavy = {"weights.bin", "runtime/ort-wasm-simd-threaded.wasm"}
    assert heavy <= {*folder["model"]}  # loaded with the first photo


def hidden(names: set[str]) -> set[str]:
    """The manifests of what densevit wrote."""
    return {name for name in names if Path(name).name.startswith(".")}


def test_folder__asks_no_other_server(site: Path) -> None:
    for path in site.iterdir():
        if path.suffix in {".html", ".js", ".css", ".webmanifest", ".svg"}:
            found = re.findall(r"https?://[^\s\"'`)]+", path.read_text(encoding="utf-8"))
            assert [address for address in found if "www.w3.org" not in address and "localhost" not in address] == []
    page = (site / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page
    assert not re.search(r"\son\w+=|<style|style=|<script>", page)  # which that policy would refuse


def test_folder__tells_nothing_about_where_it_was_made(archive: Path, tmp_path: Path) -> None:
    from densevit.checkpoints.native import TrainedOn, save_bundle
    from densevit.export.job import exportable

    bundle, _ = exportable(tiny_predictor())
    learnt_from = TrainedOn(heads=("things",), train={"images": "secret-{name}.jpg"})
    checkpoint = tmp_path / "private" / "mine.safetensors"
    checkpoint.parent.mkdir()
    save_bundle(replace(bundle, trained_on=(learnt_from,)), checkpoint)

    exported = web.export_web(checkpoint, tmp_path / "site", npm_package=archive)

    assert exported.metadata.source == "mine.safetensors"
    assert not exported.metadata.trained_on
    published = (tmp_path / "site" / "model.json").read_text(encoding="utf-8")
    assert "secret" not in published
    assert "private" not in published


def test_folder__is_replaced_only_as_it_was_written(site: Path, archive: Path) -> None:
    web.export_web(tiny_predictor(), site, heads=["things"], weights="float16", npm_package=archive)
    assert (site / "graph-0.onnx").exists()
    (site / "index.html").write_text("mine", encoding="utf-8")

    with pytest.raises(DataError, match=r"index\.html exists, and densevit did not write what is there now"):
        web.export_web(tiny_predictor(), site, npm_package=archive)

    assert (site / "index.html").read_text(encoding="utf-8") == "mine"


def test_folder__loses_graphs_that_a_new_export_does_not_have(site: Path, archive: Path) -> None:
    written = len([*site.glob("graph-*.onnx")])
    assert written > 1
    (site / "graph-mine.onnx").write_bytes(b"mine")

    web.export_web(tiny_predictor(), site, heads=["things"], npm_package=archive)

    assert {path.name for path in site.glob("graph-*.onnx")} == {"graph-0.onnx", "graph-mine.onnx"}


def test_export__of_weights_that_lose_too_much_writes_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def coarse(weight: NDArray[Any], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        codes, scales = rounded(weight, axis)
        return (codes // 100 * 100).astype(np.int8), scales

    monkeypatch.setattr(small_weights, "rounded", coarse)

    with pytest.raises(EngineError, match=r"weights in int8 lose too much: .* store more with --weights float16"):
        web.export_web(tiny_predictor(), tmp_path / "site", npm_package=archive)
    assert not (tmp_path / "site").exists()


def test_export__refuses_another_storage(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights cannot be stored in 'int4'"):
        web.export_web(tiny_predictor(), tmp_path, weights="int4")


def test_package__is_refused_if_it_is_another_one(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1])

    with pytest.raises(
        DataError, match=r"is not the archive of onnxruntime-web 1\.30\.0, or is damaged; get it by `npm pack"
    ):
        npm.read_package(web.ONNXRUNTIME_WEB, [], archive=archive)
    with pytest.raises(DataError, match="cannot be read"):
        npm.read_package(web.ONNXRUNTIME_WEB, [], archive=archive.with_name("none.tgz"))


def test_package__without_npm_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npm, "folders", lambda: iter(()))
    monkeypatch.setattr("shutil.which", lambda name: None)

    with pytest.raises(EngineError, match=r"npm is not installed; install Node\.js, or run `npm pack .* --npm-package"):
        npm.read_package(npm.ONNXRUNTIME_WEB, [])


def stand_in_npm(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An ``npm`` that runs a few shell commands; ``$2`` is the package, and ``$6`` the folder."""
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.skipif("__import__('os').name == 'nt'")
def test_package__is_downloaded_once(tmp_path: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(npm, "folders", lambda: iter((cache,)))
    stand_in_npm(tmp_path, monkeypatch, f'cp {archive} "$6"/onnxruntime-web-1.30.0.tgz')
    member = "dist/ort.wasm.bundle.min.mjs"

    first = npm.read_package(web.ONNXRUNTIME_WEB, [member])
    stand_in_npm(tmp_path, monkeypatch, "exit 1")
    second = npm.read_package(web.ONNXRUNTIME_WEB, [member])

    assert first == second == {member: b"stands for ort.wasm.bundle.min.mjs"}


@pytest.mark.skipif("__import__('os').name == 'nt'")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'npm error network getaddrinfo ENOTFOUND' >&2; exit 1",
            r"\(npm error network .*\); check the network, or",
        ),
        ('echo wrong > "$6"/onnxruntime-web-1.30.0.tgz', "has another hash than the one that densevit expects"),
        ("exit 0", r"npm cannot download onnxruntime-web"),
    ],
)
def test_package__that_npm_does_not_give_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    monkeypatch.setattr(npm, "folders", lambda: iter(()))
    stand_in_npm(tmp_path, monkeypatch, script)

    with pytest.raises(EngineError, match=message):
        npm.read_package(npm.ONNXRUNTIME_WEB, [])


def test_page__has_the_colours_of_depth() -> None:
    text = (FOLDER / "colours.js").read_text(encoding="utf-8")
    encoded = "".join(re.findall(r'"([A-Za-z0-9+/=]{8,})"', text))

    table = np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(256, 3)

    near_to_far = colourise_depth(np.linspace(1, 2, 256)[None], limits=(1, 2))
    np.testing.assert_array_equal(table[::-1], near_to_far[0])


def test_command__writes_a_folder(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from densevit.checkpoints.native import save_bundle
    from densevit.export.job import exportable

    monkeypatch.chdir(tmp_path)
    save_bundle(exportable(tiny_predictor())[0], tmp_path / "mine.safetensors")

    done = CliRunner().invoke(app, ["export", "mine.safetensors", "--to", "web", "--npm-package", str(archive)])

    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine-web" / "index.html").exists()
    assert "python -m http.server 8000 --directory mine-web" in done.output
    assert "things: labels equal to the model's on" in done.output


def test_command__refuses_options_of_web_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"--weights and --npm-package belong to --to web"):
        CliRunner().invoke(app, ["export", "default", "--to", "onnx", "--weights", "int8"], catch_exceptions=False)
