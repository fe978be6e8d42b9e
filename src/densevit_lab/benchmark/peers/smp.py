"""segmentation_models.pytorch's DPT on a ViT-B of timm.

Its coarsest fusion has one residual unit more than the paper's DPT, for which an importer has no place. The last norm
of that unit is set to zero: the unit computes, and adds nothing.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit.inference_config import InferenceConfig
from densevit.io import read_image
from densevit_lab.benchmark.peers import Peer, import_bundle
from densevit_lab.benchmark.peers.fill import fill

ENCODER = "vit_base_patch16_224.augreg_in21k"
ADDS_NOTHING = "decoder.fusion_blocks.0.residual_conv_block1.batch_norm_2."

_UNIT = r"decoder\.fusion_blocks\.(\d)\.residual_conv_block(\d)\."
# Its names -> those of isl-org/DPT, whose arithmetic it follows. There levels and refinenets count from 1, and the
# refinenets from the finest; a number in braces is computed from the matched one.
NAMES = (
    (r"encoder\.model\.(.+)", r"pretrained.model.\1"),
    (r"decoder\.projection_blocks\.(\d)\.project\.0\.(.+)", r"pretrained.act_postprocess{1+\1}.0.project.0.\2"),
    (r"decoder\.reassemble_blocks\.(\d)\.project_to_out_channel\.(.+)", r"pretrained.act_postprocess{1+\1}.3.\2"),
    (r"decoder\.reassemble_blocks\.(\d)\.upsample\.(.+)", r"pretrained.act_postprocess{1+\1}.4.\2"),
    (r"decoder\.reassemble_blocks\.(\d)\.project_to_feature_dim\.(.+)", r"scratch.layer{1+\1}_rn.\2"),
    (
        r"decoder\.fusion_blocks\.(\d)\.residual_conv_block(\d)\.conv_(.+)",
        r"scratch.refinenet{4-\1}.resConfUnit\2.conv\3",
    ),
    (
        r"decoder\.fusion_blocks\.(\d)\.residual_conv_block(\d)\.batch_norm_(.+)",
        r"scratch.refinenet{4-\1}.resConfUnit\2.bn\3",
    ),
    (r"decoder\.fusion_blocks\.(\d)\.project\.(.+)", r"scratch.refinenet{4-\1}.out_conv.\2"),
    (r"segmentation_head\.head\.(.+)", r"scratch.output_conv.\1"),
)


def build(*, num_classes: int = 150, image: int = 512) -> Peer:
    """DPT for labels; ``image``: side of the images."""
    import segmentation_models_pytorch as smp

    model = smp.DPT(encoder_name=f"tu-{ENCODER}", encoder_weights=None, classes=num_classes, img_size=image)
    fill(model)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith(ADDS_NOTHING) and name.endswith(("weight", "bias")):
                tensor.zero_()
    model.eval()
    preprocessing = smp.encoders.get_preprocessing_params(f"tu-{ENCODER}")
    mean, std = (np.asarray(preprocessing[key], dtype=np.float32) for key in ("mean", "std"))

    def predict(path: Path) -> NDArray[Any]:
        pixels = (read_image(path).astype(np.float32) / np.float32(255) - mean) / std
        with torch.inference_mode():
            logits = model(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        labels: NDArray[Any] = logits.argmax(dim=1)[0].numpy()
        return labels

    def bundle() -> Bundle:
        state = {rename(name): tensor for name, tensor in model.state_dict().items()}
        return replace(
            import_bundle("dpt", "segmentation_models.pytorch", state), fit=InferenceConfig(short_side=image)
        )

    return Peer(predict, bundle)


def rename(name: str) -> str:
    """The name of a tensor in isl-org/DPT."""
    for pattern, target in NAMES:
        if match := re.fullmatch(pattern, name):
            return re.sub(r"\{(\d)([+-])(\d)\}", _compute, match.expand(target))
    return name


def _compute(match: re.Match[str]) -> str:
    left, right = int(match[1]), int(match[3])
    return str(left + right if match[2] == "+" else left - right)
