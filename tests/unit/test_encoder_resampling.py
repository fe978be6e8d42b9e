"""What weights become in an encoder of another grid, patch size or kind, and encoders that are no plain ViT."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.checkpoints.encoder import encoder_config_from_state
from densevit.checkpoints.encoder_side import check_encoder_side
from densevit.encoder import VisionTransformer
from densevit.encoder.positions import LearnedPositions, positions_for
from densevit.errors import CheckpointError
from tests.unit.encoder_states import State, built, config, fresh, learned, load, outputs_agree, refusal, rows, same


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("grid", [(5, 5), (2, 7)])
def test_position_grid__is_resampled_by_the_mode_of_the_config(mode: str, grid: tuple[int, int]) -> None:
    source, encoder = built(), fresh(positions=learned(grid=grid, mode=mode))

    report = load(encoder, source.state_dict())

    stored = source.pos_embed[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    expected = F.interpolate(stored, size=grid, mode=mode, align_corners=False, antialias=False)
    assert torch.equal(encoder.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))
    assert torch.equal(encoder.pos_embed[:, :1], source.pos_embed[:, :1])
    assert rows(report, "adapted") == [("pos_embed", f"grid 3 x 3 -> {grid[0]} x {grid[1]} ({mode})")]


def test_position_grid__is_resampled_with_the_offset_of_the_config() -> None:
    source, encoder = built(), fresh(positions=learned(grid=(4, 4), offset=0.1))

    load(encoder, source.state_dict())

    stored = source.pos_embed[:, 1:].unflatten(1, (3, 3)).permute(0, 3, 1, 2)
    expected = F.interpolate(stored, scale_factor=(4.1 / 3, 4.1 / 3), mode="bicubic", align_corners=False)
    assert torch.equal(encoder.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))


def test_wide_grid__is_taken_for_the_encoders_own_where_it_fits() -> None:
    wide = learned(grid=(3, 5))  # with the class row as many as a square of 4 x 4
    source, encoder = built(positions=wide), fresh(positions=wide)

    load(encoder, source.state_dict())

    assert same(encoder, source)


def test_wide_grid__must_be_told_where_it_differs() -> None:
    state = built(positions=learned(grid=(2, 5))).state_dict()

    assert refusal(fresh(), state) == (
        "w.pth has a pos_embed of 11 rows and 1 prefix tokens, which leaves no grid of 3 x 3 or square grid; "
        "the grid of the pre-training images must be known; give its (h, w) in patches as grid"
    )


def test_wide_grid__is_resampled_as_told() -> None:
    source, encoder = built(positions=learned(grid=(2, 5))), fresh()

    load(encoder, source.state_dict(), grid=(2, 5))

    stored = source.pos_embed[:, 1:].unflatten(1, (2, 5)).permute(0, 3, 1, 2)
    expected = F.interpolate(stored, size=(3, 3), mode="bicubic", align_corners=False)
    assert torch.equal(encoder.pos_embed[:, 1:], expected.flatten(2).transpose(1, 2))


@pytest.mark.parametrize(
    ("stored", "kept", "adapted"),
    [
        (1, 0, {"cls_token": "its row of pos_embed added", "pos_embed": "row of cls_token moved into it"}),
        (
            3,
            1,
            {"reg_token": "its row of pos_embed added", "pos_embed": "row of reg_token moved into it"},
        ),
        (0, 1, {"pos_embed": "zero row for cls_token"}),
        (1, 3, {"pos_embed": "zero row for reg_token"}),
    ],
    ids=["class row into token", "register rows into tokens", "no class row", "no register rows"],
)
def test_rows_of_prefix_tokens__change_without_loss(stored: int, kept: int, adapted: dict[str, str]) -> None:
    source = built(num_registers=2, positions=learned(num_prefix=stored))
    encoder = fresh(num_registers=2, positions=learned(num_prefix=kept))

    report = load(encoder, source.state_dict())

    assert outputs_agree(encoder, source)
    assert dict(rows(report, "adapted")) == adapted


def test_class_token_not_built__is_dropped_with_its_row() -> None:
    source, encoder = built(), fresh(cls_token=False, positions=learned(num_prefix=0))

    report = load(encoder, source.state_dict())

    assert rows(report, "ignored", "adapted") == [
        ("cls_token", "cls_token is off"),
        ("pos_embed", "row of cls_token dropped"),
    ]
    assert torch.equal(encoder.pos_embed, source.pos_embed[:, 1:])


def test_patch_size__is_adapted_so_that_enlarged_images_give_the_same_tokens() -> None:
    source, encoder = built(), fresh(patch_size=8)

    report = load(encoder, source.state_dict())

    # Patch by patch, as the resampling means it; over a whole image the patches would mix at their borders.
    patch = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    larger = F.interpolate(patch, size=(8, 8), mode="bilinear", align_corners=False)
    assert torch.allclose(encoder.patch_embed(larger)[0], source.patch_embed(patch)[0], atol=1e-4)
    assert rows(report, "adapted") == [("patch_embed.proj.weight", "patch 4 x 4 -> 8 x 8")]


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_input_channels__are_adapted_so_that_grey_images_give_the_same_tokens(channels: int) -> None:
    source, encoder = built(), fresh(in_channels=channels)

    report = load(encoder, source.state_dict())

    assert rows(report, "adapted") == [("patch_embed.proj.weight", f"3 -> {channels} input channels")]
    if channels % 3 == 0 or channels == 1:
        grey = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(3))
        ours = encoder.patch_embed(grey.expand(-1, channels, -1, -1))[0]
        assert torch.allclose(ours, source.patch_embed(grey.expand(-1, 3, -1, -1))[0], atol=1e-5)


FACTS: tuple[dict[str, Any], ...] = (
    {},
    {"mlp": "swiglu", "layer_scale": 1e-5, "num_registers": 4, "positions": {"kind": "rotary"}},
    {"pre_norm": True, "patch_bias": False, "qkv_bias": False, "patch_size": (2, 4), "in_channels": 5},
    {"dist_token": True, "num_registers": 1, "positions": {"kind": "learned", "grid": (6, 6), "num_prefix": 2}},
    {"cls_token": False, "positions": {"kind": "learned", "grid": (4, 4), "num_prefix": 0}},
    {"depth": 1, "taps": (0,), "num_heads": 4, "norm_eps": 1e-5, "activation": "quick_gelu", "mlp_ratio": 2.5},
)


@pytest.mark.parametrize("facts", FACTS, ids=lambda facts: ",".join(facts) or "plain")
def test_config_from_state__is_that_of_the_encoder(facts: dict[str, Any]) -> None:
    expected = config(**facts)
    asked: dict[str, Any] = {"num_heads": expected.num_heads, "norm_eps": expected.norm_eps, "final_norm": True}

    found = encoder_config_from_state(
        built(**facts).state_dict(),
        source="w.pth",
        activation=expected.activation,
        mode="bicubic",
        antialias=False,
        **asked,
    )

    assert found == expected


def test_config_from_state__keeps_the_hidden_width_exactly() -> None:
    dim, hidden = 22, 15  # 22 * (15 / 22) is below 15 in floating point
    source = built(embed_dim=dim, mlp_ratio=hidden / dim + 1e-9)

    found = encoder_config_from_state(
        source.state_dict(), source="w.pth", num_heads=2, norm_eps=1e-6, activation="gelu", mode="bicubic"
    )

    assert VisionTransformer(found).blocks[0].mlp.fc1.out_features == hidden


@pytest.mark.parametrize(
    ("facts", "asked"),
    [
        ({}, "num_heads, norm_eps, activation, mode"),
        ({"mlp": "swiglu", "positions": {"kind": "rotary"}}, "num_heads, norm_eps"),
    ],
)
def test_config_from_state__asks_for_what_shapes_cannot_tell(facts: dict[str, Any], asked: str) -> None:
    with pytest.raises(CheckpointError) as error:
        encoder_config_from_state(built(**facts).state_dict(), source="w.pth")

    assert str(error.value) == (f"w.pth has weights whose shapes do not tell {asked}; pass them as keyword arguments")


def test_config_from_state__refuses_a_hybrid() -> None:
    state = built().state_dict() | {"patch_embed.backbone.stem.conv.weight": torch.ones(1)}

    with pytest.raises(CheckpointError, match=r"write the EncoderConfig by hand"):
        encoder_config_from_state(state, source="w.pth")


def test_positions__are_antialiased_only_where_the_config_says() -> None:
    draw = torch.Generator().manual_seed(4)
    stored = torch.randn(1, 48, 5, generator=draw)
    grid = stored.unflatten(1, (6, 8)).permute(0, 3, 1, 2)

    for antialias in (False, True):
        rule = LearnedPositions(grid=(6, 8), num_prefix=0, antialias=antialias)
        expected = F.interpolate(grid, (3, 5), mode="bicubic", align_corners=False, antialias=antialias)
        assert torch.equal(positions_for(stored, rule, (3, 5)), expected.flatten(2).transpose(1, 2))
    assert not LearnedPositions(grid=(6, 8)).antialias


@pytest.mark.parametrize(
    ("added", "facts", "antialias"),
    [
        ({}, {}, True),  # timm
        ({"mask_token": torch.zeros(1, 16)}, {}, False),  # DINOv2
        ({"register_tokens": torch.zeros(1, 2, 16), "mask_token": torch.zeros(1, 16)}, {}, True),
        ({}, {"offset": 0.1}, False),
        ({}, {"antialias": False}, False),
        ({}, {"mode": "bilinear"}, False),
    ],
)
def test_config_from_state__antialiases_as_the_program_with_these_names(
    added: State, facts: dict[str, Any], antialias: bool
) -> None:
    known = {"num_heads": 2, "norm_eps": 1e-6, "activation": "gelu", "mode": "bicubic"} | facts

    positions = encoder_config_from_state(built().state_dict() | added, source="file", **known).positions

    assert isinstance(positions, LearnedPositions)
    assert positions.antialias == antialias


def kinds(drop: str = "", **added: Tensor) -> State:
    """Tensors of a plain ViT, without those whose name a pattern begins, and with others."""
    state = {name: tensor for name, tensor in built().state_dict().items() if not (drop and re.match(drop, name))}
    return state | {name.replace("__", "."): tensor for name, tensor in added.items()}


SCALE = {"blocks__0__gamma_1": torch.ones(16)}


TELL_TALES: dict[str, State] = {
    "EVA-02": kinds(r"blocks\.\d+\.attn\.qkv\.bias", blocks__0__attn__q_bias=torch.zeros(16))
    | {"blocks.0.mlp.fc2.weight": torch.zeros(16, 32)},
    "which it adds to learned ones": kinds(**SCALE),
    "rotary positions only": kinds("pos_embed", **SCALE),
    "PE-Core": kinds(norm_pre__weight=torch.ones(16), attn_pool__latent=torch.zeros(1, 1, 16)),
    "PE-Spatial": kinds(r"norm\.", norm_pre__bias=torch.ones(16)),
    "normalises after each": kinds(r"cls_token|norm\.|.*qkv\.bias", fc_norm__weight=torch.ones(16)),
    "BEiT": kinds(blocks__0__attn__relative_position_bias_table=torch.zeros(4, 2)),
}


@pytest.mark.parametrize("kind", TELL_TALES)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_encoder_of_another_kind__is_refused_by_what_it_is(kind: str, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in TELL_TALES[kind].items()}

    assert kind in refusal(fresh(), state)
    with pytest.raises(CheckpointError, match=re.escape(kind)):
        encoder_config_from_state(state, source="file", num_heads=2, norm_eps=1e-6, activation="gelu", mode="bicubic")


TIMM = {"architecture": "vit_small_patch16_224", "num_classes": 0, "pretrained_cfg": {"tag": "x"}}


def side(folder: Path, facts: dict[str, Any], **encoder: Any) -> None:
    (folder / "config.json").write_text(json.dumps(facts))
    check_encoder_side(folder / "model.safetensors", "file", config(**encoder))


@pytest.mark.parametrize(
    "facts",
    [
        TIMM,
        TIMM | {"architecture": "vit_base_patch14_reg4_dinov2.lvd142m"},
        {"model_type": "dinov2", "num_attention_heads": 2, "hidden_act": "gelu"},
        {"model_type": "depth_anything", "backbone_config": {"num_attention_heads": 2}},
        {"some": "other program"},
    ],
)
def test_config_beside_an_encoder__may_be_of_a_plain_vit(facts: dict[str, Any], tmp_path: Path) -> None:
    side(tmp_path, facts)


@pytest.mark.parametrize(
    "facts",
    [
        TIMM | {"architecture": "vit_small_patch16_dinov3", "model_args": {"img_size": 64, "num_heads": 2}},
        {"model_type": "dinov3_vit", "num_attention_heads": 2, "rope_theta": 100.0},
        {"model_type": "dinov3_vit", "num_attention_heads": 2},
    ],
)
def test_config_beside_an_encoder__may_be_of_dinov3(facts: dict[str, Any], tmp_path: Path) -> None:
    side(tmp_path, facts, positions={"kind": "rotary"})


@pytest.mark.parametrize("activation", ["gelu", None])
def test_dinov3_gated_by_another_function__is_refused(activation: str | None, tmp_path: Path) -> None:
    facts = {"model_type": "dinov3_vit", "num_attention_heads": 2}
    side(tmp_path, facts | {"hidden_act": "silu"}, positions={"kind": "rotary"}, mlp="swiglu")
    stated = {} if activation is None else {"hidden_act": activation}

    with pytest.raises(CheckpointError, match=r"gated by 'gelu' by its config\.json, but only 'silu'"):
        side(tmp_path, facts | stated, positions={"kind": "rotary"}, mlp="swiglu")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            TIMM | {"architecture": "eva02_tiny_patch14_224.mim_in22k"},
            "rotary positions with base 10000.0, coordinates indices, stretch_to .16, 16., pairs neighbours by its "
            "config.json, but the encoder has no rotary positions; correct model.encoder.positions.rotary, or",
        ),
        (TIMM | {"architecture": "vit_pe_spatial_tiny_patch16_512"}, "index_offset 1.0, order xy"),
        (TIMM | {"architecture": "vit_small_patch16_dinov3"}, "rotary positions with base 100.0 by its config.json"),
        (TIMM | {"architecture": "vit_base_patch16_rope_mixed_224"}, "frequencies are learned"),
        (TIMM | {"architecture": "eva02_enormous_patch14_clip_224"}, "EVA-02 E"),
        ({"model_type": "dinov3_vit", "rope_theta": 50.0}, "rotary positions with base 50.0"),
        (TIMM | {"architecture": "vit_base_patch16_rpn_224"}, "normalises after each residual"),
        (TIMM | {"architecture": "swin_tiny_patch4_window7_224"}, "another model"),
        (TIMM | {"model_args": {"mlp_layer": "geglu"}}, "mlp_layer='geglu'"),
        (TIMM | {"model_args": {"use_rot_pos_emb": True}}, "not known: use_rot_pos_emb"),
        (TIMM | {"model_args": {"num_heads": 4}}, "4 attention heads by its config.json, but the encoder has 2"),
        (TIMM | {"adapter": "lora"}, "not known: adapter"),
        ({"model_type": "beit"}, "model_type 'beit'"),
        ({"model_type": "vit", "num_attention_heads": 8}, "8 attention heads"),
    ],
)
def test_config_beside_an_encoder__is_obeyed(facts: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        side(tmp_path, facts)


def test_name_of_timm__tells_what_no_tensor_does() -> None:
    facts: dict[str, Any] = {"embed_dim": 128, "num_heads": 2, "mlp_ratio": 1.0}
    state = built(**facts).state_dict()

    plain = encoder_config_from_state(state, source="file", architecture="vit_base_patch16_clip_quickgelu_224.openai")
    rotary = encoder_config_from_state(state, source="file", architecture="vit_pe_spatial_base_patch16_512")

    assert (plain.num_heads, plain.norm_eps, plain.activation, plain.rotary) == (2, 1e-5, "quick_gelu", None)
    assert (rotary.num_heads, rotary.norm_eps, rotary.activation) == (2, 1e-5, "gelu")
    assert rotary.rotary is not None
    assert (rotary.rotary.stretch_to, rotary.rotary.order, rotary.rotary.index_offset) == ((32, 32), "xy", 1.0)


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_base_patch16_rpn_224.sw_in1k"])
def test_name_of_another_model_of_timm__is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"file is {name.split('.')[0]} of timm: .*only plain ViTs"):
        encoder_config_from_state(built().state_dict(), source="file", architecture=name)
