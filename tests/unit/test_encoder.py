import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.blocks import Attention, Block, DropPath, Rotation
from densevit.encoder import VisionTransformer, vit_config
from densevit.encoder.hybrid import HybridEmbed, HybridStem, StdConv, pad_same
from densevit.encoder.positions import RotaryPositions, rotary_angles
from densevit.errors import ConfigError, ShapeError
from densevit.types import Size
from tests.factories import PREFIXES, STEM, Prefix, random_images, tiny_encoder
from tests.tolerances import EXACT, SAME_MATHS

ROTARY: dict[str, Any] = {"positions": {"kind": "rotary"}}

OPTIONS: dict[str, dict[str, Any]] = {
    "CLIP": {"pre_norm": True, "activation": "quick_gelu", "patch_bias": False, "norm_eps": 1e-5},
    "DINOv2": {"layer_scale": 1e-5, "final_norm": True, "mlp": "swiglu"},
    "DINOv3": ROTARY | {"layer_scale": 1e-5, "prefix": "cls+reg", "qkv_bias": False},
    "DeiT": {"prefix": "cls+dist", "activation": "gelu_tanh"},
    "hybrid": {"stem": STEM, "activation": "relu"},
}


def build(*, seed: int = 0, **facts: Any) -> VisionTransformer:
    """A tiny encoder in evaluation mode."""
    torch.manual_seed(seed)
    return VisionTransformer(tiny_encoder(**facts)).eval()


def silence_blocks(encoder: VisionTransformer) -> None:
    """Make every block the identity by zeroing the end of both residual branches."""
    for block in encoder.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


@pytest.mark.parametrize(
    ("size", "patch_size", "message"),
    [
        (
            (65, 96),
            16,
            "image is 65 x 96 but both sides must be multiples of patch size 16; "
            "pad to 80 x 96 or use Predictor, which does it",
        ),
        (
            (28, 1),
            14,
            "image is 28 x 1 but both sides must be multiples of patch size 14; "
            "pad to 28 x 14 or use Predictor, which does it",
        ),
        (
            (30, 30),
            (16, 8),
            "image is 30 x 30 but both sides must be multiples of patch size 16 x 8; "
            "pad to 32 x 32 or use Predictor, which does it",
        ),
        (
            (0, 32),
            16,
            "image is 0 x 32 but both sides must be multiples of patch size 16; "
            "pad to 16 x 32 or use Predictor, which does it",
        ),
    ],
)
def test_shape_error__names_the_next_size(size: Size, patch_size: Any, message: str) -> None:
    encoder = build(patch_size=patch_size, taps=(0,))

    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        encoder(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(
    ("size", "patch_size", "grid"),
    [((48, 48), 16, (3, 3)), ((16, 96), 16, (1, 6)), ((70, 42), 14, (5, 3)), ((32, 32), (16, 8), (2, 4))],
)
def test_taps__carry_the_grid_of_the_image(size: Size, patch_size: Any, grid: Size) -> None:
    taps = build(patch_size=patch_size, taps=(0,))(torch.zeros(2, 3, *size))

    assert (taps.grid, taps.image_size, taps.tokens[0].shape) == (grid, size, (2, grid[0] * grid[1], 32))


def test_tokens__run_row_by_row() -> None:
    encoder = build(taps=(0,))
    silence_blocks(encoder)
    nn.init.zeros_(encoder.pos_embed)
    images = random_images((2, 3))

    torch.testing.assert_close(encoder(images).maps()[0], encoder.patch_embed(images)[0], **SAME_MATHS)


def test_blocks__after_the_last_tap_are_not_built() -> None:
    assert len(build(depth=12, taps=(1, 4)).blocks) == 5


def test_taps__are_the_outputs_of_the_named_blocks() -> None:
    encoder = build(taps=(1, 2), prefix="cls+dist")
    outputs: list[Tensor] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))

    taps = encoder(random_images((2, 3)))

    given = [torch.cat(pair, dim=1) for pair in zip(taps.prefix, taps.tokens, strict=True)]
    torch.testing.assert_close(given, outputs[1:3], **EXACT)


def test_final_norm__is_laid_on_every_tap() -> None:
    raw, normed = build(taps=(0, 1)), build(taps=(0, 1), final_norm=True)
    images = random_images((2, 3))

    expected = [F.layer_norm(tokens, (32,), eps=1e-6) for tokens in raw(images).tokens]

    torch.testing.assert_close(list(normed(images).tokens), expected, **SAME_MATHS)


def test_prefix__is_class_then_distillation_then_registers() -> None:
    encoder = build(prefix="cls+dist", num_registers=2, taps=(0,))
    silence_blocks(encoder)
    for value, parameter in enumerate((encoder.pos_embed, encoder.cls_token, encoder.dist_token, encoder.reg_token)):
        nn.init.constant_(parameter, float(value))

    prefix = encoder(random_images((2, 3))).prefix[0]

    assert prefix[0, :, 0].tolist() == [1.0, 2.0, 3.0, 3.0]


def test_registers__get_no_position() -> None:
    encoder = build(prefix="cls+reg", taps=(0,))
    silence_blocks(encoder)
    nn.init.ones_(encoder.pos_embed)
    for token in (encoder.cls_token, encoder.reg_token):
        nn.init.zeros_(token)

    assert encoder(random_images((2, 3))).prefix[0][0, :, 0].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix__is_split_from_the_patches(prefix: Prefix) -> None:
    encoder = build(prefix=prefix)

    taps = encoder(random_images((2, 3)))

    shapes = {(p.shape[1], t.shape[1]) for p, t in zip(taps.prefix, taps.tokens, strict=True)}
    assert shapes == {(encoder.config.num_prefix, 6)}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"num_heads": 3}, "embed_dim 32 is not a multiple of num_heads 3"),
        ({"taps": (2, 1), "depth": 4}, "taps (2, 1) must be increasing block indices in 0..3"),
        ({"taps": (1, 1), "depth": 4}, "taps (1, 1) must be increasing block indices in 0..3"),
        ({"taps": (0, 4), "depth": 4}, "taps (0, 4) must be increasing block indices in 0..3"),
        ({"taps": (-1, 2), "depth": 4}, "taps (-1, 2) must be increasing block indices in 0..3"),
        (
            {"positions": {"kind": "learned", "grid": (3, 3), "num_prefix": 2}},
            "positions.num_prefix 2 exceeds 1 prefix tokens",
        ),
        (ROTARY | {"embed_dim": 36, "num_heads": 2}, "rotary positions need a head width that is a multiple of 4"),
        ({"stem": STEM, "patch_size": 8}, "the hybrid stem has stride 16; patch_size must be 16"),
        ({"patch_size": 0}, "patch_size.0: Input should be greater than 0 (got 0)"),
        ({"norm_eps": 0.0}, "norm_eps: Input should be greater than 0 (got 0.0)"),
        ({"drop_path": 1.0}, "drop_path: Input should be less than 1 (got 1.0)"),
        (
            {"activation": "gelo"},
            "activation: Input should be 'gelu', 'gelu_tanh', 'quick_gelu' or 'relu' (got 'gelo')",
        ),
        ({"drop_pth": 0.1}, "drop_pth: unknown key; did you mean 'drop_path'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_config__refuses(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        tiny_encoder(**facts)


@pytest.mark.parametrize(
    ("width", "parameters"), [("Ti", 5_524_416), ("S", 21_665_664), ("B", 85_798_656), ("L", 303_301_632)]
)
def test_named_size__has_the_published_number_of_parameters(width: Any, parameters: int) -> None:
    with torch.device("meta"):
        encoder = VisionTransformer(vit_config(width, final_norm=True))

    assert sum(p.numel() for p in encoder.parameters()) == parameters


@pytest.mark.parametrize("name", OPTIONS)
def test_options__give_every_parameter_a_gradient(name: str) -> None:
    encoder = build(**OPTIONS[name]).train()
    torch.manual_seed(1)

    taps = encoder(random_images((2, 3)))
    outputs = (*taps.tokens, *taps.stem_maps)
    torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()

    without = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("name", OPTIONS)
def test_options__compile_without_a_graph_break(name: str) -> None:
    torch.compiler.reset()
    encoder, images = build(**OPTIONS[name]), random_images((2, 3))

    compiled = torch.compile(encoder, backend="eager", fullgraph=True)(images)

    torch.testing.assert_close(list(compiled.tokens), list(encoder(images).tokens), **SAME_MATHS)


@pytest.mark.parametrize("rate", ["dropout", "drop_path"])
def test_randomness__is_absent_in_evaluation(rate: str) -> None:
    images = random_images((2, 3))

    with_rate, without = build(**{rate: 0.5}), build()

    torch.testing.assert_close(list(with_rate(images).tokens), list(without(images).tokens), **EXACT)


@pytest.mark.parametrize("rate", ["dropout", "drop_path"])
def test_randomness__is_present_in_training(rate: str) -> None:
    encoder, images = build(**{rate: 0.5}).train(), random_images((2, 3), batch=8)
    torch.manual_seed(1)

    assert not torch.equal(encoder(images).tokens[-1], encoder(images).tokens[-1])


def test_drop_path__drops_whole_samples_and_rescales_the_others() -> None:
    torch.manual_seed(0)

    dropped = DropPath(0.75).train()(torch.ones(64, 3, 2))

    per_sample = {tuple(sample.unique().tolist()) for sample in dropped}
    assert per_sample == {(0.0,), (4.0,)}


def test_drop_path__grows_linearly_over_the_full_depth() -> None:
    encoder = build(depth=5, taps=(0, 3), drop_path=0.4)

    assert [block.drop_path.probability for block in encoder.blocks] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_attention__is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    attention, x = Attention(12, 3), torch.randn(2, 5, 12)
    q, k, v = attention.qkv(x).view(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)  # (B, heads, T, 4) each

    mixed = (q @ k.transpose(-1, -2) / 2.0).softmax(dim=-1) @ v

    torch.testing.assert_close(attention(x), attention.proj(mixed.transpose(1, 2).reshape(2, 5, 12)), **SAME_MATHS)


def test_rotation__leaves_prefix_tokens_untouched() -> None:
    rotation = rotary_angles(RotaryPositions(), (2, 3), 8, device=torch.device("cpu"))
    x = torch.randn(1, 2, 3 + 6, 8, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(rotation(x)[:, :, :3], x[:, :, :3], **EXACT)


def test_rotation__turns_every_patch_token_and_keeps_its_length() -> None:
    rotation = rotary_angles(RotaryPositions(), (2, 4), 8, device=torch.device("cpu"))
    x = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))

    turned = rotation(x)

    assert bool((turned != x).any(dim=-1).all())
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), **SAME_MATHS)


def test_rotary_angles__are_opposite_for_opposite_patches() -> None:
    rotation = rotary_angles(RotaryPositions(), (3, 4), 8, device=torch.device("cpu"))

    torch.testing.assert_close(rotation.sin, -rotation.sin.flip(0), **SAME_MATHS)


def turned(rule: RotaryPositions, grid: Size, row: int, column: int, x: Tensor) -> Tensor:
    """One patch's channels (D,), each pair as a complex number times its rotation: the definition, patch by patch."""
    (h, w), quarter = grid, len(x) // 4
    if rule.coordinates == "centres":
        y_angle, x_angle = (2 * math.pi * ((2 * i + 1) / n - 1) for i, n in ((row, h), (column, w)))
    else:
        spread = rule.stretch_to or grid
        y_angle, x_angle = (
            (i + rule.index_offset) * m / n for i, m, n in zip((row, column), spread, grid, strict=True)
        )
    axes = (y_angle, x_angle) if rule.order == "yx" else (x_angle, y_angle)
    angles = torch.tensor([angle * rule.base ** (-k / quarter) for angle in axes for k in range(quarter)])
    pairs = x.unflatten(0, (2, -1)).T if rule.pairs == "halves" else x.unflatten(0, (-1, 2))  # (D / 2, 2)
    rotated = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    )
    return (rotated.T if rule.pairs == "halves" else rotated).flatten()


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"base": 37.0, "order": "xy", "pairs": "neighbours"},
        {"coordinates": "indices"},
        {"coordinates": "indices", "index_offset": 0.5, "order": "xy"},
        {"coordinates": "indices", "stretch_to": (7, 4), "index_offset": 1.0, "pairs": "neighbours", "base": 1e4},
    ],
)
def test_rotation__is_that_of_the_rule(facts: dict[str, Any]) -> None:
    rule, grid = RotaryPositions(**facts), (3, 5)
    x = torch.randn(15, 16, generator=torch.Generator().manual_seed(0))

    ours = rotary_angles(rule, grid, 16, device=torch.device("cpu"))(x[None, None])[0, 0]

    expected = [turned(rule, grid, index // 5, index % 5, patch) for index, patch in enumerate(x)]
    torch.testing.assert_close(ours, torch.stack(expected), **SAME_MATHS)


@pytest.mark.parametrize("facts", [{"stretch_to": (4, 4)}, {"index_offset": 1.0}])
def test_facts_of_indices__are_refused_for_centres(facts: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="stretch_to and index_offset are of coordinates 'indices' only"):
        RotaryPositions.parse(facts)


def test_norms_inside_the_branches__are_applied() -> None:
    block = Block(8, 2, mlp_hidden_dim=12, mlp="swiglu", attn_norm=True, mlp_norm=True, norm_eps=1e-3)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 5, 8)
    attn, mlp = block.attn, block.mlp
    q, k, v = attn.qkv(block.norm1(x)).view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    mixed = ((q @ k.transpose(-1, -2) / 2.0).softmax(dim=-1) @ v).transpose(1, 2).reshape(2, 5, 8)
    middle = x + attn.proj(F.layer_norm(mixed, (8,), attn.norm.weight, attn.norm.bias, 1e-3))
    gate, value = mlp.fc1(block.norm2(middle)).chunk(2, dim=-1)
    hidden = F.layer_norm(F.silu(gate) * value, (12,), mlp.norm.weight, mlp.norm.bias, 1e-3)
    expected = middle + mlp.fc2(hidden)

    torch.testing.assert_close(block(x), expected, **SAME_MATHS)
    with torch.inference_mode():
        torch.testing.assert_close(block(x), expected, **SAME_MATHS)


def test_norm_inside_a_plain_feed_forward__is_refused() -> None:
    with pytest.raises(ConfigError, match="mlp_norm is of the feed-forward 'swiglu' only"):
        tiny_encoder(mlp_norm=True)


def test_rotation__reaches_every_block() -> None:
    encoder = build(**ROTARY, taps=(2,))
    seen: list[Rotation | None] = []
    for block in encoder.blocks:
        block.attn.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[1]))

    encoder(random_images((2, 3)))

    assert [isinstance(rotation, Rotation) for rotation in seen] == [True, True, True]


def test_hybrid_stem__gives_maps_at_strides_4_8_and_16() -> None:
    stem = HybridEmbed(HybridStem(**STEM), in_channels=3, embed_dim=32)

    tokens, maps = stem(random_images((3, 5)))

    assert [tuple(m.shape[2:]) for m in (*maps, tokens)] == [(12, 20), (6, 10), (3, 5)]


@pytest.mark.parametrize("rule", ["std_plus_eps", "var_plus_eps"])
def test_std_conv__does_not_see_mean_and_scale_of_its_filters(rule: Any) -> None:
    torch.manual_seed(0)
    conv, x = StdConv(3, 4, 3, standardisation=rule), torch.randn(1, 3, 6, 6)
    before = conv(x)

    conv.weight.data = conv.weight.data * 5.0 + 2.0

    torch.testing.assert_close(conv(x), before, rtol=1e-3, atol=1e-3)  # but for the eps


def test_pad_same__puts_the_odd_pixel_right_and_below() -> None:
    padded = pad_same(torch.ones(1, 1, 4, 6), kernel=3, stride=2, value=0.0)

    expected = torch.zeros(1, 1, 5, 7)
    expected[..., :4, :6] = 1.0
    torch.testing.assert_close(padded, expected, **EXACT)


def test_block__with_layer_scale_zero_is_the_identity() -> None:
    torch.manual_seed(0)
    block, x = Block(8, 2, mlp_hidden_dim=16, layer_scale=0.0), torch.randn(2, 3, 8)

    torch.testing.assert_close(block(x), x, **EXACT)
