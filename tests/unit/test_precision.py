"""Models with narrower numbers: every decoder, every kind of block, and clear words where that is not possible."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import densevit
from densevit.blocks import Attention, Block
from densevit.checkpoints.native import load_bundle
from densevit.encoder.token_merging_rules import TomeMerging
from densevit.engines import precision
from densevit.engines.int8 import Int8Block
from densevit.engines.precision import use_precision
from densevit.errors import ConfigError
from densevit.inference.predictor import Predictor
from densevit.inference.speed import SpeedConfig
from densevit.kernels import mixed_attention
from densevit.kernels.int8 import linear
from densevit.model import DenseModel
from tests.e2e.scenes import scene, write_model
from tests.factories import EVA, VARIANTS, tiny_model
from tests.needs import needs_int8
from tests.tolerances import relative_l2

FORMS = [pytest.param("c", marks=needs_int8), "torch"]
ERROR = 0.05
"""Of taps of a tiny random model, relative in L2."""

BLOCKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "swiglu": {"mlp": "swiglu"},
    "layer scale": {"layer_scale": 0.3},
    "rotary": {"positions": {"kind": "rotary"}},
    "rotary neighbours": {"positions": {"kind": "rotary", **EVA}},
    "inner norms": {"mlp": "swiglu", "mlp_norm": True, "attn_norm": True},
    "quick gelu": {"activation": "quick_gelu"},
    "tanh": {"activation": "gelu_tanh", "qkv_bias": False},
    "relu, pre-norm": {"activation": "relu", "pre_norm": True, "prefix": "cls+reg"},
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    form: str = request.param
    if form == "torch":
        monkeypatch.setattr(linear, "load", lambda: None)
        monkeypatch.setattr(mixed_attention, "load", lambda: None)
    return form


@pytest.fixture(autouse=True)
def warned_of_nothing() -> Iterator[None]:
    precision._warn.cache_clear()
    yield
    precision._warn.cache_clear()


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 64, 80, generator=torch.Generator().manual_seed(1))


def model(name: str = "segmenter_linear", **facts: Any) -> DenseModel:
    """With weights large enough for blocks to matter."""
    made = tiny_model(name, **facts).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in made.modules():
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5)
    return made


@pytest.mark.parametrize("name", VARIANTS)
@torch.inference_mode()
def test_every_decoder__is_close_to_float32(name: str, form: str) -> None:
    plain = model(name, prefix="cls+dist")
    narrow = use_precision(copy.deepcopy(plain), "int8")

    expected, found = plain(images()), narrow(images())

    for head, output in expected.items():
        assert found[head].logits.dtype == torch.float32
        assert relative_l2(found[head].logits, output.logits) < 2 * ERROR
    assert narrow.config is not None
    assert narrow.config == plain.config
    assert narrow.num_parameters() == pytest.approx(plain.num_parameters(), rel=0.05)


@pytest.mark.parametrize("facts", BLOCKS.values(), ids=list(BLOCKS))
@torch.inference_mode()
def test_every_kind_of_block__is_close_to_float32(facts: dict[str, Any], form: str) -> None:
    plain = model(**facts)
    narrow = use_precision(copy.deepcopy(plain), "int8")

    expected, found = plain.encode(images()), narrow.encode(images())

    assert all(isinstance(block, Int8Block) for block in narrow.encoder.blocks)
    for given, reference in zip(found.tokens + found.prefix, expected.tokens + expected.prefix, strict=True):
        assert relative_l2(given, reference) < ERROR


@torch.inference_mode()
def test_taps__are_not_overwritten_by_later_blocks_or_images(form: str) -> None:
    narrow = use_precision(model("dpt/ignore, segmentation"), "int8")

    first = narrow.encode(images()).tokens
    kept = [tap.clone() for tap in first]
    narrow.encode(1 - images())

    for tap, copied in zip(first, kept, strict=True):
        assert torch.equal(tap, copied)
    assert len({tap.data_ptr() for tap in first}) == len(first)


@torch.inference_mode()
def test_image__does_not_depend_on_its_batch(form: str) -> None:
    narrow = use_precision(model(), "int8")

    together, alone = narrow.encode(images()).tokens[-1][1:], narrow.encode(images()[1:]).tokens[-1]

    assert relative_l2(together, alone) < 1e-4


@pytest.mark.parametrize("proportional", [False, True])
@torch.inference_mode()
def test_merging__goes_on(proportional: bool, form: str) -> None:
    plain = model()
    plain.encoder.merging = TomeMerging(first=1, every=1, share=0.2, proportional=proportional)
    narrow = use_precision(copy.deepcopy(plain), "int8")

    found, expected = narrow.encode(images()).tokens[-1], plain.encode(images()).tokens[-1]

    assert found.shape == expected.shape
    assert found.isfinite().all()


def test_what_is_sensitive__stays_float32() -> None:
    narrow = use_precision(model("segmenter_mask"), "int8")

    assert type(narrow.heads["main"].proj_dec) is linear.Int8Linear
    assert isinstance(narrow.heads["main"].proj_patch, nn.Linear)
    assert isinstance(narrow.encoder.patch_embed.proj, nn.Conv2d)
    assert isinstance(use_precision(model("segmenter_linear"), "int8").heads["main"].head, nn.Linear)


def test_float32__is_the_model_as_it_is() -> None:
    given = model()
    state = {name: value.clone() for name, value in given.state_dict().items()}

    assert use_precision(given) is given
    assert all(torch.equal(value, state[name]) for name, value in given.state_dict().items())
    assert all(type(block) is Block for block in given.encoder.blocks)


@pytest.mark.parametrize(("switches", "expected"), [({}, "int8"), ({"attention": "bfloat16"}, "bfloat16")])
def test_attention__multiplies_integers_unless_told_otherwise(switches: dict[str, Any], expected: str) -> None:
    narrow = use_precision(model(), "int8", **switches)

    assert {m.precision for m in narrow.modules() if isinstance(m, Attention)} == {expected}


@torch.inference_mode()
def test_bfloat16_attention__leaves_the_rest_of_a_float32_model() -> None:
    plain = model()
    narrow = use_precision(copy.deepcopy(plain), attention="bfloat16")

    assert all(type(block) is Block for block in narrow.encoder.blocks)
    assert relative_l2(narrow.encode(images()).tokens[-1], plain.encode(images()).tokens[-1]) < ERROR / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "there is no precision 'int4'; did you mean 'int8'?"),
        ({"precision": "float16"}, "precision float16 is for GPUs, but the model is on the CPU, where it is slower"),
        ({"precision": "bfloat16"}, "precision bfloat16 is for GPUs.*choose precision int8 or float32"),
        ({"attention": "int8"}, "attention is 'int8' but runs in float32 or bfloat16"),
    ],
)
def test_what_cannot_run__is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        use_precision(model(), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "int8 runs on the CPU, but the model is on meta; choose precision bfloat16 or float16"),
        ({"precision": "float16", "attention": "bfloat16"}, "attention bfloat16 is a switch of models in float32"),
        ({"attention": "bfloat16"}, "attention bfloat16 is a switch of models in float32 or int8 on the CPU"),
    ],
)
def test_device_that_cannot_run_it__is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        use_precision(model().to("meta"), **options)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves__are_those_of_the_whole_network(dtype: Any) -> None:
    narrow = use_precision(model("dpt/sigmoid depth").to("meta"), dtype)

    output = narrow(images().to("meta"))["main"].logits

    assert {p.dtype for p in narrow.parameters()} == {getattr(torch, dtype)}
    assert narrow.mean.dtype == torch.float32
    assert output.shape[:2] == (2, 1)
    assert output.dtype == torch.float32  # depth is computed from the last convolution's values in float32


def test_adapters__are_refused() -> None:
    adapted = model()

    class Adapter(nn.Linear):
        """Stands for peft's."""

    adapted.encoder.blocks[1].attn.qkv = Adapter(32, 96)  # type: ignore[union-attr]

    with pytest.raises(ConfigError, match=r"qkv is a .*Adapter; merge adapters first, with densevit.training.lora"):
        use_precision(adapted, "int8")


@pytest.mark.parametrize("missing", ["vnni", "kernel"])
def test_slower_form__is_announced_once(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear, "load", lambda: None)
    monkeypatch.setattr(precision, "has_vnni", lambda: missing != "vnni")

    with caplog.at_level(logging.WARNING):
        use_precision(model(), "int8")
        use_precision(model(), "int8")

    reason = "the processor has no AVX-512 VNNI" if missing == "vnni" else "its kernel could not be built"
    assert [reason in record.message for record in caplog.records] == [True]
    assert "more slowly than float32" in caplog.text


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.safetensors", "setr", "segmenter", "depth")


def test_predictor__runs_the_precision_that_it_says(weights: Path) -> None:
    predictor = Predictor.load(weights, device="cpu", speed={"precision": "int8"})

    prediction = predictor.predict(scene(0, (50, 70)).image)
    features = predictor.features(scene(0, (50, 70)).image)

    assert predictor.speed.set_values() == {"precision": "int8"}
    assert any(isinstance(module, Int8Block) for module in predictor.model.modules())
    assert prediction["setr"].labels.shape == (50, 70)
    assert np.isfinite(features.last).all()


def test_predictor__leaves_the_given_model_as_it_is(weights: Path) -> None:
    bundle = load_bundle(weights)
    before = {name: value.clone() for name, value in bundle.model.state_dict().items()}

    Predictor(bundle, device="cpu", speed=SpeedConfig(precision="int8", attention="bfloat16"))

    after = bundle.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {m.precision for m in bundle.model.modules() if isinstance(m, Attention)} == {"float32"}


def test_saving__is_refused(weights: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(weights, device="cpu", speed={"precision": "int8"})

    with pytest.raises(ConfigError, match="runs in precision int8, whose weights are rounded; load it with precision"):
        predictor.save(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("speed", "what"),
    [
        ({"precision": "int8"}, "precision int8"),
        ({"attention": "bfloat16"}, "attention bfloat16"),
        ({"precision": "int8", "attention": "bfloat16"}, "precision int8 and attention bfloat16"),
    ],
)
def test_moving__is_refused(speed: dict[str, str], what: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.load(weights, device="cpu", speed=speed)
    monkeypatch.setattr("densevit.inference.predictor.pick_device", torch.device)

    with pytest.raises(ConfigError, match=rf"runs in {what} on cpu and cannot move to meta; load it there"):
        predictor.to("meta")


@pytest.mark.parametrize("switch", [{"precision": "int8"}, {"attention": "bfloat16"}])
def test_engines__are_refused_together_with_it(weights: Path, switch: dict[str, Any]) -> None:
    name, value = next(iter(switch.items()))

    for options in ({"engine": "compile", "speed": switch}, {"speed": {"engine": "compile", **switch}}):
        with pytest.raises(ConfigError, match=f"{name} is {value}, which needs engine torch, but engine is compile"):
            densevit.load(weights, device="cpu", **options)
