import sys
from pathlib import Path

import pytest
import torch

from densevit.checkpoints.native import Bundle, Card, load_bundle, save_bundle
from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.tasks import Segmentation
from densevit.training.checkpoint import load_state, save_state
from densevit.training.lora import LoraConfig, add_lora, without_lora
from tests.factories import tiny_model
from tests.tolerances import EXACT

IMAGES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def logits(model: DenseModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IMAGES)["main"].logits


def adapted(**facts: object) -> DenseModel:
    """A tiny model whose adapters have learnt something."""
    torch.manual_seed(0)
    model = tiny_model("segmenter_linear")
    add_lora(model, LoraConfig(rank=2, **facts))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_()
    return model


def test_lora__changes_nothing_before_it_has_learnt() -> None:
    model = tiny_model("segmenter_linear")
    before = logits(model)

    add_lora(model, LoraConfig())

    torch.testing.assert_close(logits(model), before, **EXACT)


def test_lora__trains_the_adapters_and_the_heads_alone() -> None:
    model = adapted(targets=("qkv", "fc2"))

    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}

    assert learning == {n for n, _ in model.named_parameters() if "lora_" in n or n.startswith("heads.")}
    assert {name.split(".lora_")[0] for name in learning if "lora_" in name} == {
        f"encoder.blocks.{block}.{layer}" for block in range(4) for layer in ("attn.qkv", "mlp.fc2")
    }
    model.train()(IMAGES)["main"].logits.square().mean().backward()
    assert all(model.get_parameter(name).grad is not None for name in learning)


def test_lora__is_added_into_the_weights_of_a_finished_model(tmp_path: Path) -> None:
    model = adapted()
    expected, names = logits(model), set(tiny_model("segmenter_linear").state_dict())

    plain = without_lora(model)
    save_bundle(
        Bundle(plain, {"main": Segmentation(classes=tuple("abcde"))}, InferenceConfig(), Card()),
        tmp_path / "m.safetensors",
    )

    assert set(plain.state_dict()) == names
    torch.testing.assert_close(logits(load_bundle(tmp_path / "m.safetensors").model), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model), expected, **EXACT)  # the model in training is left alone


def test_without_lora__is_the_model_itself_where_there_is_none() -> None:
    model = tiny_model("segmenter_linear")
    assert without_lora(model) is model


def test_lora__is_part_of_the_state_of_a_run(tmp_path: Path) -> None:
    model = adapted()
    expected = logits(model)
    other = adapted()
    for parameter in other.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()

    save_state(tmp_path, 1, model, {})
    other.load_state_dict(load_state(tmp_path)["model"], strict=False)

    torch.testing.assert_close(logits(other), expected, **EXACT)


def test_lora__without_the_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)

    with pytest.raises(ConfigError) as caught:
        add_lora(tiny_model("segmenter_linear"), LoraConfig())

    assert str(caught.value).startswith("lora is set but peft cannot be imported (")
    assert str(caught.value).endswith("); pip install 'densevit[lora]', or unset lora")
