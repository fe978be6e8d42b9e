"""Our encoder gives what timm's ViTs with rotary positions give with the same weights, on square and wide images."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg
from torch import nn

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.checkpoints.timm_names import architecture_of
from densevit.encoder import VisionTransformer
from densevit.encoder.positions import RotaryPositions
from densevit.errors import CheckpointError
from tests.parity.random_weights import randomise
from tests.tolerances import PARITY, relative_l2

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2}


@dataclass(frozen=True)
class Reference:
    """A model of timm, shrunk, for images of ``grid`` patches; ``facts`` are those that no tensor tells."""

    name: str
    facts: dict[str, Any] = field(default_factory=lambda: {"norm_eps": 1e-6})
    patch: int = 16

    def build(self, grid: tuple[int, int], **options: Any) -> nn.Module:
        size = (grid[0] * self.patch, grid[1] * self.patch)
        model = timm.create_model(self.name, pretrained=False, num_classes=0, img_size=size, **SMALL, **options)
        randomise(model)
        return model.eval()


PE = {"norm_eps": 1e-5}
REFERENCES = (
    Reference("eva02_tiny_patch14_224", patch=14),
    Reference("eva02_base_patch14_448", patch=14),
    Reference("eva02_base_patch16_clip_224"),
    Reference("vit_medium_patch16_rope_reg1_gap_256"),
    Reference("vit_mediumd_patch16_rope_reg1_gap_256"),
    Reference("vit_betwixt_patch16_rope_reg4_gap_256"),
    Reference("vit_small_patch16_rope_224"),
    Reference("vit_small_patch16_rope_ape_224"),
    Reference("vit_pe_core_tiny_patch16_384", PE),
    Reference("vit_pe_core_base_patch16_224", PE),
    Reference("vit_pe_core_gigantic_patch14_448", PE, 14),
    Reference("vit_pe_lang_large_patch14_448", PE, 14),
    Reference("vit_pe_lang_gigantic_patch14_448", PE, 14),
    Reference("vit_pe_spatial_tiny_patch16_512", PE),
    Reference("vit_pe_spatial_gigantic_patch14_448", PE, 14),
    Reference("vit_small_patch16_lingbot", PE),
    Reference("vit_giant_patch16_lingbot", PE),
    Reference("vit_7b_patch16_dinov3", PE),
    Reference("vit_tiny_patch16_dinov3_qkvb", PE),
)


@pytest.mark.parametrize("size", [(4, 4), (3, 5), (7, 6)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
@torch.no_grad()
def test_rotary_vit_of_timm__is_reproduced_at_any_size(reference: Reference, size: tuple[int, int]) -> None:
    model = reference.build((4, 4), dynamic_img_size=True)
    state = model.state_dict()
    config = encoder_config_from_state(
        state,
        source="timm",
        architecture=f"{reference.name}.some_tag",
        num_heads=2,
        activation="gelu",
        mode="bicubic",
        taps=(0, 1),
        **reference.facts,
    )
    encoder = VisionTransformer(config).eval()
    load_encoder_weights(encoder, state, source="timm")
    images = torch.randn(2, 3, *(n * reference.patch for n in size), generator=torch.Generator().manual_seed(1))

    ours = encoder(images)

    theirs = model.forward_intermediates(images, norm=False, output_fmt="NLC", intermediates_only=True)
    assert max(relative_l2(a, b) for a, b in zip(ours.tokens, theirs, strict=True)) <= PARITY


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_rope_mixed_224", "vit_base_patch16_rpn_224", "vit_base_patch16_sapiens2"]
)
def test_other_vit_of_timm__is_refused_by_its_tensors(name: str) -> None:
    size = {"depth": 2, "embed_dim": 64, "num_heads": 2} | ({"num_kv_heads": 2} if "sapiens" in name else {})
    state = timm.create_model(name, pretrained=False, img_size=64, **size).state_dict()

    with pytest.raises(CheckpointError, match="only plain ViTs can be reproduced"):
        encoder_config_from_state(state, source="file", num_heads=2, norm_eps=1e-6, activation="gelu", mode="bicubic")


def is_plain(name: str) -> bool:
    """Whether the names say that it is a plain ViT."""
    try:
        architecture_of(name, "file")
    except CheckpointError:
        return False
    return True


MODULES = ("vision_transformer", "eva", "deit")
PLAIN = [name for module in MODULES for name in timm.list_models(module=module, pretrained=True) if is_plain(name)]


Facts = tuple[object, ...]


def facts_of_timm(bare: str) -> Facts:
    """What timm builds by a name: heads, epsilon, activation, rotary positions."""
    with torch.device("meta"):
        model = timm.create_model(bare, pretrained=False, num_classes=0, depth=1)
    block = model.blocks[0]
    assert type(block).__name__ in ("Block", "EvaBlock")
    function = block.mlp.act
    approximated = getattr(function, "approximate", "none") == "tanh"
    named = "GELUTanh" if approximated else type(function).__name__
    rope = getattr(model, "rope", None)
    return (
        model.embed_dim // block.attn.num_heads,
        block.norm1.eps,
        {"GELU": "gelu", "SiLU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu"}[named],  # SiLU is gated
        None if rope is None else rotary_facts_of_timm(rope),
    )


def facts_by_name(bare: str) -> Facts:
    ours = architecture_of(bare, "file")
    rotary = None if ours.rotary is None else rotary_facts(ours.rotary)
    return ours.head_dim, ours.norm_eps, ours.activation, rotary


def test_names_of_timm__tell_what_timm_builds() -> None:
    names = sorted({name.split(".")[0] for name in PLAIN})
    assert len(names) > 100

    wrong = {name: facts for name in names if (facts := facts_of_timm(name)) != facts_by_name(name)}

    assert wrong == {}


def rotary_facts(rule: RotaryPositions) -> Facts:
    spread = None if rule.stretch_to is None else tuple(rule.stretch_to)
    return rule.base, spread, rule.index_offset, rule.order == "xy", rule.pairs == "halves"


def rotary_facts_of_timm(rope: Any) -> Facts:
    spread = getattr(rope, "ref_feat_shape", None)
    return (
        float(rope.temperature),
        None if spread is None else tuple(spread),
        rope.grid_offset,
        rope.grid_indexing == "xy",
        rope.rotate_half,
    )


def test_names_of_timm__tell_the_statistics_of_images() -> None:
    theirs = {name: get_pretrained_cfg(name) for name in PLAIN}

    wrong = [
        name
        for name, known in theirs.items()
        if architecture_of(name, "file").normalisation != {"mean": known.mean, "std": known.std}
    ]

    assert wrong == []
