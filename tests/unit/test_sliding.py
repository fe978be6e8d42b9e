from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.inference.protocol_windows import Network, Window, anchored_starts, slide, window_slices
from densevit.inference.separable_resize import Resize
from densevit.inference.sliding_window import clamped_starts
from densevit.inference.tiled_logits import MaterializedLogits, full, whole
from densevit.inference.tta import TtaMean, average_probabilities, log_probabilities
from densevit.types import Size
from tests.tolerances import SAME_MATHS


def pixelwise(function: Callable[[Tensor], Tensor]) -> Network:
    """A network whose logits have the size of the image."""

    def resizes(grid: Size, size: Size) -> tuple[Resize, Resize]:
        return Resize(grid[0], size[0]), Resize(grid[1], size[1])

    return Network(function, resizes)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def starts(windows: list[Window]) -> list[tuple[int, int]]:
    return [(rows.start, columns.start) for rows, columns in windows]


def test_clamped_windows__push_the_last_back_inside() -> None:
    windows = window_slices(clamped_starts, (70, 64), (64, 64), (48, 48))

    assert windows == [(slice(0, 64), slice(0, 64)), (slice(6, 70), slice(0, 64))]


def test_clamped_windows__are_one_smaller_window_for_a_small_image() -> None:
    assert window_slices(clamped_starts, (50, 75), (64, 64), (48, 48)) == [
        (slice(0, 50), slice(0, 64)),
        (slice(0, 50), slice(11, 75)),
    ]


def test_clamped_windows__cover_every_pixel() -> None:
    seen = torch.zeros(123, 257)
    for rows, columns in window_slices(clamped_starts, (123, 257), (64, 48), (41, 32)):
        assert (rows.stop - rows.start, columns.stop - columns.start) == (64, 48)
        seen[rows, columns] += 1

    assert seen.min() >= 1


def test_anchored_windows__end_with_the_image() -> None:
    assert starts(window_slices(anchored_starts, (64, 160), (64, 64), (48, 48))) == [(0, 0), (0, 48), (0, 96)]
    assert starts(window_slices(anchored_starts, (64, 161), (64, 64), (48, 48))) == [(0, 0), (0, 48), (0, 96), (0, 97)]


def test_slide__averages_where_windows_overlap() -> None:
    image = torch.arange(10.0).view(1, 1, 1, 10)
    values = iter((1.0, 4.0))
    network = pixelwise(lambda crop: torch.full_like(crop, next(values)))

    merged = full(slide(network, image, [(slice(0, 1), slice(0, 6)), (slice(0, 1), slice(4, 10))]))

    assert merged.flatten().tolist() == [1, 1, 1, 1, 2.5, 2.5, 4, 4, 4, 4]


def test_slide__equals_one_pass_of_a_pointwise_network() -> None:
    image = noise(1, 3, 40, 50)

    merged = full(slide(pixelwise(lambda x: x**2), image, window_slices(clamped_starts, (40, 50), (16, 16), (11, 11))))

    torch.testing.assert_close(merged, image[0] ** 2, **SAME_MATHS)


def test_slide__resized_equals_resizing_the_whole() -> None:
    image = noise(1, 3, 40, 50)
    windows = window_slices(clamped_starts, (40, 50), (16, 16), (11, 11))
    merged = slide(pixelwise(lambda x: x[..., ::4, ::4]), image, windows)

    expected = F.interpolate(full(merged)[None], (93, 31), mode="bilinear", align_corners=False)[0]

    torch.testing.assert_close(full(merged.resized((93, 31))), expected, **SAME_MATHS)


def test_average_probabilities__mirrors_back() -> None:
    image = noise(3, 4, 5)

    both = average_probabilities([(MaterializedLogits(image), False), (MaterializedLogits(image.flip(-1)), True)])

    torch.testing.assert_close(both, image.softmax(dim=0), **SAME_MATHS)


def test_average_probabilities__sum_to_one() -> None:
    total = average_probabilities([(MaterializedLogits(noise(3, 4, 5, seed=seed)), False) for seed in range(3)]).sum(
        dim=0
    )

    torch.testing.assert_close(total, torch.ones(4, 5), **SAME_MATHS)


def test_running_mean__is_that_of_all_views_whether_they_are_held_or_summed() -> None:
    coarse = noise(3, 5, 7)
    fields = [whole(coarse * n, (Resize(5, 40),), (Resize(7, 56),)) for n in (1, 2)]
    fields += [MaterializedLogits(noise(3, 40, 56, seed=seed)) for seed in (1, 2)]
    views = TtaMean(probabilities=True)
    for field, mirrored in zip(fields, (False, True, True, False), strict=True):
        views.add(field, mirrored=mirrored)

    expected = sum(
        full(field).flip(-1).softmax(0) if mirrored else full(field).softmax(0)
        for field, mirrored in zip(fields, (False, True, True, False), strict=True)
    )

    mean = views.mean()
    assert isinstance(mean, MaterializedLogits)
    torch.testing.assert_close(full(mean).softmax(0), expected / 4, **SAME_MATHS)


def test_log_probabilities__give_the_probabilities_back() -> None:
    probabilities = torch.tensor([[0.25], [0.75], [0.0]])

    torch.testing.assert_close(
        log_probabilities(probabilities.clone()).softmax(dim=0), probabilities, rtol=1e-6, atol=1e-30
    )
