"""What the C kernels are given: nothing that makes them read beyond a tensor, and no logits that are not finite."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.errors import DataError, ShapeError
from densevit.kernels import attention
from densevit.kernels.build import checked
from densevit.kernels.cpu_training import attention as training_attention
from densevit.kernels.cpu_training import linear
from densevit.tasks import losses
from densevit.upsampling import loss as fused
from densevit.upsampling import native, upsample_cross_entropy, upsample_decoded
from tests.needs import needs_attention, needs_compiler, needs_training_linear

NAN, INFINITY = math.nan, math.inf


@pytest.fixture(params=[pytest.param("kernel", marks=needs_compiler), "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms, one after the other."""
    if request.param == "torch":
        monkeypatch.setattr(native, "load", lambda: None)
        monkeypatch.setattr(fused, "load", lambda: None)
    return str(request.param)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = 5) -> Tensor:
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(1))


def entropy_sum(logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    return upsample_cross_entropy(logits, target, align_corners=False, class_weights=weights)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16, torch.bool, torch.float32])
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.ohem, losses.dice, losses.lovasz_softmax])
def test_target__of_another_type_is_refused_by_name(form: str, loss: Callable[..., Tensor], dtype: torch.dtype) -> None:
    with pytest.raises(ShapeError) as caught:
        loss(random(2, 5, 8, 8), labels(2, 8, 8).to(dtype))

    assert str(caught.value) == f"the target is {dtype} but class ids are torch.int64; pass target.long()"


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.ohem, losses.dice, losses.lovasz_softmax])
@pytest.mark.parametrize("label", [5, -1, 254, -(2**40)])
def test_target__with_an_unknown_class_is_refused_by_every_loss(
    form: str, loss: Callable[..., Tensor], label: int
) -> None:
    target = labels(2, 8, 8)
    target[1, 2, 3] = label

    with pytest.raises(DataError, match=f"^the target holds class {label} but there are 5 classes, 0 to 4;"):
        loss(random(2, 5, 8, 8), target)


@pytest.mark.parametrize("count", [0, 1, 4, 6])
@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.ohem])
def test_class_weights__of_another_length_are_refused(form: str, loss: Callable[..., Tensor], count: int) -> None:
    with pytest.raises(ShapeError) as caught:
        loss(random(2, 5, 8, 8), labels(2, 8, 8), class_weights=torch.ones(count))

    assert str(caught.value) == (
        f"class weights are torch.float32 ({count},) but there are 5 classes; give one real number for each"
    )


@pytest.mark.parametrize("weights", [torch.ones(5, 1), torch.tensor(1.0), torch.ones(5, dtype=torch.complex64)])
def test_class_weights__of_another_form_are_refused(form: str, weights: Tensor) -> None:
    with pytest.raises(ShapeError, match="one real number for each"):
        entropy_sum(random(2, 5, 8, 8), labels(2, 8, 8), weights)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_class_weights__of_any_real_type_and_stride_count_the_same(form: str, dtype: torch.dtype) -> None:
    logits, target = random(2, 5, 4, 4), labels(2, 8, 8)
    weights = torch.tensor([1.0, 2.0, 0.0, 4.0, 3.0])
    strided = weights.to(dtype).repeat_interleave(2)[::2]

    torch.testing.assert_close(entropy_sum(logits, target, strided), entropy_sum(logits, target, weights))


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        ((2, 5, 4, 4), (3, 8, 8)),
        ((5, 4, 4), (1, 8, 8)),
        ((2, 5, 4, 4), (2, 5, 8, 8)),
        ((2, 5, 0, 4), (2, 8, 8)),
        ((2, 0, 4, 4), (2, 8, 8)),
        ((2, 5, 4, 4), (2, 0, 8)),
    ],
)
def test_sizes__that_do_not_belong_together_are_refused(
    form: str, logits: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError):
        entropy_sum(torch.zeros(logits), torch.zeros(target, dtype=torch.int64))


def test_sum__over_an_empty_batch_is_zero(form: str) -> None:
    logits = torch.zeros(0, 5, 4, 4, requires_grad=True)
    total = entropy_sum(logits, torch.zeros(0, 8, 8, dtype=torch.int64))
    total.backward()

    assert total == 0


def test_devices__that_differ_are_refused(form: str) -> None:
    with pytest.raises(ShapeError) as caught:
        entropy_sum(random(2, 5, 4, 4), labels(2, 8, 8).to("meta"))

    assert str(caught.value) == "the target is on meta and the logits are on cpu; move them to one device"


def test_tensors__of_any_strides_count_the_same(form: str) -> None:
    logits, target = random(2, 5, 4, 6), labels(2, 8, 9)
    expected = entropy_sum(logits, target)
    wide, wide_target = random(2, 5, 8, 12), labels(2, 16, 9)
    wide[:, :, ::2, 1::2], wide_target[:, ::2] = logits, target

    torch.testing.assert_close(entropy_sum(wide[:, :, ::2, 1::2], wide_target[:, ::2]), expected)
    flipped = torch.imag(torch.complex(torch.zeros_like(logits), -logits).conj())  # its sign is a flag
    assert flipped.is_neg()
    torch.testing.assert_close(entropy_sum(flipped, target), expected)
    found = upsample_decoded(flipped[0], (8, 9), align_corners=False).labels
    assert torch.equal(found, upsample_decoded(logits[0], (8, 9), align_corners=False).labels)


@pytest.mark.parametrize(
    ("shape", "size"), [((0, 4, 4), (8, 8)), ((5, 0, 4), (8, 8)), ((5, 4, 4), (0, 8)), ((1, 5, 4, 4), (8, 8))]
)
def test_decoding__of_nothing_is_refused(form: str, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=r"^logits are torch\.float32"):
        upsample_decoded(torch.zeros(shape), size, align_corners=False)


def test_decoding__of_integers_is_refused(form: str) -> None:
    with pytest.raises(ShapeError, match=r"^logits are torch\.int64 \(5, 4, 4\)"):
        upsample_decoded(labels(5, 4, 4), (8, 8), align_corners=False)


@needs_compiler
@pytest.mark.parametrize(
    "outputs",
    [
        {"labels": torch.zeros(8, 8, dtype=torch.int64)},
        {"labels": torch.zeros(8, 16, dtype=torch.uint8)[:, ::2]},
        {"labels": torch.zeros(8, 8, dtype=torch.uint8, device="meta")},
        {"scores": torch.zeros(8, 8, dtype=torch.float64)},
        {"scores": torch.zeros(4, 8)},
        {"entropy": torch.zeros(8, 8).T[:4]},
    ],
)
def test_decoding__into_other_outputs_is_refused(outputs: dict[str, Tensor]) -> None:
    given = {"labels": torch.zeros(8, 8, dtype=torch.uint8), "scores": None, "entropy": None} | outputs
    with pytest.raises(ShapeError, match="a kernel was given"):
        native.decode(random(5, 4, 4), align_corners=False, **given)


@needs_compiler
def test_decoding__of_300_classes_does_not_fit_bytes() -> None:
    target = torch.zeros(4, 4, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"takes torch\.int32"):
        native.decode(random(300, 4, 4), align_corners=False, labels=target, scores=None, entropy=None)


def test_checked__says_what_came_and_what_is_taken() -> None:
    given = torch.zeros(2, 3)
    assert checked(given, torch.float32, 2, 3) is given
    assert checked(given.T, torch.float32, 3, 2, contiguous=False).shape == (3, 2)
    with pytest.raises(ShapeError) as caught:
        checked(given.T, torch.float32, 3, 2)

    assert str(caught.value) == (
        "a kernel was given torch.float32 (3, 2) on cpu but takes torch.float32 (3, 2), contiguous on the CPU; "
        "pass such a tensor"
    )


@needs_attention
@pytest.mark.parametrize(
    ("query", "key"), [((1, 2, 9, 16), (1, 2, 4, 16)), ((1, 2, 9, 16), (1, 1, 9, 16)), ((2, 9, 16), (2, 9, 16))]
)
def test_attention__of_other_sizes_is_left_to_torch(query: tuple[int, ...], key: tuple[int, ...]) -> None:
    q, k = random(*query), random(*key)
    with torch.inference_mode():
        assert attention.attend(q, k, k) is None
        with pytest.raises(ShapeError):
            torch.ops.densevit.attention(q, k, k)


@needs_attention
def test_attention_operator__refuses_another_type() -> None:
    q = random(1, 2, 9, 16).double()
    with pytest.raises(ShapeError, match=r"was given torch\.float64"):
        torch.ops.densevit.attention(q, q, q)


@needs_attention
def test_training_attention__refuses_other_tensors() -> None:
    qkv = random(2, 9, 3 * 32)
    out, sums = training_attention.forward(qkv, 2)
    with pytest.raises(ShapeError):
        training_attention.forward(random(2, 9, 6 * 32)[..., ::2], 2)
    for changed in ((out[:, :8], qkv, out, sums), (out.double(), qkv, out, sums), (out, qkv, out, sums[:, :1])):
        with pytest.raises(ShapeError):
            training_attention.backward(*changed, 2)


@needs_training_linear
def test_training_products__refuse_other_tensors() -> None:
    x, weight = random(300, 32), random(16, 32)
    for odd in (x.double(), random(32, 300).T):
        with pytest.raises(ShapeError):
            linear.product(odd, weight, None)
    with pytest.raises(ShapeError):
        linear.product(x, weight, torch.ones(8))
    with pytest.raises(ShapeError):
        linear.weight_gradients(random(299, 16), x, (True, True))
    with pytest.raises(ShapeError):
        linear.gelu_gradient(x, random(300, 16))


def test_product__of_no_inputs_is_the_bias() -> None:
    assert torch.equal(linear.product(torch.ones(300, 0), torch.ones(16, 0), torch.ones(16)), torch.ones(300, 16))


# Logits that are not finite


def spoilt(classes: int, **values: float) -> Tensor:
    """Logits (K, 4, 4) of which some are replaced."""
    logits = random(classes, 4, 4, seed=classes)
    for place, value in values.items():
        index = {"first": (0, 0, 0), "middle": (classes // 2, 1, 2), "last": (-1, 1, 2), "whole": (classes // 3,)}[
            place
        ]
        logits[index] = value
    return logits


CASES = [
    {"middle": NAN},
    {"first": NAN, "last": NAN},
    {"middle": NAN, "last": NAN},
    {"whole": NAN},
    {"middle": INFINITY},
    {"middle": INFINITY, "last": NAN},
    {"first": -INFINITY, "middle": -INFINITY},
    {"whole": -INFINITY},
    {"middle": -INFINITY, "last": NAN},
    {"middle": 3e38, "last": -3.3e38},
]


@pytest.mark.parametrize("values", CASES)
@pytest.mark.parametrize("classes", [2, 5, 19, 300])
def test_decoding__of_any_logits_is_torch_s(form: str, values: dict[str, float], classes: int) -> None:
    logits = spoilt(classes, **values)
    found = upsample_decoded(logits, (4, 4), align_corners=False, scores=True, entropy=True)

    scores = logits.softmax(0)
    assert found.scores is not None
    assert found.entropy is not None
    assert torch.equal(found.labels.long(), logits.argmax(0))
    torch.testing.assert_close(found.scores, scores.amax(0), equal_nan=True)
    expected = torch.special.entr(scores).sum(0) / math.log(classes)
    torch.testing.assert_close(found.entropy, expected, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("value", [NAN, -INFINITY])
def test_class__without_a_number_stays_so_at_any_size(form: str, value: float, align_corners: bool) -> None:
    found = upsample_decoded(spoilt(5, whole=value), (9, 11), align_corners=align_corners, scores=True, entropy=True)

    assert found.scores is not None
    assert found.entropy is not None
    if value == -INFINITY:
        assert not (found.labels == 1).any()
        assert found.scores.isfinite().all()
        assert found.entropy.isfinite().all()
    else:
        assert (found.labels == 1).all()
        assert found.scores.isnan().all()
        assert found.entropy.isnan().all()


def test_pixel__without_any_class_has_no_score(form: str) -> None:
    found = upsample_decoded(torch.full((5, 2, 2), -INFINITY), (3, 3), align_corners=False, scores=True)

    assert found.scores is not None
    assert found.scores.isnan().all()
    assert (found.labels == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("values", CASES[:-1])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_cross_entropy__of_any_logits_is_torch_s(
    form: str, values: dict[str, float], label: int, dtype: torch.dtype
) -> None:
    logits = spoilt(5, **values)[None].to(dtype).requires_grad_()
    target = torch.full((1, 4, 4), label)
    reference = logits.detach().clone().requires_grad_()
    total, expected = entropy_sum(logits, target), F.cross_entropy(reference, target, reduction="sum")
    total.backward()
    expected.backward()

    if NAN in values.values() or INFINITY in values.values():
        assert total.isnan() or total == expected == INFINITY
        return
    torch.testing.assert_close(total, expected)
    if expected.isfinite():
        torch.testing.assert_close(logits.grad, reference.grad)


@pytest.mark.parametrize("align_corners", [False, True])
def test_cross_entropy__of_a_class_that_is_switched_off_is_that_of_the_others(form: str, align_corners: bool) -> None:
    logits, target = random(2, 5, 4, 6), labels(2, 9, 11, classes=4)
    off = logits.clone()
    off[:, 4] = -INFINITY
    off.requires_grad_()

    total = upsample_cross_entropy(off, target, align_corners=align_corners)
    total.backward()

    torch.testing.assert_close(total, upsample_cross_entropy(logits[:, :4], target, align_corners=align_corners))
    assert off.grad is not None
    assert off.grad.isfinite().all()
    assert (off.grad[:, 4] == 0).all()
    target[0, 0, 0] = 4
    assert upsample_cross_entropy(off.detach(), target, align_corners=align_corners) == INFINITY
