"""The short way to a model: decoders by name on the encoder of a checkpoint, with everything else chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densevit.config import nearest
from densevit.data import classes_of, parse_data
from densevit.errors import ConfigError

Plain = dict[str, Any]

DPT: Plain = {
    "channels": (32, 64, 128, 192),
    "fusion_channels": 48,
    "readout": "ignore",
    "tap_norm": True,
    "batch_norm": True,
}
DECODERS: dict[str, Plain] = {
    "segmenter_linear": {},
    "segmenter_mask": {},
    "setr_naive": {"channels": 192},
    "setr_pup": {"channels": 96},
    "setr_mla": {"channels": 192, "head_channels": 96},
    "dpt": DPT,
}
"""Decoders of widths that suit a few hundred photos and no GPU; those of the papers are in the presets."""

FROZEN: Plain = {
    "iterations": 300,
    "eval_every": 300,
    "checkpoint_every": 100,
    "log_every": 20,
    "ema": 0.98,
    "optim": {"kind": "adamw", "lr": 1e-4, "head_lr_mult": 10.0, "weight_decay": 0.05, "clip_norm": 5.0},
    "schedule": {"kind": "cosine", "warmup": 20},
    "augment": {"scale": (1.0, 1.0), "flip": 0.0, "colour": 0.0, "cat_max_ratio": 1.0},
}
"""Rates and lengths for heads on cached features; photos are whole, and mirrored as features."""


def short_way(
    *, init: str | None, freeze: str | None, decoders: Sequence[str], sources: Sequence[Plain], features: Path
) -> Plain:
    """Config data that the options stand for, below all that a person says otherwise.

    Args:
        init: checkpoint; the model that ships if there are decoders and nothing else is named.
        freeze: "encoder" or a number of blocks; their output is then kept on disk.
        decoders: keys of ``DECODERS``, one head each, named after its kind.
        sources: the run's sources, for the task: masks if the first has any, else depth.
        features: where features are kept.

    Raises:
        ConfigError: if a decoder is unknown.
    """
    layer: Plain = {} if init is None else {"init": init}
    if freeze is not None:
        number = int(freeze) if freeze.isdecimal() else freeze
        layer |= {**FROZEN, "freeze": number, "features": {"directory": str(features), "flip": True}}
    if decoders:
        for kind in decoders:
            if kind not in DECODERS:
                raise ConfigError(f"there is no decoder {kind!r}{nearest(kind, DECODERS)}")
        labels = not sources or _has_masks(sources[0])
        layer["model"] = {"heads": {kind: {"decoder": _decoder(kind, labels=labels)} for kind in decoders}}
        task: Plain = {"kind": "segmentation"} if labels else {"kind": "depth", "l1_weight": 0.3}
        layer["tasks"] = dict.fromkeys(decoders, task)
    return layer


def _has_masks(source: Plain) -> bool:
    return classes_of(parse_data(source["train"])) is not None


def _decoder(kind: str, *, labels: bool) -> Plain:
    facts: Plain = {"kind": kind, **DECODERS[kind]}
    if kind == "dpt":
        metres = {"kind": "depth", "activation": "sigmoid", "max_depth_m": 10.0}
        facts["head"] = {"kind": "segmentation", "align_corners": False} if labels else metres
    return facts
