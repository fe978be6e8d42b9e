"""What the names of timm's models tell: which are plain ViTs, and what no tensor of theirs says."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from densevit.blocks import Activation
from densevit.encoder.positions import RotaryPositions
from densevit.errors import CheckpointError
from densevit.presets import CLIP, HALF, IMAGENET

T = TypeVar("T")

# Names of timm's models that are no plain ViT, and what they are.
OTHER_ARCHITECTURES = {
    r"eva02_enormous_.*": "EVA-02 E, which normalises after each residual branch",
    r".*_rope_mixed.*": "a ViT whose rotary frequencies are learned, block by block",
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
_PLAIN = re.compile(r"(vit|deit|deit3|flexivit|eva|eva02|test_vit\d*)(_.*)?|test_vit\d*")


def _indices(stretch_to: int | None, **facts: object) -> RotaryPositions:
    """The rotary embedding of timm's Eva class, which counts patches."""
    square = None if stretch_to is None else (stretch_to, stretch_to)
    rule = {"base": 10_000.0, "coordinates": "indices", "stretch_to": square, "pairs": "neighbours"} | facts
    return RotaryPositions.model_validate(rule)


_DINOV3 = RotaryPositions()
_PE_SMALL, _PE_LARGE = {"order": "xy", "index_offset": 1.0}, {"order": "xy"}

# Names -> the rotary embedding; the first that matches counts.
ROTARY: dict[str, RotaryPositions] = {
    r"eva02_.*": _indices(16),
    r"vit_\w+_rope_reg\d_gap_\d+": _indices(16),
    r"vit_\w+_rope(_ape)?_\d+": _indices(None, base=100.0, order="xy"),
    r"vit_pe_\w+_gigantic_.*": _indices(32, **_PE_LARGE),
    r"vit_pe_core_base_.*": _indices(14, **_PE_SMALL),
    r"vit_pe_core_.*": _indices(24, **_PE_SMALL),
    r"vit_pe_.*": _indices(32, **_PE_SMALL),
    r".*_dinov3(_.*)?|.*_lingbot(_.*)?": _DINOV3,
}


HEAD_DIM = 64
HEAD_DIMS: dict[str, int] = {
    r"vit_7b_.*": 128,
    r"vit_gigantic_.*": 104,
    r"vit_pe_\w+_gigantic_.*|vit_giantopt_.*": 96,
    r"eva_giant_.*|vit_giant_patch14_(224|clip_.*)|vit_giant_patch16_gap_.*": 88,
    r"vit_huge_(?!plus_).*|deit3_huge_.*": 80,
    r"vit_so400m_.*": 72,
    r"vit_base_patch16_gap_.*": 48,
    r"test_vit\d*": 32,
}
"""Names -> channels of a head, where they are not HEAD_DIM."""

NORM_EPS = 1e-6
NORM_EPSILONS: dict[str, float] = {r"vit_.*_clip_.*|vit_pe_.*|.*_dinov3(_.*)?|.*_lingbot(_.*)?": 1e-5}

ACTIVATIONS: dict[str, Activation] = {
    r".*_quickgelu_.*": "quick_gelu",
    r"vit_base_patch32_siglip_.*|vit_large_patch16_siglip_(gap_)?512": "gelu_tanh",
    r"vit_so400m_patch16_siglip_.*|vit_giantopt_.*": "gelu_tanh",
}

STATISTICS: dict[str, Mapping[str, object]] = {
    r"vit_large_patch14_clip_(224|336)\.laion2b.*": HALF,
    r".*\.sat493m": {"mean": (0.43, 0.411, 0.296), "std": (0.213, 0.156, 0.143)},
    r".*_(reg1_tipsv2|miil)(\..*)?": {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)},
    r"eva02_.*|eva_large_.*|eva_giant_patch14_(224|336\.clip|clip).*|.*_(clip|radio)_.*|.*\.bamboo": CLIP,
    r"vit_betwixt_patch16_rope_.*": CLIP,
    r"deit.*|eva_giant_.*|.*_(dinov2|dinov3|dinov3_qkvb|lingbot)(\..*)?|vit_intern300m_.*": IMAGENET,
    r".*\.(dino|mae|.*ijepa)|vit_(giant|huge)_.*gap_.*|.*_rope(_ape)?_224.*": IMAGENET,
}
"""Names with tags -> mean and deviation of the images of pre-training; HALF where none matches."""


@dataclass(frozen=True)
class Architecture:
    """What the name of one of timm's plain ViTs tells.

    Attributes:
        rotary: the rotary embedding; None if it has none.
        head_dim: channels of a head.
        norm_eps: epsilon of the norms.
        activation: of a feed-forward that is not gated.
        normalisation: mean and deviation of the images of pre-training.
    """

    rotary: RotaryPositions | None
    head_dim: int
    norm_eps: float
    activation: Activation
    normalisation: Mapping[str, object]


def architecture_of(name: str, source: str) -> Architecture:
    """The facts of a model by its name, with or without the tag of its weights.

    Raises:
        CheckpointError: naming what the model is, if it is no plain ViT.
    """
    bare = name.split(".")[0]
    kind = _first(OTHER_ARCHITECTURES, bare, None if _PLAIN.fullmatch(bare) else "another model")
    if kind is not None:
        raise CheckpointError(
            f"{source} is {bare} of timm: {kind}; only plain ViTs can be reproduced, with learned or rotary positions; "
            "choose one of these"
        )
    return Architecture(
        rotary=_first(ROTARY, bare, None),
        head_dim=_first(HEAD_DIMS, bare, HEAD_DIM),
        norm_eps=_first(NORM_EPSILONS, bare, NORM_EPS),
        activation=_first(ACTIVATIONS, bare, "gelu"),
        normalisation=_first(STATISTICS, name, HALF),
    )


def _first(table: Mapping[str, T], name: str, default: T) -> T:
    """The value of the first pattern that matches a name."""
    return next((value for pattern, value in table.items() if re.fullmatch(pattern, name)), default)
