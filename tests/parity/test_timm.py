"""Our encoder gives what timm gives with the same weights, in float32, on square and wide images."""

from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_patch_embed
from timm.models import adapt_input_conv
from torch import Tensor, nn

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.encoder import EncoderConfig, VisionTransformer
from densevit.encoder.patches import adapt_input_channels, resample_patch_weight
from densevit.types import Size
from tests.parity.random_weights import randomise

# Relative L2 distance of a tap, the worst image of a batch.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Reference:
    """A model of timm, shrunk where its size adds nothing, and the facts that our config must state about it."""

    name: str
    shrunk: dict[str, Any]
    facts: dict[str, Any]
    grids: tuple[Size, Size] = ((4, 4), (3, 5))
    learned_rows: int | None = 1  # prefix tokens with a position; none where positions are rotary

    @property
    def depth(self) -> int:
        return self.facts["depth"]

    @property
    def patch_size(self) -> int:
        return self.facts.get("patch_size", 16)

    @property
    def taps(self) -> tuple[int, ...]:
        return tuple(range(0, self.depth, 2)) if self.depth > 2 else (0, self.depth - 1)

    def positions(self, grid: Size) -> dict[str, Any]:
        if self.learned_rows is None:
            return {"kind": "rotary"}
        return {"kind": "learned", "grid": grid, "num_prefix": self.learned_rows, "mode": "bicubic"}

    def config(self, grid: Size, **changes: Any) -> EncoderConfig:
        return EncoderConfig(**({"taps": self.taps, "positions": self.positions(grid)} | self.facts | changes))

    def build(self, grid: Size) -> nn.Module:
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        model = timm.create_model(self.name, pretrained=False, img_size=size, **self.shrunk).eval()
        randomise(model)
        return model

    def images(self, grid: Size) -> Tensor:
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


SMALL = {"embed_dim": 384, "depth": 3, "num_heads": 6}
DINOV2 = SMALL | {"patch_size": 14, "layer_scale": 1e-5}
DINOV3 = SMALL | {"norm_eps": 1e-5, "qkv_bias": False, "layer_scale": 1e-5, "num_registers": 4}

REFERENCES = (
    Reference("vit_tiny_patch16_224", {}, {"embed_dim": 192, "depth": 12, "num_heads": 3}),
    Reference("vit_small_patch14_dinov2", {"depth": 3}, DINOV2),
    Reference("vit_small_patch14_reg4_dinov2", {"depth": 3}, DINOV2 | {"num_registers": 4}, learned_rows=0),
    Reference(
        "vit_giant_patch14_dinov2",
        {"depth": 2, "embed_dim": 96, "num_heads": 4},
        {"embed_dim": 96, "depth": 2, "num_heads": 4, "patch_size": 14, "layer_scale": 1e-5}
        | {"mlp": "swiglu", "mlp_ratio": 256 / 96},
    ),
    Reference(
        "deit_tiny_distilled_patch16_224",
        {"depth": 3},
        {"embed_dim": 192, "depth": 3, "num_heads": 3, "dist_token": True},
        learned_rows=2,
    ),
    Reference(
        "vit_base_patch16_clip_quickgelu_224",
        {"depth": 2},
        {"embed_dim": 768, "depth": 2, "num_heads": 12, "norm_eps": 1e-5, "activation": "quick_gelu"}
        | {"pre_norm": True, "patch_bias": False},
    ),
    Reference("vit_small_patch16_dinov3", {"depth": 3}, DINOV3, learned_rows=None),
    Reference(
        "vit_small_patch16_dinov3_qkvb", {"depth": 2}, DINOV3 | {"depth": 2, "qkv_bias": True}, learned_rows=None
    ),
    Reference("vit_small_plus_patch16_dinov3", {"depth": 2}, DINOV3 | {"depth": 2, "mlp": "swiglu"}, learned_rows=None),
)


def loaded(config: EncoderConfig, reference: nn.Module) -> VisionTransformer:
    encoder = VisionTransformer(config).eval()
    load_encoder_weights(encoder, reference.state_dict(), source="timm")
    return encoder


def distance(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).max().item()


CASES = [
    pytest.param(reference, grid, id=f"{reference.name}-{'square' if grid[0] == grid[1] else 'wide'}")
    for reference in REFERENCES
    for grid in reference.grids
]


@pytest.mark.parametrize(("reference", "grid"), CASES)
@torch.no_grad()
def test_taps__equal_those_of_timm(reference: Reference, grid: Size) -> None:
    model, images = reference.build(grid), reference.images(grid)

    taps = loaded(reference.config(grid), model)(images)

    expected = model.forward_intermediates(
        images, list(reference.taps), return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    assert len(taps.tokens) == len(expected)
    ours = [part for pair in zip(taps.tokens, taps.prefix, strict=True) for part in pair]
    assert max(distance(a, b) for a, b in zip(ours, [t for pair in expected for t in pair], strict=True)) <= TOLERANCE


@pytest.mark.parametrize(("reference", "grid"), CASES)
@torch.no_grad()
def test_final_norm__equals_the_features_of_timm(reference: Reference, grid: Size) -> None:
    model, images = reference.build(grid), reference.images(grid)

    taps = loaded(reference.config(grid, taps=(reference.depth - 1,), final_norm=True), model)(images)

    features = torch.cat([taps.prefix[-1], taps.tokens[-1]], dim=1)
    assert distance(features, model.forward_features(images)) <= TOLERANCE


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_config_from_state__finds_the_facts(reference: Reference) -> None:
    facts = reference.config((3, 5))
    asked: dict[str, Any] = {"num_heads": facts.num_heads, "norm_eps": facts.norm_eps, "grid": (3, 5)}
    asked |= {"activation": facts.activation} if facts.mlp == "mlp" else {}
    asked |= {"mode": "bicubic", "antialias": False} if reference.learned_rows is not None else {}

    found = encoder_config_from_state(reference.build((3, 5)).state_dict(), source="timm", taps=facts.taps, **asked)

    assert found == facts


@torch.no_grad()
def test_hybrid_stem__equals_that_of_timm() -> None:
    model = timm.create_model("vit_base_r50_s16_384", pretrained=False, img_size=(64, 96), depth=1).eval()
    randomise(model)
    config = EncoderConfig(
        embed_dim=768,
        depth=1,
        num_heads=12,
        positions={"kind": "learned", "grid": (4, 6)},
        taps=(0,),
        final_norm=True,
        stem={"standardisation": "var_plus_eps"},
    )
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))

    taps = loaded(config, model)(images)

    assert distance(torch.cat([taps.prefix[0], taps.tokens[0]], dim=1), model.forward_features(images)) <= TOLERANCE


@pytest.mark.parametrize(
    ("mode", "offset", "target"),
    [
        ("bilinear", 0.0, {"size": (6, 3)}),
        ("bicubic", 0.0, {"size": (6, 3)}),
        ("bicubic", 0.1, {"scale_factor": (6.1 / 4, 3.1 / 4)}),
    ],
)
@torch.no_grad()
def test_other_image_size__equals_timm_with_positions_resampled_by_torch(
    mode: str, offset: float, target: dict[str, Any]
) -> None:
    reference, native, other = REFERENCES[1], (4, 4), (6, 3)
    small, large = reference.build(native), reference.build(other)
    state = small.state_dict()
    row, stored = state["pos_embed"][:, :1], state["pos_embed"][:, 1:].unflatten(1, native).permute(0, 3, 1, 2)
    grid = F.interpolate(stored, mode=mode, align_corners=False, antialias=False, **target)
    large.load_state_dict(state | {"pos_embed": torch.cat([row, grid.flatten(2).transpose(1, 2)], dim=1)})
    positions = {"kind": "learned", "grid": native, "mode": mode, "offset": offset}
    images = reference.images(other)

    taps = loaded(reference.config(native, positions=positions, taps=(2,), final_norm=True), small)(images)

    assert distance(torch.cat([taps.prefix[0], taps.tokens[0]], dim=1), large.forward_features(images)) <= TOLERANCE


@pytest.mark.parametrize("new", [(8, 8), (14, 14), (32, 32), (8, 16)])
def test_patch_weight__is_resampled_as_timm_does_without_antialiasing(new: Size) -> None:
    weight = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    expected = resample_patch_embed(weight, list(new), interpolation="bilinear", antialias=False)

    assert distance(resample_patch_weight(weight, new), expected) <= TOLERANCE


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_input_channels__are_adapted_as_timm_does(channels: int) -> None:
    weight = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    assert distance(adapt_input_channels(weight, channels), adapt_input_conv(channels, weight)) <= TOLERANCE
