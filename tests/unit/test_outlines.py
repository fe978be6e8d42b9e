"""Outlines of regions: drawn again they are the label map, to the pixel, whatever its shapes and holes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.data.outlines import Region, find_regions
from densevit.data.polygons import area_of, fill_polygon


def drawn(regions: list[Region], size: tuple[int, int], around: int) -> NDArray[np.int32]:
    canvas = np.full(size, around, np.int32)
    for region in regions:
        for polygon in region.polygons:
            fill_polygon(canvas, polygon.astype(np.float64), region.label)
    return canvas


def random_labels(seed: int) -> NDArray[np.int32]:
    """From noise to smooth blobs, of any size and number of classes."""
    rng = np.random.default_rng(seed)
    height, width, cell = (int(n) for n in rng.integers([1, 1, 1], [40, 40, 6]))
    coarse = rng.integers(0, rng.integers(1, 5), (height // cell + 1, width // cell + 1))
    return np.kron(coarse, np.ones((cell, cell), int))[:height, :width].astype(np.int32)


def picture(*rows: str) -> NDArray[np.int32]:
    return np.array([[int(cell) for cell in row] for row in rows], np.int32)


@pytest.mark.parametrize("seed", range(60))
def test_regions__drawn_again_are_the_labels(seed: int) -> None:
    labels = random_labels(seed)
    left_out = (0,) if seed % 2 else ()

    regions = find_regions(labels, left_out)

    assert (drawn(regions, labels.shape, 0) == labels).all()
    assert sum(region.area for region in regions) == (labels != 0).sum() if left_out else labels.size
    # Pieces do not overlap: their areas add up, so the order of drawing does not matter.
    assert [sum(area_of(p.astype(float)) for p in r.polygons) for r in regions] == [r.area for r in regions]


@pytest.mark.parametrize(
    ("labels", "pieces"),
    [
        (picture("111", "111"), 1),
        (picture("111", "101", "111"), 2),  # a hole is cut open
        (picture("1111111", "1011101", "1111111"), 2),  # two holes by one cut
        (picture("11111", "10101", "11111", "10001", "11111"), 3),
        (picture("110", "101", "011"), 1 + 1),  # a corner joins nothing
        (picture("0110", "1001", "0110"), 4),
    ],
)
def test_regions__are_cut_into_as_few_pieces_as_rows_allow(labels: NDArray[np.int32], pieces: int) -> None:
    regions = find_regions(labels, (0,))

    assert (drawn(regions, labels.shape, 0) == labels).all()
    assert sum(len(region.polygons) for region in regions) == pieces


def test_region__has_the_box_and_the_corners_of_its_pixels() -> None:
    (region,) = find_regions(picture("0000", "0220", "0200"), (0,))

    assert (region.label, region.area, region.box) == (2, 3, (1, 1, 2, 2))
    assert region.polygons[0].tolist() == [[3, 1], [3, 2], [2, 2], [2, 3], [1, 3], [1, 1]]


def test_regions__of_a_diagonal_are_apart() -> None:
    assert len(find_regions(picture("10", "01"), (0,))) == 2


def test_regions__of_nothing_are_none() -> None:
    assert find_regions(np.zeros((3, 4), np.uint8), (0,)) == []


def test_regions__come_in_the_order_of_their_first_pixels() -> None:
    regions = find_regions(picture("012", "013", "333"))

    assert [region.label for region in regions] == [0, 1, 2, 3]
