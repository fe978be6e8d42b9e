import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.types import Size
from densevit.upsampling import bands, native, upsample_entropy, upsample_labels, upsample_scores, upsample_values
from densevit.upsampling import plain as plain_form
from tests.tolerances import EXACT, SAME_MATHS

SIZES: list[tuple[Size, Size]] = [
    ((3, 4), (48, 64)),
    ((7, 5), (7, 5)),
    ((1, 1), (9, 13)),
    ((1, 6), (5, 31)),
    ((24, 32), (11, 17)),
    ((12, 9), (1, 1)),
    ((5, 8), (40, 3)),
    ((32, 43), (97, 130)),
]
FORMS = ["native", "torch"]
FUSED: list[Callable[..., Tensor]] = [upsample_labels, upsample_scores, upsample_entropy, upsample_values]


@pytest.fixture(params=FORMS, autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs with the C kernel and in plain torch."""
    if request.param == "torch":
        monkeypatch.setattr(native, "load", lambda: None)
    elif native.load() is None:
        pytest.skip("no C compiler here")
    return request.param


def random_logits(num_classes: int, size: Size, seed: int = 0) -> Tensor:
    """Logits (K, h, w) of a spread at which softmax is neither flat nor one-hot."""
    return 3 * torch.randn(num_classes, *size, generator=torch.Generator().manual_seed(seed))


def plain(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """(K, H, W): the form that these functions avoid; in float64, for torch computes positions in the tensor's type."""
    resized = F.interpolate(logits[None].double(), size=size, mode="bilinear", align_corners=align_corners)
    return resized[0].float()


def joined(logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    """The bands put together, (K, H, W)."""
    return torch.cat([band for _, band in bands(logits, size, align_corners=align_corners)]).permute(2, 0, 1)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_bands__equal_interpolate(old: Size, new: Size, align_corners: bool) -> None:
    logits = random_logits(5, old)
    torch.testing.assert_close(
        joined(logits, new, align_corners=align_corners), plain(logits, new, align_corners=align_corners), **SAME_MATHS
    )


@pytest.mark.parametrize("align_corners", [False, True])
def test_bands__equal_interpolate_for_random_sizes(align_corners: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    for seed in range(60):
        h, w, height, width = torch.randint(1, 60, (4,), generator=generator).tolist()
        logits = random_logits(3, (h, w), seed)

        fused = joined(logits, (height, width), align_corners=align_corners)

        expected = plain(logits, (height, width), align_corners=align_corners)
        torch.testing.assert_close(fused, expected, **SAME_MATHS)


def test_bands__cover_every_row_once_and_hold_no_more_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_form, "BAND_VALUES", 4 * 30 * 5)

    found = list(bands(random_logits(5, (3, 4)), (22, 30), align_corners=False))

    assert [row for rows, _ in found for row in range(rows.start, rows.stop)] == list(range(22))
    assert [band.shape for _, band in found] == [(4, 30, 5)] * 5 + [(2, 30, 5)]


def test_bands__give_a_single_row_that_alone_exceeds_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_form, "BAND_VALUES", 1)
    assert [band.shape[0] for _, band in bands(random_logits(2, (2, 2)), (3, 8), align_corners=True)] == [1, 1, 1]


@pytest.mark.parametrize("function", FUSED)
def test_fused__is_the_same_whatever_the_bands(
    function: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = random_logits(6, (5, 7))
    whole = function(logits, (41, 37), align_corners=False)

    monkeypatch.setattr(plain_form, "BAND_VALUES", 500)

    torch.testing.assert_close(function(logits, (41, 37), align_corners=False), whole, **EXACT)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_labels__are_the_arg_max_of_the_plain_form(old: Size, new: Size, align_corners: bool) -> None:
    logits = random_logits(7, old)
    full = plain(logits, new, align_corners=align_corners)
    best, second = full.topk(2, dim=0).values
    clear = best - second > 1e-3  # rounding may decide the others

    labels = upsample_labels(logits, new, align_corners=align_corners)

    assert torch.equal(labels[clear].long(), full.argmax(dim=0)[clear])
    assert clear.float().mean() > 0.99 or clear.numel() < 100


@pytest.mark.parametrize(("num_classes", "dtype"), [(1, torch.uint8), (256, torch.uint8), (300, torch.int32)])
def test_labels__have_the_smallest_type_that_holds_them(num_classes: int, dtype: torch.dtype) -> None:
    logits = torch.zeros(num_classes, 2, 2)
    logits[-1] = 1.0

    labels = upsample_labels(logits, (5, 5), align_corners=False)

    assert labels.dtype == dtype
    assert labels.unique().tolist() == [num_classes - 1]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_scores__equal_the_plain_softmax(old: Size, new: Size, align_corners: bool) -> None:
    logits = random_logits(7, old)

    scores = upsample_scores(logits, new, align_corners=align_corners)

    expected = plain(logits, new, align_corners=align_corners).softmax(dim=0).amax(dim=0)
    torch.testing.assert_close(scores, expected, **SAME_MATHS)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("old", "new"), SIZES)
def test_entropy__equals_that_of_the_plain_softmax(old: Size, new: Size, align_corners: bool) -> None:
    logits = random_logits(7, old)

    entropy = upsample_entropy(logits, new, align_corners=align_corners)

    scores = plain(logits, new, align_corners=align_corners).softmax(dim=0)
    torch.testing.assert_close(entropy, -(scores * scores.log()).sum(dim=0) / math.log(7), **SAME_MATHS)


def test_entropy__is_one_for_equal_logits_and_zero_for_certain_ones() -> None:
    logits = torch.zeros(4, 1, 2)
    logits[0, 0, 1] = 1000.0  # exp would overflow

    entropy = upsample_entropy(logits, (1, 2), align_corners=False)

    torch.testing.assert_close(entropy, torch.tensor([[1.0, 0.0]]))


def test_one_class__is_certain_everywhere() -> None:
    logits = random_logits(1, (3, 3))
    assert torch.equal(upsample_scores(logits, (6, 6), align_corners=False), torch.ones(6, 6))
    assert torch.equal(upsample_entropy(logits, (6, 6), align_corners=False), torch.zeros(6, 6))


@pytest.mark.parametrize("function", [upsample_scores, upsample_entropy, upsample_values])
def test_fused__computes_bfloat16_logits_in_float32(function: Callable[..., Tensor]) -> None:
    logits = random_logits(3, (4, 4)).bfloat16()

    result = function(logits, (8, 8), align_corners=False)

    torch.testing.assert_close(result, function(logits.float(), (8, 8), align_corners=False), **EXACT)
    assert result.dtype == torch.float32


def test_values__keep_channels_first() -> None:
    values = random_logits(3, (4, 5))
    torch.testing.assert_close(
        upsample_values(values, (9, 8), align_corners=True), plain(values, (9, 8), align_corners=True), **SAME_MATHS
    )
