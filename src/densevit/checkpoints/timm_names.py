"""What the names of timm's models tell: which are plain ViTs, and the rotary positions of those that have some."""

import re

from densevit.encoder.positions import RotaryPositions
from densevit.errors import CheckpointError

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


def check_architecture(architecture: str, source: str) -> None:
    """Refuse names of models that are no plain ViT.

    Raises:
        CheckpointError: naming what the model is.
    """
    name = _name(architecture)
    kind = next((kind for pattern, kind in OTHER_ARCHITECTURES.items() if re.fullmatch(pattern, name)), None)
    if kind is None and not _PLAIN.fullmatch(name):
        kind = "another model"
    if kind is not None:
        raise CheckpointError(
            f"{source} is {name} of timm: {kind}; only plain ViTs can be reproduced, with learned or rotary positions; "
            "choose one of these"
        )


def rotary_of(architecture: str) -> RotaryPositions | None:
    """The rotary embedding of one of timm's models; None if it has none."""
    name = _name(architecture)
    return next((rule for pattern, rule in ROTARY.items() if re.fullmatch(pattern, name)), None)


def _name(architecture: str) -> str:
    """The name without the tag of its weights, such as .mim_in22k."""
    return architecture.split(".")[0]
