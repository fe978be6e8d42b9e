from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.data import ClassTable
from densevit.data.transforms import Targets
from densevit.errors import ConfigError, ShapeError
from densevit.tasks import TASKS, Depth, Regression, Segmentation, Task, losses, parse_task
from densevit.types import DenseOutput
from tests.tolerances import EXACT

CLASSES = ("road", "sky", "tree")
ALL: dict[str, Task] = {
    "segmentation": Segmentation(classes=CLASSES),
    "metric depth": Depth(),
    "disparity": Depth(quantity="disparity"),
    "relative depth": Depth(quantity="relative_depth"),
    "regression": Regression(channels=("height",)),
    "normals": Regression(channels=("x", "y", "z"), unit_vectors=True),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_target(task: Task, seed: int = 0) -> Tensor:
    """A batch of two targets of 8 x 12 pixels with a few unknown ones, as ``read_target`` gives them."""
    if isinstance(task, Segmentation):
        target = torch.randint(0, len(task.classes), (2, 8, 12), generator=generator(seed))
        target[:, 0] = task.ignore_index
    elif isinstance(task, Depth):
        target = torch.rand(2, 8, 12, generator=generator(seed)) * 8 + 1
        target[:, 0] = 0
    else:
        target = torch.randn(2, task.out_channels, 8, 12, generator=generator(seed))
        if task.unit_vectors:
            target = F.normalize(target, dim=1)
        target[:, :, 0] = torch.nan
    return target


def perfect(task: Task, target: Tensor) -> Tensor:
    """Logits (B, K, H, W) that say just what the target says."""
    if isinstance(task, Segmentation):
        known = target.where(target != task.ignore_index, 0)
        return 20 * F.one_hot(known, len(task.classes)).permute(0, 3, 1, 2).float()
    if isinstance(task, Depth):
        inverse = task.quantity == "disparity"
        return torch.where(target > 0, 3 / target + 1 if inverse else target, 1.0)[:, None]
    return target.nan_to_num(1.0)


def loss(task: Task, logits: Tensor, target: Tensor, *aux: Tensor, align_corners: bool = False) -> Tensor:
    return task.loss(DenseOutput(logits, aux), target, align_corners=align_corners)


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_task__survives_the_way_through_plain_data(task: Task) -> None:
    assert parse_task(task.plain()) == task


def test_table__has_the_kind_of_each_task_as_its_key() -> None:
    assert {kind: task.model_fields["kind"].default for kind, task in TASKS.items()} == {kind: kind for kind in TASKS}


def test_parse_task__names_the_nearest_kind() -> None:
    with pytest.raises(ValueError, match="task kind 'segmentaton' is unknown; did you mean 'segmentation'"):
        parse_task({"kind": "segmentaton"})


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_loss__is_a_float32_scalar_also_for_half_precision_logits(task: Task) -> None:
    target = random_target(task)
    value = loss(task, torch.rand(2, task.out_channels, 4, 6, generator=generator()).bfloat16(), target)
    assert (value.shape, value.dtype) == ((), torch.float32)
    assert value.isfinite()


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_loss__is_least_for_perfect_logits(task: Task) -> None:
    target = random_target(task)
    best = perfect(task, target)
    blurred = [best.lerp(perfect(task, random_target(task, seed=9)), share) for share in (0.0, 0.3, 0.6)]
    found = [float(loss(task, logits, target)) for logits in blurred]
    assert found == sorted(set(found))
    assert found[0] < 2e-3


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_loss__decreases_along_its_gradient(task: Task) -> None:
    target = random_target(task)
    logits = (perfect(task, random_target(task, seed=3)) + 0.1).requires_grad_()
    first = loss(task, logits, target)
    first.backward()
    assert logits.grad is not None
    step = 1e-3 / logits.grad.norm()
    assert loss(task, (logits - step * logits.grad).detach(), target) < first


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_imitation__is_least_where_the_teacher_is_copied_and_has_a_gradient_elsewhere(task: Task) -> None:
    taught, other = (perfect(task, random_target(task, seed)) / 4 for seed in (0, 9))
    found = [float(task.distillation_loss(taught.lerp(other, share), taught)) for share in (0.0, 0.3, 0.6)]
    assert found == sorted(set(found))
    assert found[0] < 2e-3
    logits = other.clone().requires_grad_()
    loss = task.distillation_loss(logits, taught)
    loss.backward()
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert logits.grad is not None
    step = 1e-3 / logits.grad.norm()
    assert task.distillation_loss((logits - step * logits.grad).detach(), taught) < loss


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_loss__of_a_target_without_a_known_pixel_is_zero_with_a_gradient(task: Task) -> None:
    target = random_target(task)[:, ..., :1, :].expand_as(random_target(task))
    logits = torch.rand(2, task.out_channels, 8, 12, generator=generator()).requires_grad_()
    value = loss(task, logits, target)
    value.backward()
    assert value == 0
    assert logits.grad is not None
    assert logits.grad.count_nonzero() == 0


ADDITIVE: dict[str, Task] = {
    "valid pixels": ALL["segmentation"],
    "class weights": Segmentation(classes=CLASSES, class_weights=(0.5, 2.0, 7.0)),
    "all pixels": Segmentation(classes=CLASSES, denominator="all", class_weights=(0.5, 2.0, 7.0)),
    "disparity": Depth(quantity="disparity", gradient_weight=0.5),
    "relative depth": Depth(quantity="relative_depth", gradient_weight=0.5),
    "values": ALL["regression"],
    "normals": ALL["normals"],
}


@pytest.mark.parametrize("task", ADDITIVE.values(), ids=ADDITIVE)
def test_count__weights_the_losses_of_parts_so_that_they_make_that_of_the_whole(task: Task) -> None:
    target = torch.cat([random_target(task), random_target(task, seed=5)])
    nothing = random_target(task)[0, ..., :1, :]
    target[0, ..., :5, :] = nothing  # parts of different counts, and one image without a known pixel
    target[3] = nothing.expand_as(target[3])
    logits = torch.randn(4, task.out_channels, 8, 12, generator=generator(3))
    parts = [slice(0, 1), slice(1, 3), slice(3, 4)]
    found = torch.stack([loss(task, logits[part], target[part]) for part in parts])
    counts = torch.stack([task.count(target[part]) for part in parts])
    assert (counts.dtype, task.count(target).shape) == (torch.float32, ())
    torch.testing.assert_close(counts.sum(), task.count(target))
    torch.testing.assert_close((found * counts).sum() / counts.sum(), loss(task, logits, target))


def test_count__of_metres_is_that_of_the_valid_pixels() -> None:
    target = random_target(Depth())
    assert Depth().count(target) == 2 * 7 * 12


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_count__of_a_target_without_a_known_pixel_is_zero(task: Task) -> None:
    target = random_target(task)[:, ..., :1, :].expand_as(random_target(task))
    assert task.count(target) == 0


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_loss__resizes_the_logits_to_the_target_as_told(task: Task, align_corners: bool) -> None:
    target = random_target(task)
    small = torch.rand(2, task.out_channels, 4, 6, generator=generator()) + 0.5
    full = F.interpolate(small, size=(8, 12), mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(loss(task, small, target, align_corners=align_corners), loss(task, full, target))


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_headline__ranks_a_perfect_prediction_first(task: Task) -> None:
    name, higher_is_better = task.headline
    target = random_target(task)
    figures = []
    for seed in (0, 9):
        metrics = task.new_metrics()
        for image, truth in zip(perfect(task, random_target(task, seed)), target, strict=True):
            metrics.update(task.decode(image, (8, 12), align_corners=False)[None], truth[None])
        figures.append(metrics.compute()[name])
    assert (figures[0] > figures[1]) == higher_is_better
    assert figures[0] == pytest.approx(1.0 if higher_is_better else 0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("segmentation", (9, 13), torch.uint8),
        ("metric depth", (9, 13), torch.float32),
        ("disparity", (9, 13), torch.float32),
        ("regression", (1, 9, 13), torch.float32),
        ("normals", (3, 9, 13), torch.float32),
    ],
)
def test_decode__gives_one_image_at_the_size_asked_for(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    logits = torch.rand(ALL[name].out_channels, 4, 6, generator=generator())
    decoded = ALL[name].decode(logits, (9, 13), align_corners=True)
    assert (tuple(decoded.shape), decoded.dtype) == (shape, dtype)


@pytest.mark.parametrize("task", ALL.values(), ids=ALL)
def test_colourise__gives_a_picture_of_what_decode_gave(task: Task) -> None:
    decoded = task.decode(perfect(task, random_target(task))[0], (9, 13), align_corners=False)
    picture = task.colourise(decoded.numpy())
    assert (picture.shape, picture.dtype) == ((9, 13, 3), np.uint8)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1


def test_segmentation__reads_labels_of_its_own_names_as_they_are() -> None:
    labels = torch.tensor([[0, 2, 255]])
    target = ALL["segmentation"].read_target(Targets(labels=labels), ClassTable(CLASSES))
    assert target is not None
    assert target.tolist() == [[0, 2, 255]]
    assert target.dtype == torch.int64


def test_segmentation__reads_labels_through_the_view_with_its_names() -> None:
    table = ClassTable(("cat", "dog", "oak"), views={"classes2": (("animal", "plant"), (0, 255, 1))})
    task = Segmentation(classes=("animal", "plant"))
    target = task.read_target(Targets(labels=torch.tensor([[0, 1, 2, 255]])), table)
    assert target is not None
    assert target.tolist() == [[0, 255, 1, 255]]


def test_segmentation__gives_unknown_pixels_its_own_ignore_index() -> None:
    task = Segmentation(classes=CLASSES, ignore_index=-1)
    target = task.read_target(Targets(labels=torch.tensor([[1, 255, 7]])), ClassTable(CLASSES, ignore_index=7))
    assert target is not None
    assert target.tolist() == [[1, -1, -1]]
    assert loss(task, torch.zeros(1, 3, 1, 3), target[None]) == pytest.approx(np.log(3))


@pytest.mark.parametrize("ignored", [-1, -100, 300, 65535])
def test_segmentation__of_300_classes_knows_unknown_pixels(ignored: int) -> None:
    names = tuple(f"class {i}" for i in range(300))
    task = Segmentation(classes=names)
    assert task.ignore_index == 65535
    labels = torch.tensor([[0, 255, 299, ignored]])
    target = task.read_target(Targets(labels=labels), ClassTable(names, ignore_index=ignored))
    assert target is not None
    assert target.tolist() == [[0, 255, 299, 65535]]
    assert len(set(task.palette)) == 300


def test_segmentation__stores_a_background_that_it_has() -> None:
    assert "background" not in Segmentation(classes=("a", "b")).plain()
    task = Segmentation(classes=("a", "b"), background="a")
    assert task.plain()["background"] == "a"
    assert Segmentation.parse(task.plain()) == task


def test_segmentation__takes_labels_without_names_for_its_own() -> None:
    labels = torch.tensor([[0, 2, 255]])
    assert ALL["segmentation"].read_target(Targets(labels=labels), None) is labels


def test_segmentation__has_no_target_in_a_data_set_of_other_names_or_without_masks() -> None:
    labels = torch.tensor([[0]])
    assert ALL["segmentation"].read_target(Targets(labels=labels), ClassTable(("sky", "road", "tree"))) is None
    assert ALL["segmentation"].read_target(Targets(), ClassTable(CLASSES)) is None


def test_segmentation_loss__adds_each_auxiliary_loss_with_its_weight() -> None:
    task = Segmentation(classes=CLASSES, aux_weight=0.2)
    target = random_target(task)
    main, first, second = (
        torch.randn(2, 3, *size, generator=generator(i)) for i, size in enumerate([(8, 12), (4, 6), (2, 3)])
    )
    together = loss(task, main, target, first, second)
    expected = loss(task, main, target) + 0.2 * (loss(task, first, target) + loss(task, second, target))
    torch.testing.assert_close(together, expected)


def test_segmentation_loss__is_torchs_cross_entropy_over_valid_or_all_pixels() -> None:
    target = random_target(ALL["segmentation"])
    logits = torch.randn(2, 3, 8, 12, generator=generator())
    valid, over_all = (
        loss(Segmentation.parse({"classes": CLASSES, "denominator": denominator}), logits, target)
        for denominator in ("valid", "all")
    )
    torch.testing.assert_close(valid, F.cross_entropy(logits, target, ignore_index=255))
    torch.testing.assert_close(over_all, valid * 7 / 8)  # one row of eight is ignored


def test_segmentation_loss__adds_lovasz_with_its_weight() -> None:
    target, logits = random_target(ALL["segmentation"]), torch.randn(2, 3, 8, 12, generator=generator())
    none, one, two = (loss(Segmentation(classes=CLASSES, lovasz_weight=w), logits, target) for w in (0.0, 1.0, 2.0))
    assert one > none
    torch.testing.assert_close(two - none, 2 * (one - none))


SEGMENTATION_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": losses.cross_entropy,
    "ohem": lambda logits, target: losses.ohem(logits, target, threshold=0.4, min_kept=3),
    "dice": losses.dice,
    "lovasz": losses.lovasz_softmax,
}
HARD = {"ohem_threshold": 0.4, "ohem_min_kept": 3}
DEPTH_TERMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "silog": lambda values, target, mask: losses.silog(values, target, variance_focus=0.5),
    "l1": losses.l1,
    "berhu": losses.berhu,
    "gradient": lambda values, target, mask: losses.gradient_matching(
        values.log(), torch.where(mask, target, 1).log(), mask, scales=2
    ),
}
REGRESSION_TERMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "l1": losses.l1,
    "berhu": losses.berhu,
    "cosine": lambda values, target, mask: losses.cosine(values, target),
}


@pytest.mark.parametrize("names", [("ohem",), ("dice",), ("lovasz",), ("cross_entropy", "dice"), SEGMENTATION_TERMS])
def test_segmentation_loss__is_the_weighted_sum_of_the_losses_chosen(names: Iterable[str]) -> None:
    target, logits = random_target(ALL["segmentation"]), torch.randn(2, 3, 8, 12, generator=generator())
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    facts = {f"{name}_weight": weights.get(name, 0.0) for name in SEGMENTATION_TERMS}
    expected = sum(weight * SEGMENTATION_TERMS[name](logits, target) for name, weight in weights.items())
    found = loss(Segmentation.parse({"classes": CLASSES, **HARD, **facts}), logits, target)
    torch.testing.assert_close(found, expected)


def test_segmentation_loss__weighs_classes_in_ohem_too() -> None:
    target, logits = random_target(ALL["segmentation"]), torch.randn(2, 3, 8, 12, generator=generator())
    facts = {"classes": CLASSES, "class_weights": (1.0, 2.0, 9.0), "cross_entropy_weight": 0, "ohem_weight": 1, **HARD}
    expected = losses.ohem(logits, target, threshold=0.4, min_kept=3, class_weights=torch.tensor([1.0, 2.0, 9.0]))
    torch.testing.assert_close(loss(Segmentation.parse(facts), logits, target), expected)


@pytest.mark.parametrize("names", [("silog",), ("l1",), ("berhu",), ("gradient",), DEPTH_TERMS])
def test_depth_loss__is_the_weighted_sum_of_the_losses_chosen(names: Iterable[str]) -> None:
    target, values = random_target(Depth()), torch.rand(2, 1, 8, 12, generator=generator()) + 0.5
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    facts = {f"{name}_weight": weights.get(name, 0.0) for name in DEPTH_TERMS}
    expected = sum(w * DEPTH_TERMS[name](values[:, 0], target, target > 0) for name, w in weights.items())
    found = loss(Depth.parse({"variance_focus": 0.5, "gradient_scales": 2, **facts}), values, target)
    torch.testing.assert_close(found, expected)


def test_depth_loss__learns_from_the_few_points_of_a_laser_scanner() -> None:
    points = torch.rand(2, 8, 12, generator=generator(4)) < 0.05
    target = torch.where(points, random_target(Depth()) + 1, 0.0)
    values = torch.rand(2, 1, 8, 12, generator=generator()).add(0.5).requires_grad_()
    found = loss(Depth(silog_weight=0, berhu_weight=1), values, target)
    found.backward()
    torch.testing.assert_close(found, losses.berhu(values[:, 0], target, points))
    assert values.grad is not None
    assert values.grad[:, 0].ne(0).equal(points)


def test_depth_loss__of_disparity_leaves_out_the_share_of_errors_that_is_trimmed() -> None:
    target, values = random_target(Depth()), torch.rand(2, 1, 8, 12, generator=generator())
    mask = target > 0
    inverse = torch.where(mask, 1 / target, 0.0)
    expected = 2 * losses.scale_shift_invariant(values[:, 0], inverse, mask, trim=0.3)
    found = loss(Depth(quantity="disparity", trim=0.3, scale_shift_weight=2), values, target)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("names", [("l1",), ("berhu",), ("cosine",), REGRESSION_TERMS])
def test_regression_loss__is_the_weighted_sum_of_the_losses_chosen(names: Iterable[str]) -> None:
    task = Regression(channels=("a", "b"))
    target, values = random_target(task), torch.randn(2, 2, 8, 12, generator=generator())
    weights = {name: 0.5 + i for i, name in enumerate(names)}
    facts = {f"{name}_weight": weights.get(name, 0.0) for name in REGRESSION_TERMS}
    mask = target.isfinite().all(1)
    expected = sum(w * REGRESSION_TERMS[name](values, target, mask) for name, w in weights.items())
    torch.testing.assert_close(loss(Regression.parse({"channels": ("a", "b"), **facts}), values, target), expected)


def test_regression_loss__compares_unit_vectors_at_length_one_and_leaves_zeros_out() -> None:
    task = Regression(channels=("x", "y", "z"), unit_vectors=True, cosine_weight=0, l1_weight=1)
    target, values = random_target(task), torch.randn(2, 3, 8, 12, generator=generator())
    target[:, :, 3] = 0
    known = target.isfinite().all(1) & target.ne(0).any(1)
    assert task.count(target) == known.sum() == 2 * 6 * 12
    torch.testing.assert_close(loss(task, values, target), losses.l1(F.normalize(values, dim=1), target, known))


def test_segmentation__colours_labels_by_its_palette() -> None:
    task = Segmentation(classes=("a", "b"), palette=((1, 2, 3), (4, 5, 6)))
    assert task.colourise(np.array([[1, 0]], np.uint8)).tolist() == [[[4, 5, 6], [1, 2, 3]]]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": ("a", "b", "a")}, r"classes holds a name twice: \('a', 'b', 'a'\)"),
        ({"classes": ()}, "classes: Tuple should have at least 1 item"),
        ({"classes": ("a", "b"), "ignore_index": 1}, "ignore_index 1 is also the id of class 'b'"),
        ({"classes": ("a", "b"), "palette": ((0, 0, 0),)}, "palette has 1 colours for 2 classes"),
        ({"classes": ("a", "b"), "background": "c"}, "background is 'c', which is no class; name one of them"),
        ({"classes": tuple(map(str, range(70_000)))}, "there are 70000 classes, and up to"),
        ({"classes": ("a",), "lovasz": 1.0}, "lovasz: unknown key; did you mean 'lovasz_weight'"),
        ({"classes": ("a",), "cross_entropy_weight": 0}, "are all 0, but a head needs a loss; set one of them"),
        ({"classes": ("a", "b"), "class_weights": (1.0, -1.0)}, "class_weights.1: Input should be greater than or"),
    ],
)
def test_segmentation__refuses(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Segmentation.parse(facts)


def test_depth__reads_metres_and_drops_what_is_out_of_range() -> None:
    task = Depth(min_depth_m=0.5, max_depth_m=10.0)
    target = task.read_target(Targets(depth=torch.tensor([[0.0, 0.4, 0.6, 9.9, 10.0, 80.0]])), None)
    assert target is not None
    torch.testing.assert_close(target, torch.tensor([[0.0, 0.0, 0.6, 9.9, 0.0, 0.0]]))


def test_depth__has_no_target_without_a_map() -> None:
    assert Depth().read_target(Targets(), None) is None


def test_depth_loss__of_metres_knows_the_scale() -> None:
    target = random_target(Depth())
    right = perfect(Depth(), target)
    assert loss(Depth(), 1.3 * right, target) > loss(Depth(), right, target) + 0.05


def test_depth_loss__of_disparity_knows_neither_scale_nor_shift() -> None:
    task = Depth(quantity="disparity", gradient_weight=0.5)
    target = random_target(task)
    values = torch.rand(2, 1, 8, 12, generator=generator())
    torch.testing.assert_close(loss(task, 7 * values - 3, target), loss(task, values, target), rtol=1e-4, atol=1e-5)


def test_depth_loss__of_disparity_is_larger_for_depth_in_its_place() -> None:
    task = Depth(quantity="disparity")
    target = random_target(task)
    assert loss(task, target[:, None], target) > 0.5


@pytest.mark.parametrize("quantity", ["depth", "disparity", "relative_depth"])
def test_depth_loss__adds_gradient_matching_with_its_weight(quantity: str) -> None:
    target, values = random_target(Depth()), torch.rand(2, 1, 8, 12, generator=generator()) + 0.5
    tasks = (Depth.parse({"quantity": quantity, "gradient_weight": weight}) for weight in (0.0, 1.0, 2.0))
    none, one, two = (loss(task, values, target) for task in tasks)
    assert one > none
    torch.testing.assert_close(two - none, 2 * (one - none))


def test_depth_loss__adds_the_error_in_metres_with_its_weight() -> None:
    target = random_target(Depth())
    right = perfect(Depth(), target)
    plain, weighted = (loss(Depth(l1_weight=weight), right + 0.25, target) for weight in (0.0, 2.0))
    torch.testing.assert_close(weighted - plain, torch.tensor(0.5), rtol=0, atol=1e-5)


def test_depth_loss__takes_values_of_zero_and_below() -> None:
    target = random_target(Depth())
    values = torch.full((2, 1, 8, 12), -1.0, requires_grad=True)
    value = loss(Depth(gradient_weight=1.0, l1_weight=1.0), values, target)
    value.backward()
    assert value.isfinite()
    assert values.grad is not None
    assert values.grad.isfinite().all()


@pytest.mark.parametrize(("quantity", "near"), [("depth", 1.0), ("disparity", 9.0), ("relative_depth", 1.0)])
def test_depth__colours_near_things_brighter(quantity: str, near: float) -> None:
    task = Depth.parse({"quantity": quantity})
    ramp = np.linspace(1, 9, 32, dtype=np.float32)[None]
    brightness = task.colourise(ramp).sum(axis=2)[0].astype(int)
    nearest, farthest = (0, -1) if near == 1.0 else (-1, 0)
    assert brightness[nearest] > brightness[farthest] + 200


def test_depth__has_metres_and_disparity_no_unit() -> None:
    assert (Depth().unit, Depth(quantity="disparity").unit) == ("m", "")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"min_depth_m": 10.0, "max_depth_m": 10.0}, r"min_depth_m 10.0 must be below max_depth_m 10.0"),
        ({"min_depth_m": 0.0}, "min_depth_m: Input should be greater than 0"),
        ({"quantity": "metres"}, "quantity: Input should be 'depth', 'disparity' or 'relative_depth'"),
        ({"max_depth_m": float("inf")}, "max_depth_m: Input should be a finite number"),
        ({"trim": 1.0}, "trim: Input should be less than 1"),
        ({"quantity": "disparity", "berhu_weight": 1}, "compare metres, but disparity has none; set them to 0, or"),
        ({"silog_weight": 0}, "silog_weight, l1_weight, berhu_weight and gradient_weight are all 0, but a head needs"),
        (
            {"quantity": "disparity", "scale_shift_weight": 0},
            "scale_shift_weight and gradient_weight are all 0, but a head needs a loss; set one of them",
        ),
    ],
)
def test_depth__refuses(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Depth.parse(facts)


def test_regression__reads_values_as_they_are() -> None:
    values = torch.tensor([[[1.0, torch.nan]]])
    assert Regression(channels=("height",)).read_target(Targets(values=values), None) is values
    assert Regression(channels=("height",)).read_target(Targets(), None) is None


def test_regression_loss__is_the_mean_error_of_the_known_pixels() -> None:
    target = torch.tensor([[[[1.0, 2.0, torch.nan]], [[0.0, 0.0, 1.0]]]])
    assert loss(Regression(channels=("a", "b")), torch.zeros(1, 2, 1, 3), target) == pytest.approx(3 / 4)


def test_regression_loss__refuses_a_target_of_other_channels() -> None:
    with pytest.raises(ShapeError, match=r"\(1, 2, 4, 4\) and \(1, 3, 4, 4\), but equal shapes are needed"):
        loss(Regression(channels=("a", "b")), torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))


def test_unit_vectors__are_normalised_and_their_length_is_not_learnt() -> None:
    task = ALL["normals"]
    logits, target = torch.randn(2, 3, 8, 12, generator=generator()), random_target(task)
    decoded = task.decode(logits[0], (8, 12), align_corners=False)
    torch.testing.assert_close(decoded.norm(dim=0), torch.ones(8, 12))
    torch.testing.assert_close(loss(task, 5 * logits, target), loss(task, logits, target))


def test_values__are_decoded_without_a_change() -> None:
    logits = 10 * torch.randn(1, 4, 6, generator=generator())
    torch.testing.assert_close(ALL["regression"].decode(logits, (4, 6), align_corners=False), logits, **EXACT)


@pytest.mark.parametrize("num_channels", [1, 2, 3, 5])
def test_regression__colours_any_number_of_channels(num_channels: int) -> None:
    values = np.random.default_rng(0).normal(size=(num_channels, 4, 6)).astype(np.float32)
    values[:, 0, 0] = np.nan
    picture = Regression(channels=tuple(f"c{i}" for i in range(num_channels))).colourise(values)
    assert picture.shape == (4, 6, 3)
    assert (picture.min(), picture.max()) == (0, 255)


def test_unit_vectors__have_a_colour_that_does_not_depend_on_the_photo() -> None:
    up = np.zeros((3, 1, 2), np.float32)
    up[2] = 1.0
    assert ALL["normals"].colourise(up).tolist() == [[[128, 128, 255]] * 2]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"channels": ()}, "channels: Tuple should have at least 1 item"),
        ({"channels": ("a",), "l1_weight": 0}, "are all 0, but a head needs a loss; set one of them"),
        ({"channels": ("a",), "cosine_weight": 1}, "compares directions, but one channel has none; set it to 0"),
        (
            {"channels": ("x", "y"), "unit_vectors": True},
            r"unit_vectors needs 3 channels, the components x, y and z, but channels has \('x', 'y'\)",
        ),
    ],
)
def test_regression__refuses(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Regression.parse(facts)
