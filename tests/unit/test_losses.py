"""Every loss against a second implementation in plain loops, and the two promises that all of them make."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.tasks import losses

CLOSE = 2e-6  # relative; the loops run in float64, the losses in float32


def _rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _labels_case(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (2, 4, 5, 6) and a target in which some pixels are ignored and class 3 never occurs."""
    logits = 3 * torch.randn(2, 4, 5, 6, generator=_rng(seed))
    target = torch.randint(0, 3, (2, 5, 6), generator=_rng(seed + 1))
    target[torch.rand(2, 5, 6, generator=_rng(seed + 2)) < 0.3] = 255
    return logits, target


def _maps_case(seed: int = 0, channels: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, target and mask of two images, the values between 0.5 and 5."""
    shape = (2, channels, 8, 9) if channels else (2, 8, 9)
    prediction = 0.5 + 4.5 * torch.rand(shape, generator=_rng(seed))
    target = 0.5 + 4.5 * torch.rand(shape, generator=_rng(seed + 1))
    return prediction, target, torch.rand(2, 8, 9, generator=_rng(seed + 2)) < 0.7


def _pixels(logits: Tensor, target: Tensor) -> list[tuple[list[float], int]]:
    """(softmax scores, class id) of each valid pixel, by hand."""
    pixels = []
    for b, y, x in np.ndindex(*target.shape):
        if target[b, y, x] != 255:
            powers = [math.exp(v) for v in logits[b, :, y, x].tolist()]
            pixels.append(([p / sum(powers) for p in powers], int(target[b, y, x])))
    return pixels


# Segmentation


def test_cross_entropy__averages_over_valid_pixels():
    logits, target = _labels_case()
    slow = [-math.log(scores[k]) for scores, k in _pixels(logits, target)]
    assert losses.cross_entropy(logits, target).item() == pytest.approx(sum(slow) / len(slow), rel=CLOSE)


def test_cross_entropy__denominator_all_counts_ignored_pixels():
    logits, target = _labels_case()
    slow = [-math.log(scores[k]) for scores, k in _pixels(logits, target)]
    fast = losses.cross_entropy(logits, target, denominator="all")
    assert fast.item() == pytest.approx(sum(slow) / (2 * 5 * 6), rel=CLOSE)


def test_cross_entropy__class_weights_count_in_the_valid_denominator():
    logits, target = _labels_case()
    weights = [0.5, 2.0, 3.0, 7.0]
    pixels = _pixels(logits, target)
    slow = sum(-weights[k] * math.log(s[k]) for s, k in pixels) / sum(weights[k] for _, k in pixels)
    fast = losses.cross_entropy(logits, target, class_weights=torch.tensor(weights))
    assert fast.item() == pytest.approx(slow, rel=CLOSE)


def test_cross_entropy__class_weights_stay_out_of_the_all_denominator():
    logits, target = _labels_case()
    weights = [0.5, 2.0, 3.0, 7.0]
    slow = sum(-weights[k] * math.log(s[k]) for s, k in _pixels(logits, target)) / target.numel()
    fast = losses.cross_entropy(logits, target, denominator="all", class_weights=torch.tensor(weights))
    assert fast.item() == pytest.approx(slow, rel=CLOSE)


def test_cross_entropy__takes_another_ignore_index():
    logits, target = _labels_case()
    other = target.masked_fill(target == 255, -1)
    assert losses.cross_entropy(logits, other, ignore_index=-1) == losses.cross_entropy(logits, target)


def test_cross_entropy__runs_in_float32_for_half_precision_logits():
    logits, target = _labels_case()
    assert losses.cross_entropy(logits.bfloat16(), target).dtype == torch.float32


def test_ohem__refuses_logits_of_another_size():
    logits, target = _labels_case()
    with pytest.raises(ShapeError) as caught:
        losses.ohem(logits[..., :3], target)
    assert str(caught.value) == (
        "logits are (2, 4, 5, 3) and the target is (2, 5, 6), but (B, K, H, W) and (B, H, W) belong together; "
        "resize the logits to the target first"
    )


@pytest.mark.parametrize(("threshold", "min_kept"), [(0.7, 1), (0.2, 1), (0.05, 12), (0.05, 1000)])
def test_ohem__keeps_the_hard_pixels(threshold: float, min_kept: int):
    logits, target = _labels_case()
    truths = sorted(scores[k] for scores, k in _pixels(logits, target))
    hard = [p for p in truths if p < threshold]
    kept = hard if len(hard) >= 2 * min_kept else truths[: 2 * min_kept]
    slow = sum(-math.log(p) for p in kept) / len(kept)
    fast = losses.ohem(logits, target, threshold=threshold, min_kept=min_kept)
    assert fast.item() == pytest.approx(slow, rel=CLOSE)


def test_ohem__averages_by_class_weights():
    logits, target = _labels_case()
    weights = [0.5, 2.0, 3.0, 7.0]
    hard = [(weights[k], scores[k]) for scores, k in _pixels(logits, target) if scores[k] < 0.2]
    assert len(hard) > 2
    slow = -sum(w * math.log(p) for w, p in hard) / sum(w for w, _ in hard)
    fast = losses.ohem(logits, target, threshold=0.2, min_kept=1, class_weights=torch.tensor(weights))
    assert fast.item() == pytest.approx(slow, rel=CLOSE)


def test_ohem__gives_easy_pixels_no_gradient():
    logits = torch.tensor([[[[5.0, 0.0]], [[0.0, 0.0]]]], requires_grad=True)  # one easy and one undecided pixel
    losses.ohem(logits, torch.zeros(1, 1, 2, dtype=torch.int64), threshold=0.7, min_kept=1).backward()
    assert logits.grad is not None
    assert (logits.grad[..., 0] == 0).all()


def test_dice__averages_over_the_classes_in_the_target():
    logits, target = _labels_case()
    pixels = _pixels(logits, target)
    slow = []
    for k in (0, 1, 2):
        overlap = sum(scores[k] for scores, truth in pixels if truth == k)
        size = sum(scores[k] for scores, _ in pixels) + sum(truth == k for _, truth in pixels)
        slow.append(1 - 2 * overlap / size)
    assert losses.dice(logits, target).item() == pytest.approx(np.mean(slow), rel=CLOSE)


def test_dice__has_a_finite_gradient_where_an_absent_class_underflows():
    logits = torch.zeros(1, 3, 2, 2)
    logits[:, 2] = -1000
    logits.requires_grad_()
    losses.dice(logits, torch.tensor([[[0, 1], [1, 0]]])).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def _slow_lovasz(pixels: list[tuple[list[float], int]], k: int) -> float:
    """The Lovász extension by its definition: errors times the growth of 1 - |truth and found| / |truth or found|."""
    errors = [abs((truth == k) - scores[k]) for scores, truth in pixels]
    truth = {i for i, (_, t) in enumerate(pixels) if t == k}
    wrong: set[int] = set()
    total, before = 0.0, 0.0
    for i in sorted(range(len(pixels)), key=lambda i: -errors[i]):
        wrong.add(i)
        found = truth ^ wrong
        after = 1 - len(truth & found) / len(truth | found)
        total += errors[i] * (after - before)
        before = after
    return total


def test_lovasz_softmax__equals_the_definition_over_sets():
    logits, target = _labels_case()
    pixels = _pixels(logits, target)
    slow = np.mean([_slow_lovasz(pixels, k) for k in (0, 1, 2)])
    assert losses.lovasz_softmax(logits, target).item() == pytest.approx(slow, rel=CLOSE)


def test_lovasz_softmax__is_one_minus_iou_for_certain_labels():
    found = torch.tensor([[[0, 0, 1, 1]]])
    logits = 200.0 * torch.nn.functional.one_hot(found, 2).movedim(-1, 1).float()
    loss = losses.lovasz_softmax(logits, torch.tensor([[[0, 1, 1, 1]]]))
    assert loss.item() == pytest.approx(1 - (1 / 2 + 2 / 3) / 2, rel=CLOSE)


# Depth and regression


def _errors(prediction: Tensor, target: Tensor, mask: Tensor) -> list[float]:
    mask = mask.unsqueeze(1).expand_as(prediction) if prediction.ndim == 4 else mask
    p, t, m = prediction.double().numpy(), target.double().numpy(), mask.numpy()
    return [p[i] - t[i] for i in np.ndindex(*p.shape) if m[i]]


@pytest.mark.parametrize("channels", [0, 2])
def test_l1__is_the_mean_over_valid_values(channels: int):
    prediction, target, mask = _maps_case(channels=channels)
    slow = np.mean([abs(e) for e in _errors(prediction, target, mask)])
    assert losses.l1(prediction, target, mask).item() == pytest.approx(slow, rel=CLOSE)


@pytest.mark.parametrize("channels", [0, 2])
def test_berhu__is_linear_below_and_quadratic_above_a_fifth_of_the_largest_error(channels: int):
    prediction, target, mask = _maps_case(channels=channels)
    sizes = [abs(e) for e in _errors(prediction, target, mask)]
    c = max(sizes) / 5
    slow = np.mean([e if e <= c else (e * e + c * c) / (2 * c) for e in sizes])
    assert losses.berhu(prediction, target, mask).item() == pytest.approx(slow, rel=CLOSE)


def test_berhu__is_zero_with_a_finite_gradient_for_a_perfect_prediction():
    _, target, mask = _maps_case()
    prediction = target.clone().requires_grad_()
    loss = losses.berhu(prediction, target, mask)
    loss.backward()
    assert loss == 0
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_divergence__equals_the_formula() -> None:
    logits, taught = (5 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    slow = []
    for image, row, column in np.ndindex(2, 4, 5):
        own, other = (np.exp(t[image, :, row, column].double().numpy()) for t in (logits, taught))
        p, q = other / other.sum(), own / own.sum()
        slow.append(float((p * np.log(p / q)).sum()))
    assert losses.divergence(logits, taught).item() == pytest.approx(np.mean(slow), rel=CLOSE)
    with pytest.raises(ShapeError):
        losses.divergence(logits, taught[:1])


@pytest.mark.parametrize("variance_focus", [0.0, 0.5, 0.85, 1.0])
def test_silog__equals_the_formula(variance_focus: float):
    depth, target, mask = _maps_case()
    target = target * mask
    logs = [
        math.log(depth[i].item()) - math.log(target[i].item())
        for i in np.ndindex(*target.shape)
        if target[i].item() > 0
    ]
    slow = math.sqrt(sum(g * g for g in logs) / len(logs) - variance_focus * (sum(logs) / len(logs)) ** 2)
    fast = losses.silog(depth, target, variance_focus=variance_focus)
    assert fast.item() == pytest.approx(slow, rel=CLOSE)


def test_silog__ignores_a_wrong_scale_when_only_variance_counts():
    depth, target, _ = _maps_case()
    near, far = (losses.silog(depth * scale, target, variance_focus=1.0).item() for scale in (1, 1000))
    assert far == pytest.approx(near, rel=1e-5)


def test_silog__has_a_finite_gradient_for_a_perfect_prediction():
    _, target, _ = _maps_case()
    depth = target.clone().requires_grad_()
    losses.silog(depth, target).backward()
    assert depth.grad is not None
    assert depth.grad.isfinite().all()


def _slow_aligned(values: np.ndarray, mask: np.ndarray) -> dict[tuple[int, int], float]:
    """MiDaS' alignment of one image, as a table from pixel to value; the lower of two middle values is the median."""
    chosen = {p: float(values[p]) for p in np.ndindex(*values.shape) if mask[p]}
    shift = sorted(chosen.values())[(len(chosen) - 1) // 2]
    scale = sum(abs(v - shift) for v in chosen.values()) / len(chosen)
    return {p: (v - shift) / scale for p, v in chosen.items()}


@pytest.mark.parametrize("trim", [0.0, 0.2])
def test_scale_shift_invariant__equals_the_loops(trim: float):
    prediction, target, mask = _maps_case()
    slow = []
    for p, t, m in zip(prediction.numpy(), target.numpy(), mask.numpy(), strict=True):
        found, true = _slow_aligned(p, m), _slow_aligned(t, m)
        errors = sorted(abs(found[i] - true[i]) for i in found)
        slow.append(sum(errors[: len(errors) - math.floor(trim * len(errors))]) / (2 * len(errors)))
    fast = losses.scale_shift_invariant(prediction, target, mask, trim=trim)
    assert fast.item() == pytest.approx(np.mean(slow), rel=CLOSE)


def test_scale_shift_invariant__is_blind_to_scale_and_shift_of_both_maps():
    prediction, target, mask = _maps_case()
    plain = losses.scale_shift_invariant(prediction, target, mask)
    moved = losses.scale_shift_invariant(3 * prediction - 7, 0.1 * target + 5, mask)
    assert moved.item() == pytest.approx(plain.item(), rel=1e-5)


def test_scale_shift_invariant__leaves_images_without_valid_pixels_out_of_the_mean():
    prediction, target, mask = _maps_case()
    alone = losses.scale_shift_invariant(prediction[:1], target[:1], mask[:1])
    mask[1] = False
    assert losses.scale_shift_invariant(prediction, target, mask) == alone


def test_remove_scale_shift__is_zero_and_finite_for_a_flat_image():
    values = torch.full((1, 3, 3), 4.0, requires_grad=True)
    aligned = losses.remove_scale_shift(values, torch.ones(1, 3, 3, dtype=torch.bool))
    aligned.sum().backward()
    assert (aligned == 0).all()
    assert values.grad is not None
    assert values.grad.isfinite().all()


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_gradient_matching__equals_the_loops(scales: int):
    prediction, target, mask = _maps_case()
    images = []
    for p, t, m in zip(prediction.double().numpy(), target.double().numpy(), mask.numpy(), strict=True):
        total = 0.0
        for step in [1, 2, 4, 8][:scales]:
            seen = {(y, x): p[y, x] - t[y, x] for y in range(0, 8, step) for x in range(0, 9, step) if m[y, x]}
            right = sum(abs(seen[y, x + step] - r) for (y, x), r in seen.items() if (y, x + step) in seen)
            below = sum(abs(seen[y + step, x] - r) for (y, x), r in seen.items() if (y + step, x) in seen)
            total += (right + below) / max(len(seen), 1)
        images.append(total)
    fast = losses.gradient_matching(prediction, target, mask, scales=scales)
    assert fast.item() == pytest.approx(np.mean(images), rel=CLOSE)


def test_gradient_matching__leaves_images_without_valid_pixels_out_of_the_mean():
    prediction, target, mask = _maps_case()
    alone = losses.gradient_matching(prediction[:1], target[:1], mask[:1])
    mask[1] = False
    assert losses.gradient_matching(prediction, target, mask) == alone


def test_gradient_matching__sees_no_constant_offset():
    prediction, _, mask = _maps_case()
    loss = losses.gradient_matching(prediction + 2, prediction, mask)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_cosine__leaves_out_vectors_that_are_not_finite():
    normals, target = (torch.randn(1, 3, 2, 2, generator=_rng(seed)) for seed in (3, 4))
    expected = losses.cosine(normals[..., 1:], target[..., 1:])
    target[0, 0, 0, 0], target[0, 1, 1, 0] = torch.inf, torch.nan
    torch.testing.assert_close(losses.cosine(normals, target), expected)


def test_cosine__is_the_mean_of_one_minus_the_cosine():
    normals, target = (torch.randn(2, 3, 4, 5, generator=_rng(seed)) for seed in (3, 4))
    target[:, :, 1, 2] = 0
    slow = []
    for b, y, x in np.ndindex(2, 4, 5):
        n, t = normals[b, :, y, x].double().numpy(), target[b, :, y, x].double().numpy()
        if any(t):
            slow.append(1 - float(n @ t) / math.sqrt(float(n @ n) * float(t @ t)))
    assert losses.cosine(normals, target).item() == pytest.approx(np.mean(slow), rel=CLOSE)


# What all of them promise

LABEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    "cross_entropy_all": lambda logits, target: losses.cross_entropy(logits, target, denominator="all"),
    "cross_entropy_weighted": lambda logits, target: losses.cross_entropy(logits, target, class_weights=torch.ones(4)),
    "ohem": losses.ohem,
    "dice": losses.dice,
    "lovasz_softmax": losses.lovasz_softmax,
}
MAP_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silog": lambda prediction, target, mask: losses.silog(prediction, torch.where(mask, target, 0.0)),
    "silog_nan": lambda prediction, target, mask: losses.silog(prediction, torch.where(mask, target, torch.nan)),
    "l1": losses.l1,
    "berhu": losses.berhu,
    "scale_shift_invariant": losses.scale_shift_invariant,
    "gradient_matching": losses.gradient_matching,
    "cosine": lambda prediction, target, mask: losses.cosine(
        prediction.unsqueeze(1).expand(-1, 3, -1, -1), torch.where(mask, target, 0.0).unsqueeze(1).expand(-1, 3, -1, -1)
    ),
}


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_losses__are_zero_with_a_zero_gradient_without_valid_pixels(name: str):
    logits, target = _labels_case()
    logits.requires_grad_()
    loss = LABEL_LOSSES[name](logits, torch.full_like(target, 255))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_map_losses__are_zero_with_a_zero_gradient_without_valid_pixels(name: str):
    prediction, target, mask = _maps_case()
    prediction.requires_grad_()
    loss = MAP_LOSSES[name](prediction, target, torch.zeros_like(mask))
    loss.backward()
    assert loss == 0
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_map_losses__do_not_see_what_stands_at_invalid_pixels(name: str):
    prediction, target, mask = _maps_case()
    values = []
    for rubbish in (1.0, torch.nan):
        leaf = torch.where(mask, prediction, rubbish).requires_grad_()
        loss = MAP_LOSSES[name](leaf, torch.where(mask, target, rubbish), mask)
        loss.backward()
        assert leaf.grad is not None
        values.append((loss.item(), leaf.grad))
    assert values[0][0] == values[1][0]
    torch.testing.assert_close(values[0][1], values[1][1], rtol=0, atol=0)


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_losses__run_in_float32_under_autocast(name: str):
    logits, target = _labels_case()
    with torch.autocast("cpu", torch.bfloat16):
        loss = LABEL_LOSSES[name](logits, target)
    assert loss == LABEL_LOSSES[name](logits, target)


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_map_losses__run_in_float32_under_autocast(name: str):
    prediction, target, mask = _maps_case()
    with torch.autocast("cpu", torch.bfloat16):
        loss = MAP_LOSSES[name](prediction, target, mask)
    assert loss == MAP_LOSSES[name](prediction, target, mask)


@pytest.mark.parametrize("name", LABEL_LOSSES)
def test_label_losses__fall_along_their_gradient(name: str):
    logits, target = _labels_case()
    logits.requires_grad_()
    before = LABEL_LOSSES[name](logits, target)
    before.backward()
    assert logits.grad is not None
    assert LABEL_LOSSES[name](logits.detach() - 0.1 * logits.grad, target) < before


@pytest.mark.parametrize("name", sorted(set(MAP_LOSSES) - {"cosine"}))
def test_map_losses__fall_along_their_gradient(name: str):
    prediction, target, mask = _maps_case()
    prediction.requires_grad_()
    before = MAP_LOSSES[name](prediction, target, mask)
    before.backward()
    assert prediction.grad is not None
    assert MAP_LOSSES[name](prediction.detach() - 0.1 * prediction.grad, target, mask) < before


def test_map_losses__refuse_shapes_that_would_broadcast():
    prediction, target, mask = _maps_case()
    with pytest.raises(ShapeError, match=r"\(2, 1, 8, 9\) and \(2, 8, 9\), but equal shapes are needed"):
        losses.l1(prediction.unsqueeze(1), target, mask)
