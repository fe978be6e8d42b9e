"""Cross entropy of upsampled logits, fused, against the plain form, in C and in torch."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.errors import DataError, ShapeError
from densevit.tasks import losses
from densevit.upsampling import loss as fused
from densevit.upsampling import upsample_cross_entropy
from tests.needs import needs_compiler

SIZES = [
    ((3, 4), (48, 64), False),
    ((12, 9), (30, 1), True),
    ((1, 6), (5, 40), False),
    ((7, 5), (7, 5), True),
    ((9, 8), (5, 3), False),
]


@pytest.fixture(params=[pytest.param("kernel", marks=needs_compiler), "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms, one after the other."""
    if request.param == "torch":
        monkeypatch.setattr(fused, "load", lambda: None)
    return str(request.param)


def case(classes: int, old: tuple[int, int], new: tuple[int, int], *, batch: int = 3) -> tuple[Tensor, Tensor]:
    """Logits and a target of which a fifth is ignored, an image as a whole among it."""
    generator = torch.Generator().manual_seed(classes)
    logits = 4 * torch.randn(batch, classes, *old, generator=generator)
    target = torch.randint(0, classes, (batch, *new), generator=generator)
    target[torch.rand(batch, *new, generator=generator) < 0.2] = 255
    target[-1] = 255
    return logits, target


def plain(logits: Tensor, target: Tensor, weights: Tensor | None, *, align_corners: bool, ignored: int = 255) -> Tensor:
    resized = F.interpolate(logits, size=target.shape[1:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(resized, target, weights, ignore_index=ignored, reduction="sum")


def both(logits: Tensor, target: Tensor, weights: Tensor | None, *, align_corners: bool) -> list[tuple[Tensor, Tensor]]:
    """Sum and gradient, fused in float32 and plain in float64."""
    found = []
    for leaf, fuse in ((logits.clone(), True), (logits.double(), False)):
        leaf.requires_grad_()
        if fuse:
            total = upsample_cross_entropy(leaf, target, align_corners=align_corners, class_weights=weights)
        else:
            total = plain(leaf, target, None if weights is None else weights.double(), align_corners=align_corners)
        (total / 100).backward()
        assert leaf.grad is not None
        found.append((total.detach().float(), leaf.grad.float()))
    return found


@pytest.mark.parametrize(("old", "new", "align_corners"), SIZES)
@pytest.mark.parametrize("classes", [1, 2, 8, 19, 40])
@pytest.mark.parametrize("weighted", [False, True])
def test_sum_and_gradient__are_those_of_the_plain_form(
    form: str, old: tuple[int, int], new: tuple[int, int], align_corners: bool, classes: int, weighted: bool
) -> None:
    logits, target = case(classes, old, new)
    weights = torch.rand(classes, generator=torch.Generator().manual_seed(0)) + 0.1 if weighted else None

    (total, gradient), (expected, expected_gradient) = both(logits, target, weights, align_corners=align_corners)

    torch.testing.assert_close(total, expected, rtol=3e-6, atol=1e-5)
    scale = max(float(expected_gradient.abs().max()), 1e-2)
    torch.testing.assert_close(gradient / scale, expected_gradient / scale, rtol=0, atol=3e-6)
    assert (gradient[-1] == 0).all()


@pytest.mark.parametrize("align_corners", [False, True])
def test_gradient__passes_the_check_by_differences_in_float64(align_corners: bool) -> None:
    logits, target = case(3, (2, 3), (5, 4))
    weights = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)

    def total(values: Tensor) -> Tensor:
        return upsample_cross_entropy(values, target, align_corners=align_corners, class_weights=weights)

    assert torch.autograd.gradcheck(total, logits.double().requires_grad_())


@needs_compiler
def test_kernel__takes_any_layout_of_the_logits() -> None:
    logits, target = case(5, (6, 4), (20, 30))
    for layout in (
        logits.contiguous(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        (total, gradient), (expected, expected_gradient) = both(logits, target, None, align_corners=False)
        (other, other_gradient), _ = both(layout, target, None, align_corners=False)
        torch.testing.assert_close(other, total, rtol=1e-6, atol=0)
        torch.testing.assert_close(other_gradient, gradient, rtol=1e-6, atol=1e-8)


@needs_compiler
def test_kernel__gives_the_same_whatever_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = case(7, (6, 4), (20, 30))
    one = both(logits, target, None, align_corners=False)[0]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    five = both(logits, target, None, align_corners=False)[0]

    assert torch.equal(one[0], five[0])
    assert torch.equal(one[1], five[1])


def test_sum__alone_is_made_where_no_gradient_is_wanted(form: str) -> None:
    logits, target = case(5, (6, 4), (20, 30))
    with torch.no_grad():
        total = upsample_cross_entropy(logits.requires_grad_(), target, align_corners=False)

    assert not total.requires_grad
    torch.testing.assert_close(total, plain(logits.detach(), target, None, align_corners=False), rtol=3e-6, atol=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_sum__of_logits_that_are_not_finite_is_not_finite(form: str, value: float) -> None:
    logits, target = case(5, (6, 4), (20, 30))
    logits[0, 3, 2, 2] = value

    total = upsample_cross_entropy(logits.requires_grad_(), target, align_corners=False)
    total.backward()

    assert not total.isfinite()
    assert logits.grad is not None
    assert not logits.grad.isfinite().all()


def test_sum__of_far_apart_logits_is_exact(form: str) -> None:
    logits = torch.tensor([[0.0, 500.0, -3000.0]]).view(1, 3, 1, 1).requires_grad_()
    total = upsample_cross_entropy(logits, torch.full((1, 2, 2), 2), align_corners=False)
    total.backward()

    assert total == 4 * 3500.0
    assert logits.grad is not None
    assert logits.grad.flatten().tolist() == [0.0, 4.0, -4.0]


def test_sum__between_logits_that_change_places_is_exact(form: str) -> None:
    """Halfway, all logits are far below the largest of both sides."""
    logits = torch.tensor([[[[400.0, -400.0]], [[-400.0, 400.0]]]], requires_grad=True)  # (1, 2, 1, 2)
    target = torch.zeros(1, 1, 3, dtype=torch.int64)

    total = upsample_cross_entropy(logits, target, align_corners=True)
    total.backward()

    assert float(total.detach()) == pytest.approx(math.log(2) + 800, rel=1e-6)
    expected = torch.tensor([[[[-0.25, -1.25]], [[0.25, 1.25]]]])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, expected)


def test_sum__takes_a_negative_ignore_index(form: str) -> None:
    logits, target = case(5, (6, 4), (20, 30))
    found = upsample_cross_entropy(logits, target.where(target != 255, -1), align_corners=False, ignore_index=-1)

    torch.testing.assert_close(found, upsample_cross_entropy(logits, target, align_corners=False))


@pytest.mark.parametrize("label", [5, -1, 10**12])
def test_class__that_does_not_exist_is_refused(form: str, label: int) -> None:
    logits, target = case(5, (6, 4), (20, 30))
    target[1, 3, 3] = label

    with pytest.raises(DataError) as caught:
        upsample_cross_entropy(logits, target, align_corners=False)

    assert str(caught.value) == (
        f"the target holds class {label} but there are 5 classes, 0 to 4; correct the masks or ignore_index"
    )


def test_half_precision__is_computed_in_float32_also_under_autocast(form: str) -> None:
    logits, target = case(5, (6, 4), (20, 30))
    half = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total = upsample_cross_entropy(half, target, align_corners=False)
    total.backward()

    torch.testing.assert_close(total, upsample_cross_entropy(half.detach().float(), target, align_corners=False))
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@needs_compiler
def test_kernel__needs_no_memory_of_the_size_of_the_upsampled_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = case(150, (4, 4), (64, 64), batch=2)
    sizes = []
    empty, zeros = torch.empty, torch.zeros
    monkeypatch.setattr(torch, "empty", lambda *a, **k: sizes.append(empty(*a, **k)) or sizes[-1])
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: sizes.append(zeros(*a, **k)) or sizes[-1])
    upsample_cross_entropy(logits.requires_grad_(), target, align_corners=False).backward()

    assert len(sizes) >= 3
    assert sum(made.numel() for made in sizes) < 2 * 150 * 64 * 64 / 16


def test_cross_entropy__refuses_a_target_that_does_not_belong() -> None:
    with pytest.raises(ShapeError) as caught:
        losses.cross_entropy(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 8, 8).long(), align_corners=False)

    assert str(caught.value) == (
        "logits are (2, 3, 4, 4) and the target is (2, 1, 8, 8), but (B, K, h, w) and (B, H, W) belong together; "
        "add the batch dimension, or take the channel away from the target"
    )
