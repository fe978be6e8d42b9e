"""Files as training scripts write them: prefixes, tensors beside the model, models of programs that are not read."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from densevit.checkpoints.files import read_state_dict
from densevit.checkpoints.importers import detect
from densevit.checkpoints.open import import_file
from densevit.errors import CheckpointError
from tests.parity.foreign import FIXTURES, SEGMENTER, state_of

State = dict[str, Tensor]
DEPTH_ANYTHING = FIXTURES["dav2-official-clstoken-bn"]


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "model.",
        "net.",
        "module.",
        "model._orig_mod.",
        "_orig_mod.module.",
        "module.model.",
        "_forward_module.model.",
    ],
)
def test_prefix_of_a_wrapper__is_taken_off(prefix: str, tmp_path: Path) -> None:
    state = state_of(SEGMENTER)
    torch.save({"state_dict": under(prefix, state)}, tmp_path / "w.ckpt")

    assert read_state_dict(tmp_path / "w.ckpt").keys() == state.keys()


def test_compiled_part__is_named_as_before(tmp_path: Path) -> None:
    torch.save({"encoder._orig_mod.blocks.0.w": torch.ones(1), "head.w": torch.ones(1)}, tmp_path / "w.pt")

    assert set(read_state_dict(tmp_path / "w.pt")) == {"encoder.blocks.0.w", "head.w"}


@pytest.mark.parametrize(
    "beside", ["n_averaged", "criterion.weight", "ema_model.decoder.head.bias", "train_miou.count"]
)
def test_tensor_beside_the_model__is_left_out(beside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = state_of(SEGMENTER)
    torch.save(under("model.", state) | {beside: torch.ones(1)}, tmp_path / "w.pt")

    with caplog.at_level(logging.WARNING):
        assert read_state_dict(tmp_path / "w.pt").keys() == state.keys()

    assert (beside in caplog.text) == (beside != "n_averaged")


def test_other_tensor_beside_the_model__keeps_all_names(tmp_path: Path) -> None:
    torch.save({"model.w": torch.ones(1), "adapter.w": torch.ones(1)}, tmp_path / "w.pt")

    assert set(read_state_dict(tmp_path / "w.pt")) == {"model.w", "adapter.w"}


def test_state_of_an_optimiser__is_called_so(tmp_path: Path) -> None:
    torch.save({"state": {0: {"exp_avg": torch.ones(1)}}, "param_groups": []}, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="the state of an optimiser"):
        read_state_dict(tmp_path / "w.pt")


VIT = {"patch_embed.proj.weight": torch.zeros(4, 3, 2, 2), "blocks.0.norm1.weight": torch.zeros(4)}
OTHERS: dict[str, tuple[str, ...]] = {
    "EoMT": ("query.weight", "mask_head.fc1.weight"),
    "UperNet": ("backbone.x.weight", "decode_head.psp_modules.0.weight"),
    "BEiT": ("beit.encoder.layer.0.weight", "decode_head.psp_modules.0.weight"),
    "Mask2Former": ("model.pixel_level_module.encoder.weight",),
    "SegFormer": ("segformer.encoder.weight", "decode_head.linear_c.0.proj.weight"),
    "segmentation_models.pytorch": ("decoder.projection.weight", "segmentation_head.0.weight"),
    "LoRA adapter": ("base_model.model.blocks.0.attn.qkv.lora_A.weight",),
    "diffusion": ("down_blocks.0.resnets.0.conv1.weight",),
    "MAE": ("decoder_embed.weight", "decoder_blocks.0.norm1.weight"),
    "ZoeDepth, whose encoder is BEiT": ("metric_head.conv1.weight",),
    "Prompt Depth Anything": (
        "backbone.embeddings.cls_token",
        "neck.fusion_stage.layers.0.prompt_depth_layer.convolution1.weight",
    ),
    "takes a coarse depth map": ("pretrained.cls_token", "depth_head.scratch.refinenet1.resConfUnit_depth.0.weight"),
    "Depth Pro": ("encoder.patch_encoder.cls_token", "encoder.image_encoder.cls_token"),
    "runs two encoders": ("depth_pro.encoder.patch_encoder.model.x", "depth_pro.encoder.image_encoder.model.x"),
    "TIPSv2-DPT": ("backbone.embeddings.cls_token", "depth_neck.convs.0.weight"),
    "another activation": (
        "backbone.embeddings.cls_token",
        "neck.reassemble_stage.readout_projects.0.layers.0.weight",
    ),
    "Sapiens 2": ("embeddings.register_tokens", "model.layer.0.attention.q_norm.weight"),
    "Depth Anything 3 for several views": ("backbone.pretrained.camera_token", "head.scratch.layer1_rn.weight"),
    "the head of a classifier": ("head.weight", "head.bias"),
    "a model of an unknown program": ("my_decoder.0.weight",),
    "a plain encoder without a decoder": (),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_model_that_is_not_read__is_called_what_it_is(kind: str) -> None:
    state = VIT | {name: torch.zeros(1) for name in OTHERS[kind]}

    with pytest.raises(CheckpointError) as error:
        detect(state, "file")

    assert kind in str(error.value)
    assert ("plain encoder" in str(error.value)) == ("classifier" in kind or "plain" in kind)


@pytest.mark.parametrize("kind", ["zoedepth", "prompt_depth_anything", "depth_pro", "tipsv2_dpt", "sapiens2"])
def test_model_type_of_transformers__is_called_what_it_is(kind: str, tmp_path: Path) -> None:
    save_file(
        {"backbone.embeddings.x": torch.ones(1), "neck.convs.0.weight": torch.ones(1)}, tmp_path / "m.safetensors"
    )
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')

    with pytest.raises(CheckpointError, match=r"model_type in its config\.json\); run it with transformers"):
        import_file(str(tmp_path))


def test_maximum_depth__stands_for_a_release(tmp_path: Path) -> None:
    torch.save(state_of(DEPTH_ANYTHING), tmp_path / "finetuned.pth")
    known = {"num_heads": 2, "taps": (0, 1, 2, 3)}

    task = import_file(str(tmp_path / "finetuned.pth"), max_depth_m=30.0, **known).bundle.tasks["depth"]

    assert task.model_dump()["max_depth_m"] == 30.0
    with pytest.raises(CheckpointError, match="give --release to `densevit convert`"):
        import_file(str(tmp_path / "finetuned.pth"), **known)
