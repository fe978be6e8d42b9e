"""Positions of timm's models with dynamic sizes, which it resamples with antialiasing."""

import pytest
import timm
import torch

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.encoder import VisionTransformer
from tests.tolerances import PARITY, relative_l2


@pytest.mark.parametrize("grid", [(3, 5), (7, 6)])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_tiny_patch16_224.reg"])
@torch.no_grad()
def test_positions_of_timm__are_resampled_as_there(name: str, grid: tuple[int, int]) -> None:
    torch.manual_seed(2)
    facts = {"reg_tokens": 4, "no_embed_class": True} if name.endswith(".reg") else {}
    reference = timm.create_model(name.split(".")[0], img_size=64, depth=2, dynamic_img_size=True, **facts).eval()
    reference.pos_embed.copy_(torch.randn_like(reference.pos_embed))
    state = reference.state_dict()
    config = encoder_config_from_state(
        state, source=name, num_heads=3, norm_eps=1e-6, activation="gelu", mode="bicubic", taps=(0, 1)
    )
    encoder = VisionTransformer(config).eval()
    load_encoder_weights(encoder, state, source=name)
    images = torch.randn(1, 3, 16 * grid[0], 16 * grid[1])

    theirs = reference.forward_intermediates(images, norm=False, output_fmt="NLC", intermediates_only=True)

    for ours, expected in zip(encoder(images).tokens, theirs, strict=True):
        assert relative_l2(ours, expected) <= PARITY
