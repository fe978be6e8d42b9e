"""What a file is that no importer reads, by the names of its tensors: for messages only."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from densevit.checkpoints.encoder_names import looks_like_encoder, read_encoder
from densevit.checkpoints.rename import collapse
from densevit.errors import CheckpointError

_TRANSFORMERS = "run it with transformers"

ZOE_DEPTH = "ZoeDepth, whose encoder is BEiT, and whose heads choose depth bins for each pixel"
PROMPT_DA = "Prompt Depth Anything, which takes a coarse depth map beside the photo"
DEPTH_PRO = "Depth Pro, which runs two encoders over crops of several scales"
TIPS_DPT = "TIPSv2-DPT, whose readout has another activation, and whose heads are a convolution and depth bins"
SAPIENS_2 = "Sapiens 2, which has RMSNorm on queries and keys, shares keys among heads, and has no DPT"
DA_3_VIEWS = "Depth Anything 3 for several views, whose attention runs across photos"

MODEL_TYPES = {
    "zoedepth": ZOE_DEPTH,
    "prompt_depth_anything": PROMPT_DA,
    "depth_pro": DEPTH_PRO,
    "tipsv2_dpt": TIPS_DPT,
    "sapiens2": SAPIENS_2,
}
"""model_type in a config.json of transformers -> what it is; its tensors may have the names of DPT."""

# Patterns as below, of models that have the names of an importer's source and others.
RELATIVES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r"(.*\.)?(metric_head|conditional_log_binomial|attractors)\..*",), ZOE_DEPTH),
    ((r"(.*\.)?(prompt_depth_layer|resConfUnit_depth)\..*",), PROMPT_DA),
    ((r"(.*\.)?encoder\.patch_encoder\..*", r"(.*\.)?encoder\.image_encoder\..*"), DEPTH_PRO),
    ((r"(depth|normals|segmentation)_neck\..*",), TIPS_DPT),
    ((r"neck\.reassemble_stage\.readout_projects\.\d+\.layers\..*",), TIPS_DPT),
    ((r"(.*\.)?layers?\.\d+\.attention\.q_norm\.weight", r"(.*\.)?embeddings\.register_tokens"), SAPIENS_2),
    ((r"(.*\.)?pretrained\.camera_token",), DA_3_VIEWS),
)

# Patterns of names, all of which occur -> what the file is, and what to do.
KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((r".*\.lora_(A|B|down|up)\..*",), "a LoRA adapter without its model", "merge it into the model and save that"),
    ((r".*exp_avg(_sq)?",), "the state of an optimiser", "give the model's weights"),
    (
        (r"(.*\.)?query\.weight", r"(.*\.)?(mask_head|class_predictor)\..*"),
        "EoMT, whose queries run through the encoder instead of a decoder",
        "run it with the program that wrote it",
    ),
    ((r"(.*\.)?(pixel_decoder|pixel_level_module|sem_seg_head)\..*",), "Mask2Former, MaskFormer or OneFormer", ""),
    ((r"(.*\.)?(beit\..*|.*relative_position_bias.*)",), "BEiT, whose attention has relative positions", ""),
    ((r"decode_head\.(psp_modules|fpn_convs)\..*",), "UperNet, a decoder that is not built here", ""),
    ((r"(segformer\..*|decode_head\.linear_c\..*)",), "SegFormer, whose encoder is no plain ViT", ""),
    ((r"(.*\.)?segmentation_head\..*",), "a model of segmentation_models.pytorch, whose decoder is another one", ""),
    ((r"(.*\.)?(mask_decoder|prompt_encoder)\..*",), "Segment Anything", ""),
    ((r"(.*\.)?(down_blocks|first_stage_model|transformer_blocks)\..*",), "a diffusion model", "run it with diffusers"),
    ((r"(.*\.)?(text_model|text_projection|token_embedding|transformer\.resblocks)(\..*)?",), "CLIP", ""),
    ((r"pretrained\.layer1\..*", r"scratch\..*"), "MiDaS on a convolutional backbone", ""),
    ((r"pretrained\.model\.layers\..*", r"scratch\..*"), "MiDaS on a Swin backbone", ""),
    ((r"(.*\.)?decoder_(embed|blocks|pred)\..*",), "MAE, an encoder with the decoder of its pre-training", "encoder"),
)
_AS_ENCODER = "to train a decoder on its encoder, name the file as encoder_weights in a training config"
_CLASSIFIER = re.compile(r"(.*\.)?(classifier|cls_classifier|distillation_classifier|head|head_dist|fc)\.(weight|bias)")


def refuse_relatives(state: Mapping[str, Tensor], source: str) -> None:
    """Refuse models that have the names of a known program and more.

    Raises:
        CheckpointError: naming what the model is.
    """
    for patterns, kind in RELATIVES:
        if all(any(re.fullmatch(pattern, name) for name in state) for pattern in patterns):
            raise CheckpointError(f"{source} is {kind}; run it with the program that wrote it")


def refuse_model_type(config: Mapping[str, Any], source: str) -> None:
    """Refuse models that a config.json of transformers names.

    Raises:
        CheckpointError: naming what the model is.
    """
    kind = MODEL_TYPES.get(str(config.get("model_type")))
    if kind is not None:
        raise CheckpointError(f"{source} is {kind} (model_type in its config.json); {_TRANSFORMERS}")


def other_kind(state: Mapping[str, Tensor]) -> str | None:
    """What a file is and what to do with it; None if the names tell nothing."""
    for patterns, kind, advice in KINDS:
        if all(any(re.fullmatch(pattern, name) for name in state) for pattern in patterns):
            advice = _AS_ENCODER if advice == "encoder" else advice or "run it with the program that wrote it"
            return f"{kind}; {advice}"
    if not looks_like_encoder(state):
        return None
    others = _not_of_the_encoder(state)
    if others and all(_CLASSIFIER.fullmatch(name) for name in others):
        return f"a plain encoder without a decoder, with the head of a classifier; {_AS_ENCODER}"
    if others:
        return (
            f"a model of an unknown program, with a ViT and other tensors ({', '.join(collapse(sorted(others))[:4])}, "
            f"...); run it with that program, or {_AS_ENCODER}"
        )
    if any(_CLASSIFIER.fullmatch(name) for name in state):
        return f"a plain encoder without a decoder, with the head of a classifier; {_AS_ENCODER}"
    return f"a plain encoder without a decoder; {_AS_ENCODER}"


def _not_of_the_encoder(state: Mapping[str, Tensor]) -> list[str]:
    """Tensors beside the encoder, but for those of its pre-training."""
    try:
        renamed = read_encoder(state, "")
    except CheckpointError:
        return list(state)
    return [*renamed.unused, *(name for name, reason in renamed.ignored.items() if reason.startswith("not under "))]
