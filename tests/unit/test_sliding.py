import torch
from torch import Tensor

from densevit.inference.sliding import Window, anchored_windows, clamped_windows, slide
from densevit.inference.tta import average_probabilities, log_probabilities
from tests.tolerances import SAME_MATHS


def starts(windows: list[Window]) -> list[tuple[int, int]]:
    return [(rows.start, columns.start) for rows, columns in windows]


def test_clamped_windows__push_the_last_back_inside() -> None:
    windows = clamped_windows((70, 64), (64, 64), (48, 48))

    assert windows == [(slice(0, 64), slice(0, 64)), (slice(6, 70), slice(0, 64))]


def test_clamped_windows__are_one_smaller_window_for_a_small_image() -> None:
    assert clamped_windows((50, 75), (64, 64), (48, 48)) == [
        (slice(0, 50), slice(0, 64)),
        (slice(0, 50), slice(11, 75)),
    ]


def test_clamped_windows__cover_every_pixel() -> None:
    seen = torch.zeros(123, 257)
    for rows, columns in clamped_windows((123, 257), (64, 48), (41, 32)):
        assert (rows.stop - rows.start, columns.stop - columns.start) == (64, 48)
        seen[rows, columns] += 1

    assert seen.min() >= 1


def test_anchored_windows__end_with_the_image() -> None:
    assert starts(anchored_windows((64, 160), (64, 64), (48, 48))) == [(0, 0), (0, 48), (0, 96)]
    assert starts(anchored_windows((64, 161), (64, 64), (48, 48))) == [(0, 0), (0, 48), (0, 96), (0, 97)]


def test_slide__averages_where_windows_overlap() -> None:
    image = torch.arange(10.0).view(1, 1, 1, 10)
    values = iter((1.0, 4.0))

    def network(crop: Tensor) -> Tensor:
        return torch.full_like(crop, next(values))

    merged = slide(network, image, [(slice(0, 1), slice(0, 6)), (slice(0, 1), slice(4, 10))])

    assert merged.flatten().tolist() == [1, 1, 1, 1, 2.5, 2.5, 4, 4, 4, 4]


def test_slide__equals_one_pass_of_a_pointwise_network() -> None:
    image = torch.randn(2, 3, 40, 50, generator=torch.Generator().manual_seed(0))

    merged = slide(lambda x: x**2, image, clamped_windows((40, 50), (16, 16), (11, 11)))

    torch.testing.assert_close(merged, image**2, **SAME_MATHS)


def test_average_probabilities__mirrors_back() -> None:
    image = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))

    both = average_probabilities([(image, False), (image, True)], lambda x: x)

    torch.testing.assert_close(both, image[0].softmax(dim=0), **SAME_MATHS)


def test_average_probabilities__sum_to_one() -> None:
    views = [(torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed)), False) for seed in range(3)]

    total = average_probabilities(views, lambda x: x).sum(dim=0)

    torch.testing.assert_close(total, torch.ones(4, 5), **SAME_MATHS)


def test_log_probabilities__give_the_probabilities_back() -> None:
    probabilities = torch.tensor([[0.25], [0.75], [0.0]])

    torch.testing.assert_close(
        log_probabilities(probabilities.clone()).softmax(dim=0), probabilities, rtol=1e-6, atol=1e-30
    )
