"""segmentation_models.pytorch's DPT on a ViT-B of timm.

Its coarsest fusion has one residual unit more than the paper's DPT, for which an importer has no place. The last norm
of that unit is set to zero: the unit computes, and adds nothing.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle
from densevit.inference_config import InferenceConfig
from densevit.io import read_image
from densevit_lab.benchmark.peers import Peer, fill, import_bundle

ENCODER = "vit_base_patch16_224.augreg_in21k"
ADDS_NOTHING = "decoder.fusion_blocks.0.residual_conv_block1.batch_norm_2."


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
    """The name of a tensor in isl-org/DPT, which counts levels from 1, and fusions from the finest."""
    match name.split("."):
        case ["encoder", "model", *rest]:
            new = "pretrained.model"
        case ["decoder", "projection_blocks", level, "project", "0", *rest]:
            new = f"pretrained.act_postprocess{int(level) + 1}.0.project.0"
        case ["decoder", "reassemble_blocks", level, "project_to_out_channel", *rest]:
            new = f"pretrained.act_postprocess{int(level) + 1}.3"
        case ["decoder", "reassemble_blocks", level, "upsample", *rest]:
            new = f"pretrained.act_postprocess{int(level) + 1}.4"
        case ["decoder", "reassemble_blocks", level, "project_to_feature_dim", *rest]:
            new = f"scratch.layer{int(level) + 1}_rn"
        case ["decoder", "fusion_blocks", level, "project", *rest]:
            new = f"scratch.refinenet{4 - int(level)}.out_conv"
        case ["decoder", "fusion_blocks", level, unit, layer, *rest]:
            layer = layer.replace("conv_", "conv").replace("batch_norm_", "bn")
            new = f"scratch.refinenet{4 - int(level)}.resConfUnit{unit[-1]}.{layer}"
        case ["segmentation_head", "head", *rest]:
            new = "scratch.output_conv"
        case _:
            return name
    return ".".join([new, *rest])
