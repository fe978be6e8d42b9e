"""The config.json next to an encoder's weights, by timm or transformers: what the names of tensors do not tell."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densevit.checkpoints.hub import SCHEME, fetch_side_files
from densevit.checkpoints.importers.keys import check_keys
from densevit.checkpoints.importers.side_files import read_data_file
from densevit.checkpoints.importers.timm_keys import TIMM, TIMM_ARGUMENTS
from densevit.checkpoints.timm_names import architecture_of
from densevit.encoder import EncoderConfig
from densevit.encoder.positions import RotaryPositions
from densevit.errors import CheckpointError

_log = logging.getLogger(__name__)

TRANSFORMERS_TYPES = (
    *("vit", "deit", "vit_mae", "vit_msn", "ijepa", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("dpt", "depth_anything"),
)
"""model_type of the encoders that the renaming rules know."""
_ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quickgelu": "quick_gelu"}
"""Other names of activations."""


def check_encoder_side(path: Path, source: str, encoder: EncoderConfig) -> None:
    """Check the config.json next to an encoder's weights, if there is one of timm or transformers.

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
    architecture = str(config["architecture"])
    _compare_rotary(source, encoder, architecture_of(architecture, source).rotary)
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
    rotary = RotaryPositions(base=config.get("rope_theta", 100.0)) if kind == "dinov3_vit" else None
    _compare_rotary(source, encoder, rotary)
    if kind == "dinov3_vit" and encoder.mlp == "swiglu" and config.get("hidden_act", "gelu") != "silu":
        raise CheckpointError(
            f"{source} has a feed-forward gated by {config.get('hidden_act', 'gelu')!r} by its config.json, but only "
            "'silu' can be reproduced; choose other weights"
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


def _compare_rotary(source: str, encoder: EncoderConfig, stated: RotaryPositions | None) -> None:
    if encoder.rotary != stated:
        theirs, ours = (_in_words(rule) for rule in (stated, encoder.rotary))
        where = "positions" if isinstance(encoder.positions, RotaryPositions) else "positions.rotary"
        raise CheckpointError(
            f"{source} has {theirs} by its config.json, but the encoder has {ours}; correct model.encoder.{where}, or "
            "let encoder_config_from_state write it"
        )


def _in_words(rule: RotaryPositions | None) -> str:
    if rule is None:
        return "no rotary positions"
    facts = rule.model_dump(exclude_defaults=True, exclude={"kind"}) or {"base": rule.base}
    return "rotary positions with " + ", ".join(f"{name} {value}" for name, value in facts.items())


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
