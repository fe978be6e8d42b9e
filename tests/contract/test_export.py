"""Every decoder, task and position embedding as an ONNX and an OpenVINO graph, equal to torch at five sizes."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from densevit.checkpoints.native import Bundle, Card
from densevit.decoders import DECODERS
from densevit.export.files import writer
from densevit.export.graph import build_graph
from densevit.export.job import export_model
from densevit.export.metadata import describe
from densevit.export.verify import Run, check, compare
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.tasks import Task, parse_task
from densevit.types import Size
from densevit_runtime.engines import open_engine, require_openvino
from densevit_runtime.errors import EngineError
from densevit_runtime.metadata import output_names
from tests.factories import EVA, PE, VARIANTS, tiny_model

SIZES = ((1, 48, 80), (1, 97, 61), (3, 64, 64), (1, 333, 517), (3, 40, 30))

POSITIONS: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear"},
    "antialiased": {"antialias": True, "grid": (13, 5)},
    "antialiased, bilinear": {"antialias": True, "mode": "bilinear", "grid": (13, 5)},
    "DINOv2's offset": {"offset": 0.1, "grid": (5, 8)},
    "offset, antialiased": {"offset": 0.1, "antialias": True, "grid": (14, 4)},
    "equal count": {"keep_equal_count": True, "grid": (4, 10)},
    "without prefix": {"num_prefix": 0},
}

ENCODERS: dict[str, dict[str, Any]] = {
    "no prefix": {"prefix": "none"},
    "registers": {"prefix": "cls+reg"},
    "rotary": {"positions": {"kind": "rotary"}, "prefix": "cls+reg"},
    "rotary, no prefix": {"positions": {"kind": "rotary"}, "prefix": "none"},
    "rotary indices": {"positions": {"kind": "rotary", **EVA}, "prefix": "cls+reg"},
    "EVA-02": {
        "positions": {"kind": "learned", "grid": (3, 3), "rotary": EVA},
        **{"mlp": "swiglu", "mlp_norm": True, "attn_norm": True},
    },
    "perception encoder": {"positions": {"kind": "learned", "grid": (3, 3), "rotary": PE}, "pre_norm": True},
    "SwiGLU, LayerScale, final norm": {"mlp": "swiglu", "layer_scale": 0.3, "final_norm": True},
    "CLIP": {"activation": "quick_gelu", "pre_norm": True, "patch_bias": False, "qkv_bias": False},
    "tanh": {"activation": "gelu_tanh"},
    "ReLU": {"activation": "relu"},
    "patch 14": {"patch_size": 14},
    "patch 8": {"patch_size": 8},
    "patch 32": {"patch_size": 32},
    "patch 8 x 16": {"patch_size": (8, 16)},
}


def works(engine: str) -> bool:
    """Whether an engine can be tested here."""
    if engine == "onnx":
        return importlib.util.find_spec("onnxruntime") is not None
    try:
        require_openvino()
    except EngineError:
        return False
    return True


@pytest.fixture(params=["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def target(request: pytest.FixtureRequest) -> str:
    """Each format whose engine is installed."""
    pytest.importorskip("onnx")
    if not works(request.param):
        pytest.skip(f"no engine for {request.param}")
    return str(request.param)


def task_of(name: str) -> Task:
    """The task of a row of ``VARIANTS``; values are directions, so that their normalisation is tested too."""
    variant = VARIANTS[name]
    kind = variant.decoder.get("head", {"kind": "segmentation"})["kind"]
    facts: dict[str, dict[str, Any]] = {
        "segmentation": {"classes": [f"class {index}" for index in range(variant.out_channels)]},
        "depth": {},
        "regression": {"channels": ["x", "y", "z"], "unit_vectors": True},
    }
    return parse_task({"kind": kind, **facts[kind]})


def lively(model: DenseModel) -> DenseModel:
    """The model with batch norms and positions that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, nn.Conv2d) and module.weight.std() < 0.02:  # SETR's classifiers, whose logits nearly tie
            nn.init.normal_(module.weight, std=0.3)
    if hasattr(model.encoder, "pos_embed"):
        nn.init.normal_(model.encoder.pos_embed, std=0.5)
    return model


def tiny_bundle(name: str, **facts: Any) -> Bundle:
    """A row of ``VARIANTS`` with its task; photos run at about 72 pixels."""
    model = lively(tiny_model(name, **{"prefix": "cls+dist", **facts}))
    return Bundle(model, {"main": task_of(name)}, InferenceConfig(short_side=72, max_long_side=100), Card())


def photos(size: Size = (80, 80)) -> list[np.ndarray]:
    """Three pictures of coarse noise."""
    random = np.random.default_rng(0)
    return [np.kron(random.integers(0, 256, (10, 10, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]


def assert_equal_to_torch(
    bundle: Bundle, target: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *, tolerance: float = 1e-3
) -> None:
    """Write a bundle's graph, and run it and the model at every size."""
    monkeypatch.setattr("densevit.export.verify.SIZES", SIZES)
    heads = tuple(bundle.tasks)
    graph = build_graph(bundle, bundle.fit, heads, scores=True, sixteen_bits=target == "onnx")
    metadata = describe(bundle, bundle.fit, heads, source="tiny", scores=True)
    files = [folder / "model.onnx"] if target == "onnx" else [folder / "model.xml", folder / "model.bin"]
    with writer(graph.model(), target) as write:  # type: ignore[arg-type]
        write(files, metadata)
    engine = open_engine(files[0], threads=1)
    names = [name for head, about in metadata.heads.items() for name in output_names(head, about)]
    run: Run = lambda images: engine.run(images, names)  # noqa: E731
    check(compare(run, bundle, bundle.fit, heads, photos(), scored=True), tolerance=tolerance)


def test_table__has_every_decoder() -> None:
    assert {variant.decoder["kind"] for variant in VARIANTS.values()} == DECODERS.builtin


@pytest.mark.parametrize("name", VARIANTS)
def test_decoder__is_equal_to_torch(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_equal_to_torch(tiny_bundle(name), target, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", POSITIONS)
def test_positions__are_equal_to_torch(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = {"kind": "learned", "grid": (3, 3), "num_prefix": 1, **POSITIONS[name]}

    assert_equal_to_torch(tiny_bundle("dpt/add, depth", positions=positions), target, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder__is_equal_to_torch(name: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = "segmenter_mask" if name == "patch 8 x 16" else "dpt/ignore, regression"

    assert_equal_to_torch(tiny_bundle(decoder, **ENCODERS[name]), target, tmp_path, monkeypatch)


@pytest.mark.parametrize("target_name", ["onnx", "openvino"])
@pytest.mark.slow
def test_default__is_equal_to_torch(target_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    if not works(target_name):
        pytest.skip(f"no engine for {target_name}")
    monkeypatch.setattr("densevit.export.verify.SIZES", ((1, 333, 517), (1, 480, 640)))
    out = tmp_path / ("default.onnx" if target_name == "onnx" else "default.xml")

    exported = export_model("default", out)

    verified = exported.metadata.verified
    assert verified.labels_equal.keys() == {"streets", "rooms"}
    assert min(verified.labels_equal.values()) > 0.9999
    assert verified.largest_difference["depth"] < 1e-4
