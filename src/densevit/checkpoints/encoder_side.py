"""The config.json beside an encoder's weights, by timm or transformers: what the names of tensors do not tell."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densevit.checkpoints.hub import SCHEME, fetch_side_files
from densevit.checkpoints.importers.keys import KeyTable, check_keys, checked, ignored, used
from densevit.checkpoints.importers.side_files import read_data_file
from densevit.encoder import EncoderConfig
from densevit.errors import CheckpointError

_log = logging.getLogger(__name__)

_SHAPES = "follows from the shapes of the tensors"
TIMM: KeyTable = {
    **used("refuses models that are no plain ViT, by their names", "architecture"),
    **used("the arguments of the class, by the table below", "model_args"),
    **ignored("of the classifier, which is not read", "num_classes", "num_features", "global_pool", "label_names"),
    **ignored("of the classifier, which is not read", "label_descriptions"),
    **ignored("the run states its own images and statistics", "pretrained_cfg"),
    **ignored("says which tool wrote the file", "library_name", "timm_version", "framework"),
}
TIMM_ARGUMENTS: KeyTable = {
    **used("compared with the encoder's config", "num_heads"),
    **ignored(_SHAPES, "patch_size", "in_chans", "embed_dim", "depth", "mlp_ratio", "qkv_bias", "init_values"),
    **ignored(_SHAPES, "class_token", "reg_tokens", "no_embed_class", "pre_norm", "final_norm", "fc_norm", "qk_norm"),
    **ignored("positions are resampled to the run's images", "img_size", "dynamic_img_size", "dynamic_img_pad"),
    **ignored(
        "of the classifier, which is not read", "num_classes", "global_pool", "pool_include_prefix", "act_layer_head"
    ),
    **ignored("matters in training only", "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate"),
    **ignored("matters in training only", "attn_drop_rate", "drop_path_rate", "weight_init", "fix_init"),
    **used("compared with the encoder's config", "act_layer"),
    "norm_layer": checked("layernorm", None),
    "mlp_layer": checked("mlp", None),
    "block_fn": checked(None),
    "attn_layer": checked(None),
    "embed_layer": checked(None),
    "embed_norm_layer": checked(None),
}
TRANSFORMERS_TYPES = (
    *("vit", "deit", "vit_mae", "vit_msn", "ijepa", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("dpt", "depth_anything"),
)
"""model_type of the encoders that the renaming rules know."""

# Names of timm's models that are no plain ViT, and what they are.
OTHER_ARCHITECTURES = {
    r"eva02_.*": "EVA-02, which rotates queries and keys in addition to learned ones",
    r"vit_pe_.*": "a Perception Encoder, which rotates queries and keys in addition to learned ones",
    r".*_rope.*": "a ViT with rotary positions other than those of DINOv3",
    r"vit_s?relpos_.*": "a ViT with relative positions",
    r".*_rpn_.*": "a ViT that normalises after each residual branch",
    r"beit.*": "BEiT, which has relative positions or norms inside its branches",
    r"naflexvit_.*": "NaFlexViT, which packs patches of several images",
    r"aimv2_.*": "AIMv2, which has gated branches and RMSNorm",
    r"samvit_.*": "the encoder of SAM, which has windowed attention",
    r".*_sapiens2": "Sapiens 2, which shares keys among heads",
    r"vit_(d?pwee|dwee|dlittle)_.*|.*_xp_.*|.*_\d+x2_.*": "a ViT with parallel or differential branches",
    r"vit_.*_mci_.*|vitamin_.*|.*_r_s16_p8_.*": "a ViT behind a convolutional stem",
}
_PLAIN = re.compile(r"(vit|deit|deit3|flexivit|eva|test_vit\d*)(_.*)?|test_vit\d*")
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quickgelu": "quick_gelu"}
"""Other names of activations."""


def check_encoder_side(path: Path, source: str, encoder: EncoderConfig) -> None:
    """Check the config.json beside an encoder's weights, if there is one of timm or transformers.

    Args:
        path: of the weights.
        source: what messages call them; of an address on the hub, the config is downloaded.
        encoder: the config that they are loaded into.

    Raises:
        CheckpointError: if the config names a model that is no plain ViT, has an unknown key, or has other heads.
    """
    if source.startswith(SCHEME):
        fetch_side_files(source, ["config.json"])
    file = path.parent / "config.json"
    if not file.is_file():
        return
    config = read_data_file(file)
    if "architecture" in config:
        check_timm(config, source, encoder)
    elif "model_type" in config:
        _check_transformers(config, source, encoder)


def check_timm(config: Mapping[str, Any], source: str, encoder: EncoderConfig) -> None:
    """Check timm's config.json.

    Raises:
        CheckpointError: as ``check_encoder_side``.
    """
    check_keys(config, TIMM, where="config.json", source=source, program="timm")
    name = str(config["architecture"]).split(".")[0]
    kind = next((kind for pattern, kind in OTHER_ARCHITECTURES.items() if re.fullmatch(pattern, name)), None)
    if kind is None and not _PLAIN.fullmatch(name):
        kind = "another model"
    if kind is not None:
        raise CheckpointError(
            f"{source} is {name} of timm by its config.json: {kind}; only plain ViTs, DINOv2 and DINOv3 can be "
            "reproduced; choose one of these"
        )
    stated = config.get("model_args")
    arguments = dict(stated) if isinstance(stated, Mapping) else {}
    check_keys(arguments, TIMM_ARGUMENTS, where="config.json, model_args", source=source, program="timm")
    _compare(source, encoder, num_heads=arguments.get("num_heads"), activation=arguments.get("act_layer"))


def _check_transformers(config: Mapping[str, Any], source: str, encoder: EncoderConfig) -> None:
    kind = config["model_type"]
    if kind not in TRANSFORMERS_TYPES:
        raise CheckpointError(
            f"{source} is of model_type {kind!r} by its config.json, but only {', '.join(TRANSFORMERS_TYPES)} of "
            "transformers can be reproduced; choose one of these"
        )
    backbone = config.get("backbone_config")
    stated = backbone if isinstance(backbone, Mapping) and kind == "depth_anything" else config
    _compare(
        source,
        encoder,
        num_heads=stated.get("num_attention_heads"),
        activation=stated.get("hidden_act") if encoder.mlp == "mlp" else None,
        norm_eps=stated.get("layer_norm_eps"),
    )


def _compare(source: str, encoder: EncoderConfig, num_heads: Any = None, **stated: Any) -> None:
    """Refuse other heads, which give other features, and warn of settings that fine-tuning gets over."""
    if num_heads is not None and num_heads != encoder.num_heads:
        raise CheckpointError(
            f"{source} has {num_heads!r} attention heads by its config.json, but the encoder has "
            f"{encoder.num_heads}; set num_heads in model.encoder to {num_heads!r}"
        )
    for name, value in stated.items():
        ours = getattr(encoder, name)
        if value is not None and _ACTIVATIONS.get(str(value), value) != ours:
            _log.warning("%s was trained with %s %s but the model has %s", source, name, value, ours)
