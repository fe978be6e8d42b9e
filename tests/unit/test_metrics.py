"""Every figure against a second implementation in plain loops over pixels."""

import math

import numpy as np
import pytest
import torch

from densevit.errors import ConfigError, DataError, ShapeError
from densevit.tasks.metrics import DepthMetrics, RegressionMetrics, SegmentationMetrics

CLOSE = 1e-12  # relative; both sides run in float64

# Segmentation


def _labels_case(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three images: class 3 is only predicted, class 4 occurs nowhere, some target pixels are ignored."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (3, 6, 7))
    target = np.where(rng.random((3, 6, 7)) < 0.5, labels, rng.integers(0, 3, (3, 6, 7)))
    target[target == 3] = 0
    target[rng.random((3, 6, 7)) < 0.2] = 255
    return labels, target


def _segmentation(labels: np.ndarray, target: np.ndarray) -> SegmentationMetrics:
    metrics = SegmentationMetrics(5)
    metrics.update(labels, target)
    return metrics


def _slow_segmentation(labels: np.ndarray, target: np.ndarray, num_classes: int) -> dict[str, list[float]]:
    pairs = [(f, t) for f, t in zip(labels.ravel().tolist(), target.ravel().tolist(), strict=True) if t != 255]
    iou, acc, pixels = [], [], []
    for k in range(num_classes):
        both = sum(f == k and t == k for f, t in pairs)
        either = sum(f == k or t == k for f, t in pairs)
        true = sum(t == k for _, t in pairs)
        iou.append(both / either if either else math.nan)
        acc.append(both / true if true else math.nan)
        pixels.append(true)
    return {"IoU": iou, "Acc": acc, "pixels": pixels, "right": [sum(f == t for f, t in pairs) / len(pairs)]}


def test_segmentation_metrics__equal_the_loops():
    labels, target = _labels_case()
    report, slow = _segmentation(labels, target).compute(), _slow_segmentation(labels, target, 5)
    assert report["mIoU"] == pytest.approx(np.nanmean(slow["IoU"]), rel=CLOSE)
    assert report["mAcc"] == pytest.approx(np.nanmean(slow["Acc"]), rel=CLOSE)
    assert report["aAcc"] == pytest.approx(slow["right"][0], rel=CLOSE)


@pytest.mark.parametrize("figure", ["IoU", "Acc", "pixels"])
def test_segmentation_metrics__per_class_equal_the_loops(figure: str):
    labels, target = _labels_case()
    report, slow = _segmentation(labels, target).compute(), _slow_segmentation(labels, target, 5)
    assert [row[figure] for row in report["per_class"].values()] == pytest.approx(slow[figure], rel=CLOSE, nan_ok=True)


def test_segmentation_metrics__count_images_and_valid_pixels():
    labels, target = _labels_case()
    metrics = _segmentation(labels, target)
    metrics.update(labels[0], target[0])
    report = metrics.compute()
    assert report["num_images"] == 4
    assert report["num_pixels"] == (target != 255).sum() + (target[0] != 255).sum()


def test_segmentation_metrics__predicted_only_class_counts_as_zero_and_absent_class_not_at_all():
    report = _segmentation(np.array([[0, 3]]), np.array([[0, 0]])).compute()
    assert report["mIoU"] == pytest.approx((1 / 2 + 0) / 2)
    assert report["mAcc"] == pytest.approx(1 / 2)


def test_segmentation_metrics__name_the_classes():
    metrics = SegmentationMetrics(2, class_names=("sky", "road"))
    metrics.update(np.array([[0, 1]]), np.array([[0, 1]]))
    assert metrics.compute()["per_class"] == {
        "sky": {"IoU": 1.0, "Acc": 1.0, "pixels": 1},
        "road": {"IoU": 1.0, "Acc": 1.0, "pixels": 1},
    }


def test_segmentation_metrics__give_plain_python_numbers():
    report = _segmentation(*_labels_case()).compute()
    rows = [value for row in report.pop("per_class").values() for value in row.values()]
    assert {type(value) for value in [*report.values(), *rows]} == {int, float}


@pytest.mark.parametrize("kind", [np.uint8, np.int16, ">u2", np.int64])
def test_segmentation_metrics__take_every_integer_type(kind: object):
    labels, target = _labels_case()
    report = _segmentation(labels.astype(np.dtype(kind)), target.astype(np.dtype(kind))).compute()
    assert str(report) == str(_segmentation(labels, target).compute())


def test_segmentation_metrics__take_tensors_and_flipped_arrays():
    labels, target = _labels_case()
    report = SegmentationMetrics(5)
    report.update(torch.from_numpy(labels).flip(2), target[:, :, ::-1])
    assert str(report.compute()) == str(_segmentation(labels, target).compute())


def test_segmentation_metrics__merge_equals_one_pass():
    labels, target = _labels_case()
    first, second = _segmentation(labels[:1], target[:1]), _segmentation(labels[1:], target[1:])
    first.merge(second)
    assert str(first.compute()) == str(_segmentation(labels, target).compute())


def test_segmentation_metrics__state_can_be_summed_in_place():
    labels, target = _labels_case()
    first, second = _segmentation(labels[:1], target[:1]), _segmentation(labels[1:], target[1:])
    for name, total in first.state.items():
        total += second.state[name]
    assert str(first.compute()) == str(_segmentation(labels, target).compute())


def test_segmentation_metrics__refuse_to_merge_other_classes():
    with pytest.raises(ConfigError, match="cannot be merged; build both from one task"):
        SegmentationMetrics(5).merge(SegmentationMetrics(6))


def test_segmentation_metrics__are_nan_before_the_first_image():
    report = SegmentationMetrics(2).compute()
    assert math.isnan(report["mIoU"])
    assert math.isnan(report["aAcc"])


def test_segmentation_metrics__count_in_int64_beyond_float32():
    metrics = SegmentationMetrics(2)
    metrics.state["confusion"][0, 0] = 2**40
    metrics.update(np.array([[0]]), np.array([[0]]))
    assert metrics.compute()["num_pixels"] == 2**40 + 1


def test_segmentation_metrics__keep_their_state_small():
    metrics = SegmentationMetrics(5)
    sizes = []
    for seed in range(3):
        metrics.update(*_labels_case(seed))
        sizes.append({name: total.numel() for name, total in metrics.state.items()})
    assert sizes == [{"confusion": 25, "images": 1}] * 3


def test_segmentation_metrics__refuse_a_target_id_out_of_range():
    with pytest.raises(DataError) as caught:
        SegmentationMetrics(11).update(np.zeros((1, 3), np.uint8), np.array([[0, 57, 57]]))
    assert str(caught.value) == (
        "target holds class id 57 (2 pixels out of range) but 0..10 and ignore_index 255 are accepted; "
        "check the number of classes or remap the ids"
    )


def test_segmentation_metrics__refuse_a_predicted_id_out_of_range():
    with pytest.raises(DataError, match=r"labels holds class id -1 \(1 pixels out of range\) but 0..10 are accepted"):
        SegmentationMetrics(11).update(np.array([[0, -1]]), np.array([[0, 1]]))


def test_segmentation_metrics__count_nothing_of_a_refused_image():
    metrics = SegmentationMetrics(2)
    with pytest.raises(DataError):
        metrics.update(np.array([[0, 9]]), np.array([[0, 1]]))
    assert metrics.compute()["num_pixels"] == 0


def test_segmentation_metrics__do_not_look_at_predictions_on_ignored_pixels():
    metrics = SegmentationMetrics(2)
    metrics.update(np.array([[0, 99]]), np.array([[0, 255]]))
    assert metrics.compute()["aAcc"] == 1.0


def test_segmentation_metrics__refuse_logits():
    with pytest.raises(DataError) as caught:
        SegmentationMetrics(2).update(torch.zeros(4, 4), torch.zeros(4, 4, dtype=torch.int64))
    assert str(caught.value) == (
        "labels is float32 but integer class ids are accepted; pass the arg max, not logits or masks"
    )


def test_segmentation_metrics__refuse_different_sizes():
    with pytest.raises(ShapeError, match=r"are \(4, 4\) and \(1, 4, 4\) but both must be \(H, W\) or \(B, H, W\)"):
        SegmentationMetrics(2).update(np.zeros((4, 4), int), np.zeros((1, 4, 4), int))


def test_segmentation_metrics__refuse_an_ignore_index_that_is_a_class():
    with pytest.raises(ConfigError) as caught:
        SegmentationMetrics(300)
    assert str(caught.value) == (
        "ignore_index 255 is also one of the class ids 0..299; use 255, or -1 for 256 and more classes"
    )


@pytest.mark.parametrize("names", [("sky",), ("sky", "sky"), ()])
def test_segmentation_metrics__refuse_class_names_that_do_not_fit(names: tuple[str, ...]):
    with pytest.raises(ConfigError, match="each class needs a different name"):
        SegmentationMetrics(2, class_names=names)


# Depth


def _depth_case(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three images; targets between 0 and 12 m with holes, the prediction outside of the range here and there."""
    rng = np.random.default_rng(seed)
    target = rng.uniform(0.2, 12, (3, 6, 7))
    prediction = target * rng.uniform(0.6, 1.7, (3, 6, 7)) - 0.5
    target[rng.random((3, 6, 7)) < 0.2] = 0
    return prediction, target


def _slow_depth(prediction: np.ndarray, target: np.ndarray, low: float, high: float) -> dict[str, float]:
    """One image, one pixel at a time."""
    pairs = [
        (min(max(p, low), high), t)
        for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True)
        if low < t < high
    ]
    n = len(pairs)
    logs = [math.log(p) - math.log(t) for p, t in pairs]
    return {
        "AbsRel": sum(abs(p - t) / t for p, t in pairs) / n,
        "SqRel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "RMSE": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "RMSElog": math.sqrt(sum(g * g for g in logs) / n),
        "SILog": math.sqrt(sum(g * g for g in logs) / n - (sum(logs) / n) ** 2),
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        **{f"delta{i}": sum(max(p / t, t / p) < 1.25**i for p, t in pairs) / n for i in (1, 2, 3)},
    }


@pytest.mark.parametrize("name", DepthMetrics.NAMES)
def test_depth_metrics__equal_the_mean_of_the_loops_over_images(name: str):
    prediction, target = _depth_case()
    metrics = DepthMetrics(0.3, 10.0)
    metrics.update(prediction, target)
    slow = [_slow_depth(p, t, 0.3, 10.0)[name] for p, t in zip(prediction, target, strict=True)]
    assert metrics.compute()[name] == pytest.approx(np.mean(slow), rel=1e-10)


def test_depth_metrics__are_perfect_for_the_target_itself():
    _, target = _depth_case()
    metrics = DepthMetrics(max_depth_m=20.0)
    metrics.update(torch.from_numpy(target), target)
    report = metrics.compute()
    assert [report[name] for name in DepthMetrics.NAMES] == [0, 0, 0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", DepthMetrics.NAMES)
def test_depth_metrics__align_disparity_by_least_squares_per_image(name: str):
    rng = np.random.default_rng(5)
    target = rng.uniform(0.5, 9, (2, 6, 7))
    disparity = np.stack([40, 3]).reshape(2, 1, 1) / target + rng.normal(0, 0.4, (2, 6, 7)) - 8
    metrics = DepthMetrics(align="scale_shift")
    metrics.update(disparity, target)
    slow = []
    for d, t in zip(disparity, target, strict=True):
        (scale, shift), *_ = np.linalg.lstsq(np.stack([d.ravel(), np.ones(d.size)], 1), 1 / t.ravel())
        fitted = [[1 / max(scale * v + shift, 1 / 10.0) for v in row] for row in d.tolist()]
        slow.append(_slow_depth(np.array(fitted), t, 1e-3, 10.0)[name])
    assert metrics.compute()[name] == pytest.approx(np.mean(slow), rel=1e-9)


def test_depth_metrics__aligned_disparity_is_blind_to_scale_and_shift():
    _, target = _depth_case()
    metrics = DepthMetrics(align="scale_shift")
    metrics.update(500 / np.maximum(target, 0.1) - 30, target)
    assert metrics.compute()["AbsRel"] == pytest.approx(0, abs=1e-9)


def test_depth_metrics__put_a_fitted_disparity_below_zero_at_the_far_end():
    # The far pixel lies below the line through the many exact ones, which the fit gives a disparity of -0.33.
    disparity, depth = np.array([[1.0] * 50 + [0.5] * 50 + [-0.5]]), np.array([[1.0] * 50 + [2.0] * 50 + [9.0]])
    metrics = DepthMetrics(max_depth_m=10.0, align="scale_shift")
    metrics.update(disparity, depth)
    (scale, shift), *_ = np.linalg.lstsq(np.stack([disparity[0], np.ones(101)], 1), 1 / depth[0])
    assert -0.5 * scale + shift < -0.3
    found = [1.0 / (scale + shift)] * 50 + [1.0 / (0.5 * scale + shift)] * 50 + [10.0]
    slow = np.mean([abs(f - t) / t for f, t in zip(found, depth[0], strict=True)])
    assert metrics.compute()["AbsRel"] == pytest.approx(slow, rel=1e-9)


def test_depth_metrics__fit_the_mean_to_a_flat_disparity():
    metrics = DepthMetrics(align="scale_shift")
    metrics.update(np.full((1, 7), 0.1), np.array([[1.0, 2, 4, 5, 6, 7, 8]]))
    found = 7 / sum(1 / t for t in (1, 2, 4, 5, 6, 7, 8))
    slow = np.mean([abs(found - t) / t for t in (1, 2, 4, 5, 6, 7, 8)])
    assert metrics.compute()["AbsRel"] == pytest.approx(slow, rel=1e-9)


def test_depth_metrics__count_images_without_valid_pixels_as_skipped():
    prediction, target = _depth_case()
    target[1] = 0
    metrics = DepthMetrics()
    metrics.update(prediction, target)
    report = metrics.compute()
    assert (report["num_images"], report["num_skipped"]) == (2, 1)


def test_depth_metrics__weigh_images_equally_however_many_pixels_are_valid():
    metrics = DepthMetrics()
    metrics.update(np.full((2, 1, 2), 3.0), np.array([[[2.0, 2.0]], [[3.0, 0.0]]]))
    assert metrics.compute()["AbsRel"] == pytest.approx(0.25)


@pytest.mark.parametrize("edge", [0.5, 8.0])
def test_depth_metrics__leave_out_targets_on_the_edges_of_the_range(edge: float):
    metrics = DepthMetrics(0.5, 8.0)
    metrics.update(np.full((1, 1), 2.0), np.full((1, 1), edge))
    assert metrics.compute()["num_skipped"] == 1


def test_depth_metrics__merge_equals_one_pass():
    prediction, target = _depth_case()
    whole, first, second = DepthMetrics(), DepthMetrics(), DepthMetrics()
    whole.update(prediction, target)
    first.update(prediction[0], target[0])
    second.update(prediction[1:], target[1:])
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=CLOSE)


def test_depth_metrics__refuse_to_merge_another_range():
    with pytest.raises(ConfigError, match="cannot be merged"):
        DepthMetrics(max_depth_m=10.0).merge(DepthMetrics(max_depth_m=80.0))


def test_depth_metrics__are_nan_before_the_first_image():
    report = DepthMetrics().compute()
    assert all(math.isnan(report[name]) for name in DepthMetrics.NAMES)
    assert (report["num_images"], report["num_skipped"]) == (0, 0)


def test_depth_metrics__give_plain_python_numbers():
    metrics = DepthMetrics()
    metrics.update(*_depth_case())
    assert {type(value) for value in metrics.compute().values()} == {int, float}


def test_depth_metrics__refuse_nan_at_valid_pixels():
    prediction, target = _depth_case()
    target[:] = 2.0
    prediction[0, 0, :3] = np.nan
    with pytest.raises(DataError) as caught:
        DepthMetrics().update(prediction, target)
    assert str(caught.value) == (
        "the prediction is NaN or infinite at 3 of 42 valid pixels but only numbers can be measured; "
        "the model has diverged or its weights are damaged, check the training log"
    )


def test_depth_metrics__do_not_look_at_predictions_on_invalid_pixels():
    metrics = DepthMetrics()
    metrics.update(np.array([[2.0, np.nan, np.inf]]), np.array([[2.0, 0.0, np.nan]]))
    assert metrics.compute()["AbsRel"] == 0


def test_depth_metrics__refuse_an_empty_range():
    with pytest.raises(ConfigError) as caught:
        DepthMetrics(5.0, 5.0)
    assert str(caught.value) == (
        "the depth range is 5.0 to 5.0 m but 0 < min_depth_m < max_depth_m is needed; "
        "for rooms 0.001 to 10 and for streets 0.001 to 80 are usual"
    )


# Regression


def _regression_case(channels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    prediction, target = rng.normal(size=(2, channels, 4, 5)), rng.normal(size=(2, channels, 4, 5))
    target[0, 0, 1, 2] = np.nan
    target[1, :, 3, 3] = 0
    return prediction, target


def _slow_errors(prediction: np.ndarray, target: np.ndarray) -> list[float]:
    errors = []
    for b, y, x in np.ndindex(2, 4, 5):
        if not any(math.isnan(value) for value in target[b, :, y, x]):
            errors += [p - t for p, t in zip(prediction[b, :, y, x], target[b, :, y, x], strict=True)]
    return errors


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_regression_metrics__equal_the_loops(channels: int):
    prediction, target = _regression_case(channels)
    metrics = RegressionMetrics(channels)
    metrics.update(prediction, target)
    errors = _slow_errors(prediction, target)
    assert metrics.compute() == {
        "MAE": pytest.approx(sum(abs(e) for e in errors) / len(errors), rel=CLOSE),
        "RMSE": pytest.approx(math.sqrt(sum(e * e for e in errors) / len(errors)), rel=CLOSE),
        "num_images": 2,
        "num_pixels": 39,
    }


def test_regression_metrics__mean_angle_equals_the_loops():
    prediction, target = _regression_case()
    metrics = RegressionMetrics(3, unit_vectors=True)
    metrics.update(torch.from_numpy(prediction), torch.from_numpy(target))
    angles = []
    for b, y, x in np.ndindex(2, 4, 5):
        p, t = prediction[b, :, y, x], target[b, :, y, x]
        if np.isfinite(t).all() and t.any():
            angles.append(math.degrees(math.acos(p @ t / math.sqrt((p @ p) * (t @ t)))))
    assert metrics.compute()["mean_angle_deg"] == pytest.approx(np.mean(angles), rel=1e-10)


def test_regression_metrics__resolve_small_angles():
    metrics = RegressionMetrics(3, unit_vectors=True)
    angle = 1e-7
    metrics.update(np.array([math.cos(angle), math.sin(angle), 0]).reshape(3, 1, 1), np.eye(3)[0].reshape(3, 1, 1))
    assert metrics.compute()["mean_angle_deg"] == pytest.approx(math.degrees(angle), rel=1e-6)


def test_regression_metrics__leave_zero_vectors_out_for_directions_only():
    prediction, target = _regression_case()
    plain, directions = RegressionMetrics(3), RegressionMetrics(3, unit_vectors=True)
    plain.update(prediction, target)
    directions.update(prediction, target)
    assert (plain.compute()["num_pixels"], directions.compute()["num_pixels"]) == (39, 38)


def test_regression_metrics__merge_equals_one_pass():
    prediction, target = _regression_case()
    whole, first, second = (RegressionMetrics(3, unit_vectors=True) for _ in range(3))
    whole.update(prediction, target)
    first.update(prediction[0], target[0])
    second.update(prediction[1], target[1])
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute(), rel=CLOSE)


def test_regression_metrics__are_nan_before_the_first_map():
    assert math.isnan(RegressionMetrics(2).compute()["RMSE"])


def test_regression_metrics__refuse_another_number_of_channels():
    with pytest.raises(ShapeError) as caught:
        RegressionMetrics(3).update(np.zeros((2, 4, 4)), np.zeros((2, 4, 4)))
    assert str(caught.value) == (
        "the maps have 2 channels but these metrics count 3; pass (C, H, W) or (B, C, H, W) and the right num_channels"
    )


def test_regression_metrics__refuse_directions_without_three_channels():
    with pytest.raises(ConfigError, match="2 channels with unit_vectors=True were given, but directions have 3"):
        RegressionMetrics(2, unit_vectors=True)
