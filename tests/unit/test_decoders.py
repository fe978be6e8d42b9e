"""The formulas of the papers, written out once more and compared."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.decoders import Decoder, build_decoder, dpt, parse_decoder, setr
from densevit.decoders.dpt import DptConfig, Fusion, Reassemble
from densevit.layers import ResidualUnit, StridedConv
from densevit.types import Size, Taps
from tests.factories import VARIANTS
from tests.tolerances import EXACT, SAME_MATHS

GRID: Size = (2, 3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal values."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def taps(*, num_taps: int = 4, dim: int = 32, grid: Size = GRID, num_prefix: int = 2) -> Taps:
    """Random taps of two images with 16-pixel patches."""
    tokens = tuple(draw(2, grid[0] * grid[1], dim, seed=seed) for seed in range(num_taps))
    prefix = tuple(draw(2, num_prefix, dim, seed=10 + seed) for seed in range(num_taps))
    return Taps(tokens, prefix, grid, (16, 16))


def build(decoder: dict[str, Any], *, out_channels: int = 5) -> Decoder:
    """A decoder for such taps in evaluation mode, its batch norms far from the identity."""
    torch.manual_seed(0)
    built = build_decoder(parse_decoder(decoder), embed_dim=32, num_taps=4, out_channels=out_channels).eval()
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return built


def image_of(tokens: Tensor, grid: Size = GRID) -> Tensor:
    """(B, N, C) -> (B, C, h, w)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)


def enlarged(x: Tensor, factor: int, *, align_corners: bool = False) -> Tensor:
    """Bilinear upsampling."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 16, 64])
def test_setr_pup__coarse_logits_resized_to_the_image_are_its_logits(
    rows: int, corners: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setr, "BAND_ROWS", rows)
    decoder, given = build({"kind": "setr_pup", "channels": 8, "align_corners": corners}), taps()

    coarse = decoder.decode_coarse(given).logits

    torch.testing.assert_close(enlarged(coarse, 2, align_corners=corners), decoder(given).logits, **SAME_MATHS)
    assert coarse.shape[-2:] == (GRID[0] * 8, GRID[1] * 8)


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("fusion_up_to", ["next_level", "double"])
def test_dpt__logits_made_band_by_band_are_its_logits(
    rows: int, fusion_up_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpt, "BAND_ROWS", rows)
    facts = {"channels": (8, 12, 16, 20), "fusion_channels": 8, "fusion_up_to": fusion_up_to, "batch_norm": True}
    decoder, given = build({"kind": "dpt", **facts, "head": {"kind": "segmentation"}}), taps()

    with torch.no_grad():
        banded, plain = decoder.decode_coarse(given).logits, decoder(given).logits

    torch.testing.assert_close(banded, plain, **SAME_MATHS)


def test_strided_conv__bfloat16_gradients_of_a_map_of_one_pixel_are_those_of_float32() -> None:
    conv = StridedConv(20, 20, 3, stride=4)
    x = torch.randn(2, 20, 2, 3, generator=torch.Generator().manual_seed(0))
    conv(x).sum().backward()
    assert conv.weight.grad is not None
    expected = conv.weight.grad.clone()

    for _ in range(50):  # a wrong gradient holds what lay in memory, so that must be bad for sure
        junk = [torch.full((2**power,), float("nan")) for power in range(6, 17)]
        del junk
        conv.weight.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            conv(x).float().sum().backward()
        torch.testing.assert_close(conv.weight.grad, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("form", "factor"), [("paper", 1), ("mmseg", 4)])
def test_setr_naive__upsamples_before_the_classifier_up_to_rounding(form: str, factor: int) -> None:
    decoder, given = build({"kind": "setr_naive", "channels": 8, "form": form}), taps()
    head = decoder.head

    features = head.convs[0](image_of(F.layer_norm(given.tokens[-1], (32,), head.norm.weight, head.norm.bias, 1e-6)))

    torch.testing.assert_close(decoder(given).logits, head.classifier(enlarged(features, factor)), **SAME_MATHS)


@pytest.mark.parametrize("corners", [False, True])
def test_setr_pup__is_four_convolutions_each_followed_by_upsampling(corners: bool) -> None:
    decoder, given = build({"kind": "setr_pup", "channels": 8, "align_corners": corners}), taps()

    x = image_of(decoder.head.norm(given.tokens[-1]))
    for conv in decoder.head.convs:
        x = enlarged(conv(x), 2, align_corners=corners)

    torch.testing.assert_close(decoder(given).logits, decoder.head.classifier(x), **SAME_MATHS)


@pytest.mark.parametrize(("form", "corners"), [("paper", True), ("mmseg", False), ("mmseg", True)])
def test_setr_mla__concatenates_convolved_sums_from_the_top_down(form: str, corners: bool) -> None:
    options = {"channels": 8, "head_channels": 6, "form": form, "align_corners": corners}
    decoder, given = build({"kind": "setr_mla", **options}), taps()

    laterals = [decoder.laterals[i](image_of(decoder.norms[i](given.tokens[i]))) for i in range(4)]
    sums = [torch.stack(laterals[i:]).sum(dim=0) for i in range(4)]
    streams = [decoder.streams[i](decoder.smooths[i](sums[i])) for i in range(4)]
    joined = torch.cat([enlarged(stream, 4, align_corners=corners) for stream in streams], dim=1)

    torch.testing.assert_close(decoder(given).logits, decoder.classifier(joined), **SAME_MATHS)


def test_setr_mla__has_one_auxiliary_head_per_level() -> None:
    decoder, given = build({"kind": "setr_mla", "channels": 8, "head_channels": 6, "aux": True}), taps()

    aux = decoder.decode(given, with_aux=True).aux

    expected = tuple(head(x) for head, x in zip(decoder.aux_heads, decoder.pyramid(given), strict=True))
    torch.testing.assert_close(aux, expected, **EXACT)


def test_segmenter_linear__is_one_layer_on_the_last_tap() -> None:
    decoder, given = build({"kind": "segmenter_linear"}), taps()

    expected = image_of(given.tokens[-1] @ decoder.head.weight.T + decoder.head.bias)

    torch.testing.assert_close(decoder(given).logits, expected, **SAME_MATHS)


def test_segmenter_mask__is_the_cosine_normalised_over_classes() -> None:
    decoder, given = build({"kind": "segmenter_mask", "num_heads": 2}), taps()

    x = torch.cat((decoder.proj_dec(given.tokens[-1]), decoder.class_tokens.repeat(2, 1, 1)), dim=1)
    for block in decoder.blocks:
        x = block(x)
    x = decoder.norm(x)
    patches, classes = x[:, :6] @ decoder.proj_patch.weight.T, x[:, 6:] @ decoder.proj_classes.weight.T
    cosines = torch.cosine_similarity(patches[:, :, None], classes[:, None], dim=-1)  # (B, N, K)

    expected = image_of(F.layer_norm(cosines, (5,), eps=1e-5))
    torch.testing.assert_close(decoder(given).logits, expected, rtol=1e-3, atol=1e-3)  # the norm enlarges rounding


def test_residual_unit__adds_the_input_as_it_came() -> None:
    torch.manual_seed(0)
    unit, x = ResidualUnit(4, batch_norm=True, bias=True).eval(), draw(1, 4, 5, 6)

    expected = x + unit.bn2(unit.conv2(unit.bn1(unit.conv1(x.relu())).relu()))

    torch.testing.assert_close(unit(x.clone()), expected, **SAME_MATHS)


def test_fusion__projects_after_upsampling_up_to_rounding() -> None:
    torch.manual_seed(0)
    fusion = Fusion(4, batch_norm=False, bias=True, skip=True).eval()
    level, path = draw(1, 4, 6, 6), draw(1, 4, 6, 6, seed=1)

    expected = fusion.project(enlarged(fusion.unit(path + fusion.skip_unit(level)), 2, align_corners=True))

    torch.testing.assert_close(enlarged(fusion(level, path), 2, align_corners=True), expected, **SAME_MATHS)


def test_fusion__brings_the_level_to_the_size_of_the_path() -> None:
    fusion = Fusion(4, batch_norm=False, bias=True, skip=True).eval()
    level, path = draw(1, 4, 5, 7), draw(1, 4, 6, 8, seed=1)
    resized = F.interpolate(level, size=(6, 8), mode="bilinear", align_corners=False)

    torch.testing.assert_close(fusion(level, path), fusion(resized, path), **EXACT)


def dpt_config(**options: Any) -> DptConfig:
    return DptConfig(channels=(8, 8, 8, 8), head={"kind": "depth"}, **options)  # type: ignore[arg-type]


def reassembled(readout: Any, tokens: Tensor, prefix: Tensor, *, num_readout: int = 1) -> tuple[Tensor, Reassemble]:
    """The map of the level that is not resampled, and the module."""
    torch.manual_seed(0)
    module = Reassemble(dpt_config(readout=readout, num_readout=num_readout), 32, 2)
    return module(tokens, prefix, GRID), module


@pytest.mark.parametrize("num_readout", [1, 2])
def test_readout_add__adds_the_mean_of_the_first_prefix_tokens(num_readout: int) -> None:
    tokens, prefix = draw(2, 6, 32), draw(2, 3, 32, seed=1)

    given, module = reassembled("add", tokens, prefix, num_readout=num_readout)

    expected = module.project(image_of(tokens + prefix[:, :num_readout].sum(dim=1, keepdim=True) / num_readout))
    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_readout_project__takes_the_patch_first_and_the_class_token_second() -> None:
    tokens, prefix = draw(2, 6, 32), draw(2, 3, 32, seed=1)

    given, module = reassembled("project", tokens, prefix)

    weight, bias = module.readout_project.weight, module.readout_project.bias
    mixed = tokens @ weight[:, :32].T + prefix[:, :1] @ weight[:, 32:].T + bias
    torch.testing.assert_close(given, module.project(image_of(F.gelu(mixed))), **SAME_MATHS)


def test_readout_ignore__does_not_see_the_prefix() -> None:
    tokens = draw(2, 6, 32)

    torch.testing.assert_close(
        reassembled("ignore", tokens, draw(2, 1, 32))[0],
        reassembled("ignore", tokens, draw(2, 1, 32, seed=1))[0],
        **EXACT,
    )


@pytest.mark.parametrize(("level", "size"), [(0, (12, 20)), (1, (6, 10)), (2, (3, 5)), (3, (2, 3))])
def test_reassemble__gives_the_four_strides(level: int, size: Size) -> None:
    module = Reassemble(dpt_config(readout="ignore"), 32, level)

    assert module(draw(1, 15, 32), draw(1, 1, 32), (3, 5)).shape == (1, 8, *size)


@pytest.mark.parametrize("aux", ["last", "penultimate"])
def test_dpt_aux__reads_the_fusion_it_names(aux: str) -> None:
    data = VARIANTS["dpt/ignore, segmentation"].decoder | {"head": {"kind": "segmentation", "aux": aux}}
    decoder, given = build(data), taps()

    (logits,) = decoder.decode(given, with_aux=True).aux

    fused, penultimate = decoder.fuse(given)
    path = enlarged(fused, 2, align_corners=True) if aux == "last" else penultimate
    torch.testing.assert_close(logits, decoder.aux_head(path, given.image_size), **EXACT)


def depth(**head: object) -> Tensor:
    """Depth of the same weights under another head config."""
    data = VARIANTS["dpt/ignore, depth"].decoder
    decoder = build(data | {"head": {"kind": "depth", "hidden_channels": 8, **head}}, out_channels=1)
    with torch.no_grad():  # spread the values around zero, so that an activation shows
        decoder.head.conv3.weight.mul_(50.0)
        decoder.head.conv3.bias.zero_()
        return decoder(taps()).logits


def test_depth_relu__cuts_off_below_zero() -> None:
    signed = depth(activation="none")

    assert bool((signed < 0).any())
    torch.testing.assert_close(depth(activation="relu"), signed.clamp(min=0.0), **EXACT)


def test_depth_sigmoid__stays_below_the_largest_depth() -> None:
    expected = 20.0 / (1.0 + torch.exp(-depth(activation="none")))

    torch.testing.assert_close(depth(activation="sigmoid", max_depth_m=20.0), expected, **SAME_MATHS)


def test_depth_inverted__is_one_over_scale_times_value_plus_shift() -> None:
    expected = 1.0 / (0.5 * depth(activation="relu") + 0.25)

    torch.testing.assert_close(depth(invert=True, scale=0.5, shift=0.25), expected, **SAME_MATHS)


def test_depth_inverted__never_divides_by_less_than_1e_minus_8() -> None:
    inverted = depth(activation="none", invert=True)

    torch.testing.assert_close(inverted.max(), torch.tensor(1e8), rtol=1e-6, atol=0.0)


def test_reassemble__tap_norm_makes_the_scale_of_a_tap_irrelevant() -> None:
    torch.manual_seed(0)
    module = Reassemble(dpt_config(readout="ignore", tap_norm=True), 32, 2)
    tokens, prefix = torch.randn(1, 6, 32), torch.randn(1, 1, 32)
    expected = module(tokens, prefix, (2, 3))
    torch.testing.assert_close(module(100 * tokens, prefix, (2, 3)), expected, rtol=1e-4, atol=1e-4)


def test_reassemble__pools_the_tokens_of_an_odd_grid_to_half_rounded_up() -> None:
    pooled, plain = (Reassemble(dpt_config(readout="ignore", pool=pool), 32, 2).eval() for pool in (2, 1))
    plain.load_state_dict(pooled.state_dict())
    tokens, prefix = draw(1, 15, 32), draw(1, 1, 32)

    given = pooled(tokens, prefix, (3, 5))

    expected = F.adaptive_avg_pool2d(plain(tokens, prefix, (3, 5)), (2, 3))
    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_reassemble__drops_whole_channels_of_the_tokens_in_training_alone() -> None:
    module = Reassemble(dpt_config(readout="ignore", tap_dropout=0.5), 32, 2)
    seen: list[Tensor] = []
    module.project.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens, prefix = draw(1, 6, 32) + 10.0, draw(1, 1, 32)

    for mode in (True, False):
        module.train(mode)(tokens, prefix, (2, 3))

    dropped = (seen[0] == 0).flatten(2)
    assert 0 < int(dropped.all(-1).sum()) < 32
    assert torch.equal(dropped.all(-1), dropped.any(-1))
    assert not bool((seen[1] == 0).any())
