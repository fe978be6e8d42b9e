"""What a file is that no importer reads, by the names of its tensors: for messages only."""

import re
from collections.abc import Mapping

from torch import Tensor

from densevit.checkpoints.encoder_names import looks_like_encoder, read_encoder
from densevit.checkpoints.rename import collapse
from densevit.errors import CheckpointError

_TRANSFORMERS = "run it with transformers"

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
    ((r"(.*\.)?(metric_head|conditional_log_binomial|attractors)\..*",), "ZoeDepth, which has other heads", ""),
    ((r"(.*\.)?(text_model|text_projection|token_embedding|transformer\.resblocks)(\..*)?",), "CLIP", ""),
    ((r"pretrained\.layer1\..*", r"scratch\..*"), "MiDaS on a convolutional backbone", ""),
    ((r"pretrained\.model\.layers\..*", r"scratch\..*"), "MiDaS on a Swin backbone", ""),
    ((r"(.*\.)?decoder_(embed|blocks|pred)\..*",), "MAE, an encoder with the decoder of its pre-training", "encoder"),
)
_AS_ENCODER = "to train a decoder on its encoder, name the file as encoder_weights in a training config"
_CLASSIFIER = re.compile(r"(.*\.)?(classifier|cls_classifier|distillation_classifier|head|head_dist|fc)\.(weight|bias)")


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
