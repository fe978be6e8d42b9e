from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.encoder.patches import adapt_input_channels, resample_patch_weight
from densevit.encoder.positions import resample_positions
from densevit.types import Size
from tests.tolerances import SAME_MATHS, SOLVED


def test_positions__of_the_stored_grid_come_back_themselves() -> None:
    positions = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))

    assert resample_positions(positions, (2, 3), (2, 3), mode="bicubic") is positions


@pytest.mark.parametrize("offset", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("new", [(3, 3), (5, 7), (1, 2)])
def test_positions__that_are_all_alike_stay_so(new: Size, mode: Any, offset: float) -> None:
    positions = torch.full((1, 6, 4), 0.7)

    resampled = resample_positions(positions, (2, 3), new, mode=mode, offset=offset)

    torch.testing.assert_close(resampled, torch.full((1, new[0] * new[1], 4), 0.7), **SAME_MATHS)


def test_positions__keep_rows_and_columns_apart() -> None:
    rows = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]).view(1, 6, 1)  # grid 2 x 3, the value is the row

    resampled = resample_positions(rows, (2, 3), (4, 2), mode="bilinear").view(4, 2)

    torch.testing.assert_close(resampled, torch.tensor([0.0, 0.25, 0.75, 1.0])[:, None].expand(4, 2), **SAME_MATHS)


@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_offset__moves_the_sample_points_of_both_axes(axis: int) -> None:
    ramp = torch.arange(3.0).view((3, 1) if axis == 0 else (1, 3)).expand(3, 3)  # the value is the coordinate

    resampled = resample_positions(ramp.reshape(1, 9, 1), (3, 3), (4, 5), mode="bilinear", offset=0.1).view(4, 5)

    length = (4, 5)[axis]
    expected = ((torch.arange(length) + 0.5) * 3 / (length + 0.1) - 0.5).clamp(0, 2)
    torch.testing.assert_close(resampled.select(1 - axis, 0), expected, **SAME_MATHS)


def test_patch_weight__of_the_same_size_comes_back_itself() -> None:
    weight = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    assert resample_patch_weight(weight, (8, 8)) is weight


@pytest.mark.parametrize(("old", "new"), [((8, 8), (16, 16)), ((14, 14), (16, 16)), ((6, 6), (9, 7))])
def test_patch_weight__gives_on_a_resized_patch_what_it_gave_on_the_patch(old: Size, new: Size) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, patch = torch.randn(5, 3, *old, generator=generator), torch.randn(2, 3, *old, generator=generator)
    larger = F.interpolate(patch, size=new, mode="bilinear", align_corners=False)

    resampled = resample_patch_weight(weight, new)

    torch.testing.assert_close(F.conv2d(larger, resampled), F.conv2d(patch, weight), **SOLVED)


def test_patch_weight__made_smaller_fits_best_in_the_least_squares_sense() -> None:
    weight = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()

    def gap(candidate: Tensor) -> float:
        basis = torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
        smaller = F.interpolate(basis, size=(4, 4), mode="bilinear", align_corners=False)
        return float((F.conv2d(smaller, candidate).flatten() - weight.flatten()).norm())

    best = resample_patch_weight(weight, (4, 4))

    nudges = torch.randn(20, 1, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double() * 0.01
    assert all(gap(best) < gap(best + nudge) for nudge in nudges)


@pytest.mark.parametrize("channels", [1, 3, 6, 9])
def test_input_channels__keep_the_response_to_grey(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, grey = torch.randn(4, 3, 8, 8, generator=generator), torch.rand(2, 1, 16, 16, generator=generator)

    adapted = adapt_input_channels(weight, channels)

    given = F.conv2d(grey.expand(-1, channels, -1, -1), adapted, stride=8)
    torch.testing.assert_close(given, F.conv2d(grey.expand(-1, 3, -1, -1), weight, stride=8), **SAME_MATHS)


def test_input_channels__repeat_in_turn() -> None:
    weight = torch.arange(3.0).view(1, 3, 1, 1)

    assert adapt_input_channels(weight, 5).flatten().tolist() == pytest.approx([0.0, 0.6, 1.2, 0.0, 0.6])
