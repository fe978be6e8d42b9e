"""Our models give what transformers gives with the same random weights, variant by variant.

Runs where transformers is installed: `make parity`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn

from densevit.checkpoints.importers import IMPORTERS, Source, build
from densevit.checkpoints.open import open_model
from densevit.inference.predictor import Predictor
from densevit.inference.protocols import forward
from tests.tolerances import PARITY, relative_l2

VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "intermediate_size": 192,
    "image_size": 64,
    "patch_size": 16,
    "backbone_out_indices": [1, 2, 3, 4],
    "neck_hidden_sizes": [12, 20, 28, 36],
    "fusion_hidden_size": 20,
    "num_labels": 6,
}
BIT = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "depths": [2, 1, 1],
    "hidden_sizes": [128, 128, 256],
    "embedding_size": 32,
    "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
}
HYBRID = {
    "is_hybrid": True,
    "backbone_config": BIT,
    "neck_hidden_sizes": [128, 128, 28, 36],
    "reassemble_factors": [1, 1, 1, 0.5],
    "backbone_featmap_shape": [1, 256, 4, 4],
    "neck_ignore_stages": [0, 1],
}
DINO = {
    "model_type": "dinov2",
    "hidden_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "image_size": 56,
    "patch_size": 14,
    "out_indices": [1, 2, 3, 5],
    "reshape_hidden_states": False,
}


def dpt(kind: str, **changes: Any) -> nn.Module:
    names = {"depth": "DPTForDepthEstimation", "labels": "DPTForSemanticSegmentation"}
    return getattr(transformers, names[kind])(transformers.DPTConfig(**(VIT | changes)))


def depth_anything(backbone: dict[str, Any] | None = None, **changes: Any) -> nn.Module:
    dino = DINO | (backbone or {})
    facts = {"reassemble_hidden_size": 48, "neck_hidden_sizes": [12, 20, 28, 36], "fusion_hidden_size": 20}
    config = transformers.DepthAnythingConfig(backbone_config=dino, patch_size=dino["patch_size"], **(facts | changes))
    return transformers.DepthAnythingForDepthEstimation(config)


def dino_dpt(backbone: dict[str, Any] | None = None, **changes: Any) -> nn.Module:
    """As the published models on DINOv2; only a fusion width of 256 has the projection."""
    facts = {"neck_hidden_sizes": [6, 12, 24, 48], "fusion_hidden_size": 20, "use_bias_in_fusion_residual": False}
    dino = DINO | {"apply_layernorm": False} | (backbone or {})
    return transformers.DPTForDepthEstimation(transformers.DPTConfig(backbone_config=dino, **(facts | changes)))


Size = tuple[int, int, int]
CASES: dict[str, tuple[Callable[[], nn.Module], Size]] = {
    "depth": (lambda: dpt("depth"), (2, 96, 96)),
    "depth, readout added": (lambda: dpt("depth", readout_type="add"), (1, 64, 64)),
    "depth, readout ignored, batch norm": (
        lambda: dpt("depth", readout_type="ignore", use_batch_norm_in_fusion_residual=True),
        (1, 64, 64),
    ),
    "depth, batch norm and bias": (
        lambda: dpt("depth", use_batch_norm_in_fusion_residual=True, use_bias_in_fusion_residual=True),
        (1, 64, 64),
    ),
    "depth, neither": (lambda: dpt("depth", use_bias_in_fusion_residual=False), (1, 64, 64)),
    "depth, projection": (lambda: dpt("depth", add_projection=True, fusion_hidden_size=256), (1, 32, 32)),
    "depth, no bias of queries": (lambda: dpt("depth", qkv_bias=False), (1, 64, 64)),
    "depth, epsilon": (lambda: dpt("depth", layer_norm_eps=1e-3), (1, 64, 64)),
    "depth, blocks in disorder": (lambda: dpt("depth", backbone_out_indices=[4, 1, 3, 2]), (1, 64, 64)),
    "depth, odd pixels, odd grid": (lambda: dpt("depth"), (1, 90, 90)),
    "depth, patch 8": (lambda: dpt("depth", patch_size=8, image_size=32), (1, 48, 48)),
    "depth, other factors": (lambda: dpt("depth", reassemble_factors=[2, 1, 0.5, 0.25]), (1, 64, 64)),
    "depth, hybrid": (lambda: dpt("depth", **HYBRID), (2, 64, 64)),
    "labels": (lambda: dpt("labels", use_batch_norm_in_fusion_residual=True), (2, 96, 96)),
    "labels, no auxiliary head": (lambda: dpt("labels", use_auxiliary_head=False), (1, 80, 80)),
    "labels, patch 8": (lambda: dpt("labels", patch_size=8, image_size=32), (1, 32, 32)),
    "labels, hybrid": (lambda: dpt("labels", **HYBRID), (1, 64, 64)),
    "DPT on DINOv2": (dino_dpt, (2, 70, 98)),
    "DPT on DINOv2, odd pixels, odd grid": (dino_dpt, (1, 101, 75)),
    "DPT on DINOv2, one patch": (dino_dpt, (1, 14, 14)),
    "DPT on DINOv2, projection": (lambda: dino_dpt(add_projection=True, fusion_hidden_size=256), (1, 42, 70)),
    "DPT on DINOv2, SwiGLU": (lambda: dino_dpt({"use_swiglu_ffn": True}), (1, 56, 84)),
    "DPT on DINOv2, final norm": (lambda: dino_dpt({"apply_layernorm": True}), (1, 56, 84)),
    "DPT on DINOv2, epsilon": (lambda: dino_dpt({"layer_norm_eps": 1e-2}), (1, 56, 56)),
    "DPT on DINOv2, stages by name": (
        lambda: dino_dpt({"out_indices": None, "out_features": ["stage1", "stage2", "stage4", "stage5"]}),
        (1, 56, 84),
    ),
    "DPT on DINOv2, readout added": (lambda: dino_dpt(readout_type="add"), (1, 56, 84)),
    "DPT on DINOv2, readout ignored, batch norm": (
        lambda: dino_dpt(readout_type="ignore", use_batch_norm_in_fusion_residual=True),
        (1, 56, 84),
    ),
    "depth anything, raw taps": (lambda: depth_anything({"apply_layernorm": False}), (1, 56, 84)),
    "depth anything": (depth_anything, (2, 70, 98)),
    "depth anything, odd pixels": (depth_anything, (1, 60, 75)),
    "depth anything, equal count": (depth_anything, (1, 28, 112)),
    "depth anything, metric": (lambda: depth_anything(depth_estimation_type="metric", max_depth=80), (1, 56, 84)),
    "depth anything, relative with a factor": (lambda: depth_anything(max_depth=7), (1, 56, 56)),
    "depth anything, SwiGLU": (lambda: depth_anything({"use_swiglu_ffn": True}), (1, 56, 56)),
    "depth anything, stages from the end": (lambda: depth_anything({"out_indices": [-4, -3, -2, -1]}), (1, 56, 56)),
    "depth anything, patch 16": (lambda: depth_anything({"patch_size": 16, "image_size": 64}), (1, 80, 96)),
    "depth anything, other factors": (lambda: depth_anything(reassemble_factors=[2, 1, 1, 0.25]), (1, 56, 84)),
    "depth anything, hidden channels": (lambda: depth_anything(head_hidden_size=16), (1, 56, 56)),
}


def randomise(model: nn.Module) -> None:
    """Weights and statistics under which every part shows in the output."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            values = values.abs() + 0.5
        elif tensor.ndim == 1:
            values = 0.2 * values + float(name.endswith(("weight", "lambda1")))
        elif "position" in name or "token" in name:
            values = 0.5 * values
        else:
            values = 1.2 * values / tensor[0].numel() ** 0.5
        tensor.copy_(values)
    if isinstance(model, transformers.DPTForDepthEstimation):
        model.head.head[4].weight.abs_()  # what it reads is positive, so the last ReLU leaves something to compare


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_model_of_transformers__is_reproduced(name: str) -> None:
    make, (batch, height, width) = CASES[name]
    reference = make().eval()
    randomise(reference)
    images = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(9))
    state: dict[str, Tensor] = dict(reference.state_dict())

    bundle = build(
        "transformers", IMPORTERS["transformers"], Source(name, state, {"config.json": reference.config.to_dict()})
    ).bundle
    (head,) = bundle.tasks
    ours = forward("transformers", bundle.model, head)(images)

    theirs = reference(images)
    expected = theirs.logits if head == "labels" else theirs.predicted_depth[:, None]
    assert relative_l2(ours, expected) <= PARITY


PUBLISHED = {  # facebook/dpt-dinov2-*: width, blocks, attention heads, tapped stages
    "small": (384, 12, 6, [3, 6, 9, 12]),
    "base": (768, 12, 12, [3, 6, 9, 12]),
    "large": (1024, 24, 16, [5, 12, 18, 24]),
    "giant": (1536, 40, 24, [10, 20, 30, 40]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_dpt_on_dinov2__has_every_parameter(name: str) -> None:
    """The layouts of the published files, without values."""
    width, depth, heads, stages = PUBLISHED[name]
    backbone = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "image_size": 518}
    backbone |= {"out_indices": stages, "use_swiglu_ffn": name == "giant"}
    necks = [width // 8, width // 4, width // 2, width]
    with torch.device("meta"):
        reference = dino_dpt(backbone, neck_hidden_sizes=necks, fusion_hidden_size=256, add_projection=True)

    side = {"config.json": reference.config.to_dict()}
    imported = build("transformers", IMPORTERS["transformers"], Source(name, dict(reference.state_dict()), side))

    # Unused there: the mask token, the final norm, and the first fusion's unit for a coarser path.
    unused = 3 * width + 2 * 9 * 256**2
    assert imported.bundle.model.num_parameters() == reference.num_parameters() - unused
    assert imported.counts.source == imported.counts.built + imported.counts.ignored


PROCESSORS: dict[str, dict[str, Any]] = {
    **{f"filter {number}": {"resample": number} for number in range(6)},
    "not normalised": {"do_normalize": False},
    "other statistics": {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
    "another factor": {"rescale_factor": 1 / 127.5},
    "not rescaled": {"do_rescale": False},
    "not resized": {"do_resize": False},
    "padded": {"do_pad": True, "size_divisor": 48, "size": {"height": 80, "width": 80}},
    "padded without a divisor": {"do_pad": True},
    "aspect kept": {"keep_aspect_ratio": True, "ensure_multiple_of": 16},
}


@pytest.mark.parametrize("name", PROCESSORS)
@torch.no_grad()
def test_image_processor__is_reproduced(name: str, tmp_path: Path) -> None:
    processor = transformers.DPTImageProcessorPil(**{"size": {"height": 64, "width": 64}, **PROCESSORS[name]})
    reference = dpt("labels").eval()
    randomise(reference)
    reference.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    photo = np.random.default_rng(3).integers(0, 256, (100, 100, 3), dtype=np.uint8)

    ours = Predictor(open_model(tmp_path)).predict(photo, protocol="transformers")["labels"].logits

    theirs = reference(**processor(photo, return_tensors="pt")).logits
    assert relative_l2(ours, nn.functional.interpolate(theirs, (100, 100), mode="bilinear")[0]) <= PARITY


DINO_PROCESSOR = {"do_resize": False, "do_rescale": False, "do_pad": True, "size_divisor": 14}
DINO_STATISTICS = {"image_mean": [123.675, 116.28, 103.53], "image_std": [58.395, 57.12, 57.375]}


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("size", [(70, 98), (75, 61), (13, 200)])
@torch.no_grad()
def test_dpt_on_dinov2__reproduces_photos(size: tuple[int, int], stated: bool, tmp_path: Path) -> None:
    """The published processor is also the one that is taken where the folder has none."""
    processor = transformers.DPTImageProcessorPil(**DINO_PROCESSOR, **DINO_STATISTICS)
    reference = dino_dpt().eval()
    randomise(reference)
    reference.save_pretrained(tmp_path)
    if stated:
        processor.save_pretrained(tmp_path)
    photo = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)

    ours = Predictor(open_model(tmp_path, release="nyu")).predict(photo, protocol="transformers")["depth"].depth

    outputs = reference(**processor(photo, return_tensors="pt"))
    theirs = processor.post_process_depth_estimation(outputs, [size])[0]["predicted_depth"]
    assert relative_l2(torch.as_tensor(ours), theirs) <= PARITY
