"""The papers' training recipes as a flat table: ``densevit train --recipe NAME --data DIR``.

Sources: the SETR and Segmenter authors' code, mmsegmentation 1.2's configs, and the DPT paper, whose training code was
not published. Settings of the model (drop path, auxiliary heads, pixel statistics) are in its preset.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from densevit.config import nearest
from densevit.errors import ConfigError

Plain = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a published model was trained, as plain config data.

    Attributes:
        preset: the model; others of the same kind may take its place.
        batch_size: of the whole run.
        config: data of a ``TrainConfig`` without model, tasks and sources.
        pretrained: weights that the encoder started from; only a hint, nothing is downloaded.
        remark: what differs from the publication, or is uncertain.
    """

    preset: str
    batch_size: int
    config: Plain = field(repr=False)
    pretrained: str
    remark: str = ""


VIT_L = "hf://timm/vit_large_patch16_384.augreg_in21k_ft_in1k"
VIT_S = "hf://timm/vit_small_patch16_384.augreg_in21k_ft_in1k"
VIT_B = "hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k"


def _augment(crop: int, base: tuple[int, int], **changes: Any) -> Plain:
    """mmsegmentation's pipeline for SETR and Segmenter, with the ``changes``."""
    return {
        "crop": (crop, crop),
        "base": base,
        "scale": (0.5, 2.0),
        "cat_max_ratio": 0.75,
        "flip": 0.5,
        "photometric": True,
        "colour": 0.0,
        **changes,
    }


ADE20K = _augment(512, (2048, 512))
CITYSCAPES = _augment(768, (2049, 1025))
PASCAL_CONTEXT = _augment(480, (520, 520))
DPT_SEGMENTATION = _augment(480, (4160, 520), cat_max_ratio=1.0, photometric=False)


def _sgd(
    preset: str,
    augment: Plain,
    lr: float,
    iterations: int,
    batch_size: int = 8,
    *,
    pretrained: str = VIT_L,
    remark: str = "",
    min_lr: float = 0.0,
    **optim: Any,
) -> Recipe:
    """SGD with the poly schedule; ``optim`` has the settings in which the families differ."""
    config: Plain = {
        "optim": {"kind": "sgd", "lr": lr, "momentum": 0.9, "weight_decay": 0.0, "head_lr_mult": 1.0, **optim},
        "schedule": {"kind": "poly", "power": 0.9, "min_lr": min_lr},
        "iterations": iterations,
        "augment": augment,
    }
    return Recipe(preset, batch_size, config, pretrained, remark)


_setr = partial(_sgd, min_lr=1e-4, head_lr_mult=10.0, neck_lr_mult=1.0)
_segmenter = partial(_sgd, min_lr=1e-5, nesterov=True)

RECIPES: dict[str, Recipe] = {
    "setr-naive-ade20k": _setr("setr-naive-l-ade20k", ADE20K, 0.01, 160_000, 16),
    "setr-pup-ade20k": _setr("setr-pup-l-ade20k", ADE20K, 0.001, 160_000, 16),
    "setr-mla-ade20k": _setr("setr-mla-l-ade20k", ADE20K, 0.001, 160_000, 16),
    "setr-naive-cityscapes": _setr("setr-naive-l-cityscapes", CITYSCAPES, 0.01, 80_000, 8),
    "setr-pup-cityscapes": _setr("setr-pup-l-cityscapes", CITYSCAPES, 0.01, 80_000, 8),
    "setr-mla-cityscapes": _setr("setr-mla-l-cityscapes", CITYSCAPES, 0.002, 80_000, 8),
    "setr-naive-pascal-context": _setr("setr-paper-naive-l-pascal-context", PASCAL_CONTEXT, 0.01, 80_000, 16),
    "setr-pup-pascal-context": _setr("setr-paper-pup-l-pascal-context", PASCAL_CONTEXT, 0.001, 80_000, 16),
    "setr-mla-pascal-context": _setr("setr-paper-mla-l-pascal-context", PASCAL_CONTEXT, 0.001, 80_000, 16),
    "segmenter-ade20k": _segmenter("segmenter-s-mask", ADE20K, 1e-3, 160_000, pretrained=VIT_S),
    "segmenter-l-ade20k": _segmenter("segmenter-l-mask-640", _augment(640, (2560, 640)), 1e-3, 160_000),
    "segmenter-pascal-context": _segmenter(
        "segmenter-l-mask-pascal-context", _augment(480, (4160, 520)), 1e-3, 80_000, 16
    ),
    "segmenter-cityscapes": _segmenter("segmenter-l-mask-cityscapes", _augment(768, (2048, 1024)), 1e-2, 80_000),
    "segmenter-mmseg-ade20k": _sgd("segmenter-mmseg-s-mask", ADE20K, 1e-3, 160_000, pretrained=VIT_S, min_lr=1e-4),
    "dpt-mmseg-ade20k": Recipe(
        "dpt-mmseg-base-ade20k",
        16,
        {
            "optim": {"kind": "adamw", "lr": 6e-5, "betas": (0.9, 0.999), "weight_decay": 0.01, "head_lr_mult": 1.0},
            "schedule": {"kind": "poly", "power": 1.0, "warmup": 1500, "warmup_factor": 1e-6},
            "iterations": 160_000,
            "augment": ADE20K,
        },
        VIT_B,
        "unlike the original, norms and biases of the encoder have no decay",
    ),
    "dpt-ade20k": _sgd(
        "dpt-large-ade20k", DPT_SEGMENTATION, 0.002, 101_000, 48, remark="after the paper: 240 epochs of 20210 photos"
    ),
    "dpt-pascal-context": _sgd(
        "dpt-hybrid-pascal-context",
        DPT_SEGMENTATION,
        0.002,
        5_200,
        48,
        pretrained="a DPT-Hybrid trained on ADE20K, as init",
        remark="after the paper: 50 epochs of 4998 photos",
    ),
    "dpt-depth": Recipe(
        "dpt-large-depth",
        16,
        {
            "optim": {"kind": "adamw", "lr": 1e-5, "weight_decay": 0.0, "head_lr_mult": 10.0},
            "schedule": {"kind": "constant"},
            "iterations": 4_320_000,
            "augment": _augment(384, (384, 384), scale=(1.0, 1.0), cat_max_ratio=1.0, photometric=False),
        },
        VIT_L,
        "after the paper: 60 epochs of 72000 steps on ten data sets, there weighted by multi-objective optimisation",
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of a name; ``ConfigError`` with the nearest name if there is none."""
    if name not in RECIPES:
        raise ConfigError(f"there is no recipe {name!r}{nearest(name, RECIPES)}")
    return RECIPES[name]
