"""Our encoder gives what timm's ViTs with rotary positions give with the same weights, on square and wide images."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from torch import nn

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.encoder import VisionTransformer
from densevit.errors import CheckpointError
from tests.parity.test_timm import randomise
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
