from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from densevit.config import Config
from densevit.encoder import VisionTransformer
from densevit.encoder.positions import RotaryPositions, rotary_angles, rotary_angles_at
from densevit.encoder.token_merging import Groups, size_bias
from densevit.encoder.token_merging_rules import AlgmMerging, AnyMerging, MergeStep, MergingConfig, TomeMerging, step_of
from densevit.errors import ConfigError
from densevit.types import Taps
from tests.factories import EVA, PE, random_images, tiny_encoder
from tests.tolerances import SAME_MATHS

GRID = (4, 6)
ENCODERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"positions": {"kind": "rotary"}},
    "rotary and learned": {"positions": {"kind": "learned", "grid": (3, 3), "rotary": PE}, "prefix": "cls"},
    "registers and LayerScale": {"prefix": "cls+reg", "layer_scale": 0.5},
    "no prefix, SwiGLU, final norm": {"prefix": "none", "mlp": "swiglu", "final_norm": True},
}
RULES: dict[str, MergingConfig] = {
    "tome once": TomeMerging(share=0.5, schedule="once", first=1),
    "tome constant": TomeMerging(share=0.6, first=0, every=1),
    "tome decreasing, copies": TomeMerging(
        share=0.5, schedule="decreasing", first=0, every=1, keep_detail=False, proportional=False
    ),
    "algm": AlgmMerging(local_threshold=0.3, local_block=0, global_threshold=0.3),
}


def encoder(**facts: Any) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(tiny_encoder(**facts)).eval()
    for parameter in model.parameters():  # initial weights of 0.02 leave nearly nothing for attention to do
        if parameter.ndim == 2:
            parameter.data *= 4
    return model


def run(model: VisionTransformer, images: Tensor, merging: MergingConfig | None) -> Taps:
    model.merging = merging
    with torch.inference_mode():
        return model(images)


def tensors(taps: Taps) -> tuple[Tensor, ...]:
    return *taps.tokens, *taps.prefix


@pytest.mark.parametrize("rule", [TomeMerging(share=0.0), AlgmMerging(local_threshold=None, global_threshold=None)])
@pytest.mark.parametrize("facts", ENCODERS.values(), ids=ENCODERS)
def test_merging__of_nothing_changes_no_bit(facts: dict[str, Any], rule: MergingConfig) -> None:
    model, images = encoder(**facts), random_images(GRID)

    plain, merged = run(model, images, None), run(model, images, rule)

    assert all(torch.equal(a, b) for a, b in zip(tensors(plain), tensors(merged), strict=True))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("facts", ENCODERS.values(), ids=ENCODERS)
def test_merged_taps__have_the_shape_they_had(facts: dict[str, Any], rule: MergingConfig) -> None:
    model, images = encoder(**facts), random_images(GRID)

    plain, merged = run(model, images, None), run(model, images, rule)

    assert [t.shape for t in tensors(merged)] == [t.shape for t in tensors(plain)]
    assert merged.grid == plain.grid
    assert not torch.equal(merged.tokens[-1], plain.tokens[-1])


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("facts", ENCODERS.values(), ids=ENCODERS)
def test_merged_taps__do_not_depend_on_the_rest_of_the_batch(facts: dict[str, Any], rule: MergingConfig) -> None:
    model, images = encoder(**facts), random_images(GRID, batch=3)

    together = run(model, images, rule)

    for index in range(3):
        alone = run(model, images[index : index + 1], rule)
        for a, b in zip(tensors(together), tensors(alone), strict=True):
            torch.testing.assert_close(a[index : index + 1], b, **SAME_MATHS)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_merged_taps__of_one_colour_are_the_plain_ones(rule: MergingConfig) -> None:
    model = encoder(positions={"kind": "learned", "grid": (3, 3), "num_prefix": 1})
    model.pos_embed.data.zero_()
    images = torch.full((1, 3, 64, 96), 0.3)

    plain, merged = run(model, images, None), run(model, images, rule)

    if rule.proportional:  # equal tokens that count as many as they stand for
        for a, b in zip(tensors(plain), tensors(merged), strict=True):
            torch.testing.assert_close(a, b, **SAME_MATHS)
    else:
        assert not torch.allclose(plain.prefix[-1], merged.prefix[-1], **SAME_MATHS)


def test_gradients__reach_every_parameter_through_merged_tokens() -> None:
    model = encoder()
    model.merging = RULES["tome constant"]

    model(random_images(GRID)).tokens[-1].sum().backward()

    assert all(p.grad is not None for p in model.parameters())


def test_tome_counts__spread_the_share_over_the_schedule() -> None:
    once = TomeMerging(share=0.4, schedule="once", first=3)
    constant = TomeMerging(share=0.6, first=2, every=2)
    decreasing = TomeMerging(share=0.5, schedule="decreasing", first=1, every=1, last=4)

    assert once.counts(12, 1000) == {3: 400}
    assert constant.counts(10, 1000) == {2: 200, 4: 200, 6: 200}
    assert decreasing.counts(12, 1000) == {1: 219, 2: 156, 3: 94, 4: 31}


def test_tome_counts__follow_the_share_down_to_the_token() -> None:
    for tokens in range(1, 200):
        assert sum(TomeMerging(share=0.37, first=0, every=1).counts(12, tokens).values()) == round(0.37 * tokens)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "tome", "first": 4, "last": 2}, "merging.tome: last block 2 comes before the first, 4"),
        (
            {"kind": "algm", "local_block": 5, "global_block": 5},
            "merging.algm: global_block 5 must come after local_block 5",
        ),
        ({"kind": "tome", "shares": 0.3}, "merging.tome.shares: unknown key; did you mean 'share'?"),
    ],
)
def test_rule__refuses(rule: dict[str, object], message: str) -> None:
    class Holder(Config):
        merging: AnyMerging

    with pytest.raises(ConfigError) as caught:
        Holder.parse({"merging": rule}, source="rule")

    assert str(caught.value) == f"rule is not a valid Holder:\n  {message}"


def test_tome_step__joins_the_most_similar() -> None:
    units = torch.eye(8)[None].clone()  # a grid of 2 x 4; destinations are patches 0 and 2
    units[0, 5] = units[0, 2]

    step = TomeMerging(share=1 / 8, schedule="once", first=0).step(0, 1, (2, 4), units)

    assert step is not None
    assert (step.gone.tolist(), step.into.tolist(), step.target.tolist()) == ([[5]], [[2]], [[0, 1, 2, 3, 4, 2, 5, 6]])


def test_algm_step__joins_2_x_2_patches_that_reach_the_threshold() -> None:
    units = torch.eye(6).repeat(4, 1)[None, :24].clone()  # (1, 4 * 6, 6): columns differ, rows are alike
    units[0, [0, 1, 6, 7]] = torch.eye(6)[0]
    rule = AlgmMerging(local_threshold=0.9, local_block=0)

    step = rule.step(0, 4, (4, 6), units)

    assert step is not None
    assert (step.gone.tolist(), step.into.tolist()) == ([[1, 6, 7]], [[0, 0, 0]])


def test_algm_step__leaves_the_last_odd_row_and_column_alone() -> None:
    units = torch.ones(1, 15, 1)

    step = AlgmMerging(local_block=0).step(0, 4, (3, 5), units)

    assert step is not None
    assert step.keep.tolist() == [[0, 2, 4, 9, 10, 11, 12, 13, 14]]


def test_size_bias__is_zero_for_prefix_tokens() -> None:
    bias = size_bias(torch.tensor([[1.0, 4.0]]), 2, torch.float32)

    assert bias.shape == (1, 1, 1, 4)
    assert bias.flatten().tolist() == pytest.approx([0.0, 0.0, 0.0, 1.3862944])


@pytest.mark.parametrize("rule", [RotaryPositions(), RotaryPositions(**EVA), RotaryPositions(**PE)])
def test_rotary_angles_at__are_those_of_the_grid_at_its_points(rule: RotaryPositions) -> None:
    grid = rotary_angles(rule, GRID, 8, device=torch.device("cpu"))
    at = rotary_angles_at(rule, Groups.single(2, GRID, torch.device("cpu")).centres, GRID, 8)

    assert at.sin.shape == (2, 1, 24, 8)
    torch.testing.assert_close(at.sin[1, 0], grid.sin, **SAME_MATHS)


# Properties of one merging


@st.composite
def steps(draw: st.DrawFn) -> MergeStep:
    """A step of a batch of two on 24 tokens, in which destinations stay."""
    count = draw(st.integers(1, 15))
    gone, partners = [], []
    for _ in range(2):
        order = draw(st.permutations(range(24)))
        gone.append(order[:count])
        partners.append([draw(st.sampled_from(order[count:])) for _ in range(count)])
    return step_of(torch.tensor(gone), torch.tensor(partners), 24)


def single() -> Groups:
    return Groups.single(2, GRID, torch.device("cpu"))


@settings(max_examples=40, deadline=None)
@given(steps(), st.booleans())
def test_unmerge__of_identical_tokens_is_exact(step: MergeStep, keep_detail: bool) -> None:
    values = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(3)).expand(2, 24, 5)

    merged, groups = single().merge(values, step, keep_detail=keep_detail)

    assert torch.equal(groups.unmerge(merged), values)


@settings(max_examples=40, deadline=None)
@given(steps())
def test_merge__keeps_total_size_sum_and_centre(step: MergeStep) -> None:
    values = torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(3))

    merged, groups = single().merge(values, step, keep_detail=True)

    assert groups.sizes.sum(1).tolist() == [24, 24]
    torch.testing.assert_close((merged * groups.sizes[..., None]).sum(1), values.sum(1), **SAME_MATHS)
    mean = (groups.centres * groups.sizes[..., None]).sum(1) / 24
    torch.testing.assert_close(mean, torch.tensor([[1.5, 2.5]] * 2), **SAME_MATHS)


@settings(max_examples=40, deadline=None)
@given(steps())
def test_unmerge__with_details_gives_back_what_was_merged(step: MergeStep) -> None:
    values = torch.randn(2, 24, 5, generator=torch.Generator().manual_seed(3))

    merged, groups = single().merge(values, step, keep_detail=True)

    torch.testing.assert_close(groups.unmerge(merged), values, **SAME_MATHS)


def test_merge__twice_weighs_by_size() -> None:
    values = torch.tensor([[[0.0], [3.0], [6.0], [9.0]]])
    groups = Groups.single(1, (1, 4), torch.device("cpu"))

    once, groups = groups.merge(values, step_of(torch.tensor([[1]]), torch.tensor([[0]]), 4), keep_detail=False)
    twice, groups = groups.merge(once, step_of(torch.tensor([[1]]), torch.tensor([[0]]), 3), keep_detail=False)

    assert twice.flatten().tolist() == [3.0, 9.0]
    assert (groups.sizes.tolist(), groups.owner.tolist()) == ([[3.0, 1.0]], [[0, 0, 0, 1]])
