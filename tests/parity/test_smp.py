"""Our models give what DPT of segmentation_models.pytorch gives with the same random weights, as it saves them.

Runs where segmentation_models.pytorch is installed: `make parity`.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from densevit.checkpoints.open import import_file
from densevit.errors import CheckpointError
from densevit.inference.protocols import forward
from tests.tolerances import PARITY, relative_l2

Size = tuple[int, int]
DECODER = {"decoder_intermediate_channels": (8, 12, 16, 20), "decoder_fusion_channels": 16}
NARROW: dict[str, Any] = {"embed_dim": 48, "num_heads": 3}
TINY, SMALL = "tu-vit_tiny_patch16_224", (64, 64)
CASES: dict[str, tuple[str, dict[str, Any], Size]] = {
    "readout cat": (TINY, {}, SMALL),
    "readout add": (TINY, NARROW | {"decoder_readout": "add"}, SMALL),
    "readout ignore": (TINY, NARROW | {"decoder_readout": "ignore"}, SMALL),
    "other sizes": (TINY, NARROW | {"dynamic_img_size": True}, (96, 160)),
    "wide": (TINY, NARROW | {"img_size": (32, 96)}, (32, 96)),
    "patch 8": ("tu-vit_small_patch8_224.dino", NARROW, SMALL),
    "patch 32": ("tu-vit_small_patch32_224", NARROW | {"img_size": 128}, (128, 128)),
    "blocks in disorder": (TINY, NARROW | {"encoder_output_indices": [2, 0, -1, 1]}, SMALL),
    "two prefix tokens": ("tu-deit_tiny_distilled_patch16_224", NARROW | {"decoder_readout": "add"}, SMALL),
    "registers": ("tu-vit_medium_patch16_reg4_gap_256", NARROW | {"decoder_readout": "add"}, SMALL),
    "no prefix token": ("tu-vit_base_patch16_siglip_224", NARROW | {"decoder_readout": "add"}, SMALL),
    "CLIP": ("tu-vit_base_patch16_clip_quickgelu_224", NARROW, SMALL),
    "DINOv3": ("tu-vit_small_patch16_dinov3.lvd1689m", NARROW, (96, 64)),
    "DINOv3, gated": ("tu-vit_small_plus_patch16_dinov3", NARROW, SMALL),
    "EVA-02": ("tu-eva02_base_patch16_clip_224", NARROW, SMALL),
    "PE-Spatial": ("tu-vit_pe_spatial_tiny_patch16_512", NARROW, SMALL),
    "classifier": (TINY, NARROW | {"aux_params": {"classes": 3}}, SMALL),
    "softmax": (TINY, NARROW | {"activation": "softmax2d"}, SMALL),
}
"""Case -> the encoder, the arguments that differ, and the size of the image."""


def randomise(model: nn.Module) -> None:
    """Weights and statistics under which every part shows in the output."""
    draw = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=draw)
        if name.endswith("running_var"):
            tensor.copy_(noise.abs() + 0.5)
        elif tensor.ndim == 1:
            tensor.copy_(0.2 * noise + float(name.endswith(("weight", "gamma_1", "gamma_2"))))
        elif tensor.ndim:  # but for the counters of batches
            tensor.copy_(noise * (0.5 if "token" in name or "pos_embed" in name else tensor[0].numel() ** -0.5))


def saved(folder: Path, encoder: str, **arguments: Any) -> nn.Module:
    """A model of random weights, written as users write it."""
    given = {"classes": 5, "encoder_weights": None, "img_size": 64} | DECODER | arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises another readout without prefix tokens
        model = smp.DPT(encoder, **given).eval()
    randomise(model)
    model.save_pretrained(folder)
    return model


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    """The output before the last function."""
    model.segmentation_head.activation = nn.Identity()
    output = model(images)
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_dpt_of_smp__is_reproduced(case: str, tmp_path: Path) -> None:
    encoder, arguments, size = CASES[case]
    reference = saved(tmp_path, encoder, **arguments)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(9))

    model = import_file(str(tmp_path)).bundle.model

    ours = forward("dpt", model, "labels")(images)
    assert relative_l2(ours, logits_of(reference, images)) <= PARITY


@torch.no_grad()
def test_one_channel_of_smp__becomes_two_classes(tmp_path: Path) -> None:
    reference = saved(tmp_path, TINY, classes=1, activation="sigmoid", **NARROW)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(9))

    model = import_file(str(tmp_path)).bundle.model

    ours = forward("dpt", model, "labels")(images).softmax(dim=1)[:, 1:]
    assert relative_l2(ours, reference(images)) <= PARITY


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoder_depth": 3, "decoder_intermediate_channels": (8, 12, 16)}, "encoder_depth=3"),
        ({"activation": "sigmoid"}, "activation='sigmoid' on 5 channels"),
        ({"in_channels": 4}, "takes 4 channels"),
        ({"encoder_name": "tu-vit_base_patch16_siglip_224"}, "'cat' on an encoder without prefix tokens"),
        ({"encoder_name": "tu-vit_small_patch16_rope_mixed_224"}, "rotary frequencies are learned"),
        ({"encoder_name": "tu-vit_small_patch14_dinov2", "img_size": 56}, "patches of 14 x 14"),
        ({"act_layer": "relu"}, "act_layer='relu'"),
    ],
)
def test_other_dpt_of_smp__is_refused(arguments: dict[str, Any], words: str, tmp_path: Path) -> None:
    saved(tmp_path, **({"encoder": arguments.pop("encoder_name", TINY)} | NARROW | arguments))

    with pytest.raises(CheckpointError, match=words):
        import_file(str(tmp_path))


def test_unet_of_smp__is_refused(tmp_path: Path) -> None:
    smp.Unet("resnet18", encoder_weights=None).save_pretrained(tmp_path)

    with pytest.raises(CheckpointError, match=r"segmentation_models\.pytorch, whose decoder is another one"):
        import_file(str(tmp_path))
