from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import densevit
from densevit.checkpoints.native import load_bundle
from densevit.engines import engine, openvino
from densevit.engines.engine import use_engine
from densevit.errors import ConfigError, EngineError
from densevit.inference.predictor import Predictor
from densevit.inference.speed import SpeedConfig
from densevit.model import DenseModel, ModelConfig
from densevit_runtime import engines
from tests.e2e.scenes import write_model
from tests.factories import tiny_encoder
from tests.tolerances import SAME_MATHS

PHOTO = np.zeros((32, 48, 3), np.uint8)
HEADS = {
    "mask": {"decoder": {"kind": "segmenter_mask", "depth": 1}, "out_channels": 5},
    "pup": {"decoder": {"kind": "setr_pup", "channels": 8}, "out_channels": 3},
    "depth": {
        "decoder": {
            "kind": "dpt",
            "channels": (8, 8, 8, 8),
            "fusion_channels": 8,
            "head": {"kind": "depth", "hidden_channels": 4},
        },
        "out_channels": 1,
    },
}


def tiny_model(*heads: str) -> DenseModel:
    torch.manual_seed(0)
    config = {"encoder": tiny_encoder(), "heads": {name: HEADS[name] for name in heads or HEADS}}
    return DenseModel(ModelConfig.parse(config, source="test")).eval()


def image(height: int = 32, width: int = 48, batch: int = 1) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def plain_build(calls: list[Any], change: float = 0.0) -> Callable[..., Any]:
    """An engine that runs the module itself, and may get its values wrong."""

    def build(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
        calls.append(tuple(inputs[0].shape))
        return lambda *tensors: tuple(x + change for x in module(*tensors))

    return build


def check_equal(name: str, *heads: str) -> None:
    with torch.inference_mode():
        expected = tiny_model(*heads)(image())
        found = use_engine(tiny_model(*heads), name)(image())
    for head, output in expected.items():
        torch.testing.assert_close(found[head].logits, output.logits, **SAME_MATHS)


@pytest.mark.slow
def test_onnxruntime__equals_the_model() -> None:
    pytest.importorskip("onnxruntime")
    check_equal("onnxruntime", "mask", "depth")


@pytest.mark.slow
def test_openvino__equals_the_model() -> None:
    pytest.importorskip("openvino")
    try:
        openvino.require()
    except EngineError as error:
        pytest.skip(str(error))
    check_equal("openvino", "mask")


def test_torch__is_the_model_as_it_is() -> None:
    model = tiny_model("mask")
    assert use_engine(model, "torch") is model
    assert not isinstance(model.encoder, engine.EngineEncoder)


@pytest.mark.parametrize("options", [{"speed": {"engine": "compile"}}, {"engine": "compile"}], ids=["speed", "engine"])
def test_predictor__runs_the_engine_that_it_says(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build(calls))
    path = write_model(tmp_path / "model.safetensors", "coarse")

    predictor = Predictor.load(path, device="cpu", **options)
    predictor.predict(np.zeros((48, 64, 3), np.uint8))

    assert calls
    assert predictor.speed.set_values() == {"engine": "compile"}


def test_predictor__leaves_the_given_model_to_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build([]))
    bundle = load_bundle(write_model(tmp_path / "model.safetensors", "coarse"))

    predictor = Predictor(bundle, device="cpu", speed=SpeedConfig(engine="compile"))

    assert isinstance(predictor.model.encoder, engine.EngineEncoder)
    assert not isinstance(bundle.model.encoder, engine.EngineEncoder)


def test_program__is_built_once_for_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build(calls))
    model = use_engine(tiny_model("mask"), "compile")

    for given in (image(), image(48, 48), image(), image(batch=2)):
        with torch.inference_mode():
            model(given)

    assert [shape for shape in calls if len(shape) == 4] == [(1, 3, 32, 48), (1, 3, 48, 48), (2, 3, 32, 48)]


def test_grids_of_equally_many_patches__are_not_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build([]))
    model, plain = use_engine(tiny_model("mask"), "compile"), tiny_model("mask")

    for given in (image(32, 64), image(64, 32)):
        with torch.inference_mode():
            torch.testing.assert_close(model(given)["mask"].logits, plain(given)["mask"].logits, **SAME_MATHS)


def test_program_that_differs__is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build([], change=1.0))
    model = use_engine(tiny_model("mask"), "compile")

    with pytest.raises(EngineError, match=r"differs from the model by .* but 1e-03 is accepted; choose engine torch"):
        model(image())


def test_unknown_engine__is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="there is no engine 'onxruntime'; did you mean 'onnxruntime'"):
        use_engine(tiny_model("mask"), "onxruntime")


def test_engine_of_speed__runs_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(engine.ENGINES, "compile", plain_build(calls))

    densevit.load("default", heads="streets", speed={"engine": "compile", "short_side": 32}).predict(PHOTO)
    densevit.load("default", heads="streets", engine="torch", speed={"engine": "compile"})

    assert [len(shape) for shape in calls] == [4, 3]


def test_merging__is_refused_by_engines_that_cannot_export_it() -> None:
    with pytest.raises(ConfigError, match="'onnxruntime' cannot run token merging"):
        densevit.load("default", engine="onnxruntime", speed={"merging": {"kind": "tome"}})


def test_openvino_that_dies__is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_TRIAL", "import os, signal; os.kill(os.getpid(), signal.SIGFPE)")
    engines.require_openvino.cache_clear()

    with pytest.raises(EngineError, match=r"does not work on this machine \(exit code -8\); choose engine"):
        openvino.require()
    engines.require_openvino.cache_clear()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_missing_package__is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    monkeypatch.setattr(engines, "_TRIAL", "raise ModuleNotFoundError('openvino')")
    engines.require_openvino.cache_clear()

    with pytest.raises(EngineError, match=rf"{name}.*missing.*pip install"):
        use_engine(tiny_model("mask"), name)(image())
    engines.require_openvino.cache_clear()
