"""Outlines of the regions of a label map: the inverse of ``polygons``, exact to the pixel.

A region is a set of pixels of one class that are connected by their sides. Programs for annotation know no holes, so a
region with holes is cut along rows of pixels into pieces without any. A piece is one polygon through corners of pixels;
drawn by ``fill_polygon``, it has exactly the piece's pixels.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Region:
    """Pixels of one class that are connected.

    Attributes:
        label: the class.
        area: number of pixels.
        box: left, top, width and height in pixels.
        polygons: one per piece, (N, 2) x and y of corners of pixels, clockwise; together they cover the region once.
    """

    label: int
    area: int
    box: tuple[int, int, int, int]
    polygons: list[NDArray[np.int64]]


def find_regions(labels: NDArray[np.integer], leave_out: Collection[int] = ()) -> list[Region]:
    """The regions of a label map (H, W), in the order of their first pixels, row by row.

    Args:
        labels: classes.
        leave_out: classes, such as background and the ignore value, that get no region.
    """
    runs = _find_runs(labels, leave_out)
    pieces, regions = _join(runs)
    if not len(regions):
        return []
    areas = np.bincount(regions, runs.stops - runs.starts)
    count = len(areas)
    left, top, right, bottom = (np.full(count, fill) for fill in (labels.shape[1], labels.shape[0], 0, 0))
    for side, values, choose in (
        (left, runs.starts, np.minimum),
        (top, runs.rows, np.minimum),
        (right, runs.stops, np.maximum),
        (bottom, runs.rows + 1, np.maximum),
    ):
        choose.at(side, regions, values)
    polygons: list[list[NDArray[np.int64]]] = [[] for _ in range(count)]
    region_of = dict(zip(pieces.tolist(), regions.tolist(), strict=True))
    for piece, polygon in enumerate(_trace(_paint(pieces, runs, labels.shape))):
        polygons[region_of[piece]].append(polygon)
    classes = dict(zip(regions.tolist(), runs.labels.tolist(), strict=True))
    boxes = np.stack([left, top, right - left, bottom - top], axis=1).tolist()
    return [Region(classes[i], int(areas[i]), tuple(boxes[i]), polygons[i]) for i in range(count)]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Pixels of one class next to each other in a row, as arrays over all runs; and pairs that touch.

    Attributes:
        above: for each run, the runs of its class in the row above that it touches.
    """

    labels: NDArray[np.int64]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    above: list[list[int]]


def _find_runs(labels: NDArray[np.integer], leave_out: Collection[int]) -> _Runs:
    height, width = labels.shape
    new = np.ones((height, width), bool)
    new[:, 1:] = labels[:, 1:] != labels[:, :-1]
    begins = np.flatnonzero(new)  # of all runs, in the pixels row after row
    ends = np.append(begins[1:], height * width)
    values = labels.ravel()[begins].astype(np.int64)
    first = np.searchsorted(begins, begins - width, "right") - 1
    last = np.searchsorted(begins, ends - 1 - width, "right") - 1
    kept = np.isin(values, list(leave_out), invert=True)
    number = np.cumsum(kept) - 1
    lower, upper = np.flatnonzero(kept & (begins >= width)), np.flatnonzero(kept)
    counts = last[lower] - first[lower] + 1
    below = np.repeat(lower, counts)
    over = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first[lower], counts)
    same = values[below] == values[over]
    above: list[list[int]] = [[] for _ in range(len(upper))]
    for run, touched in zip(number[below[same]].tolist(), number[over[same]].tolist(), strict=True):
        above[run].append(touched)
    rows = begins[upper] // width
    return _Runs(values[upper], rows, begins[upper] - rows * width, ends[upper] - rows * width, above)


def _join(runs: _Runs) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The piece and the region of every run, counted from 0 in the order of their first runs.

    From the top, a run joins the pieces that it touches. Where these touch each other already, through earlier rows or
    across a cut, that would close a ring around a hole, so the run begins a new piece: the cut is above it.
    """
    pieces, regions = _Sets(len(runs.above)), _Sets(len(runs.above))
    cut: dict[int, set[int]] = {}  # piece -> pieces that it touches across a cut
    for run, touched in enumerate(runs.above):
        for other in touched:
            regions.join(run, other)
        roots = [pieces.root(other) for other in touched]
        if len(set(roots)) < len(roots) or any(
            pieces.root(far) in roots for root in roots for far in cut.get(root, ())
        ):
            cut.setdefault(run, set()).update(roots)
            for root in roots:
                cut.setdefault(root, set()).add(run)
            continue
        for root in roots:
            joined, gone = pieces.join(run, root)
            if gone in cut:
                cut.setdefault(joined, set()).update(cut.pop(gone))
    return pieces.numbers(), regions.numbers()


class _Sets:
    """Disjoint sets of the numbers below ``count``; the smallest number of a set is its root."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    def join(self, one: int, other: int) -> tuple[int, int]:
        """Join two sets; the root that stays, and the one that is none any more."""
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low
        return low, high

    def numbers(self) -> NDArray[np.int64]:
        """The set of every number, counted from 0 in the order of the roots."""
        roots = np.array([self.root(number) for number in range(len(self._parents))], np.int64)
        return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _paint(pieces: NDArray[np.int64], runs: _Runs, size: tuple[int, ...]) -> NDArray[np.int64]:
    """The piece of every pixel, -1 without one, with a frame of -1 around the image: (H + 2, W + 2)."""
    width = size[1] + 2
    steps = np.zeros((size[0] + 2) * width + 1, np.int64)
    begin = (runs.rows + 1) * width + runs.starts + 1
    np.add.at(steps, begin, pieces + 1)
    np.add.at(steps, begin + runs.stops - runs.starts, -(pieces + 1))
    return (steps.cumsum()[:-1] - 1).reshape(size[0] + 2, width)


def _trace(pieces: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The polygon of every piece, from a framed map of connected pieces without holes.

    Each side of a pixel where its piece ends is an edge, with the piece to its right: 0 east along the top of the
    pixel, 1 south, 2 west, 3 north. Where two pixels of a piece meet in a corner only, the outline keeps them apart.
    """
    width = pieces.shape[1]
    flat = pieces.ravel()
    ahead = np.array([1, width, -1, -width])  # from a pixel to the next one along each side
    outside = np.array([-width, 1, width, -1])  # across the side
    inner = np.flatnonzero(flat >= 0)
    sides = [inner[flat[inner + outside[d]] != flat[inner]] for d in range(4)]
    directions = np.repeat(np.arange(4), [len(side) for side in sides])
    pixels = np.concatenate(sides)
    own, before = flat[pixels], pixels + ahead[directions]
    diagonal = before + outside[directions]
    right, straight = flat[before] != own, flat[diagonal] != own
    after = np.where(right, (directions + 1) % 4, np.where(straight, directions, (directions + 3) % 4))
    pixel = np.where(right, pixels, np.where(straight, before, diagonal))
    following = np.searchsorted(directions * flat.size + pixels, after * flat.size + pixel)
    corner = after != directions
    rows, columns = np.divmod(pixels, width)  # of the frame, which the corner of the pixel makes up for
    x = columns - 1 + np.isin(directions, (0, 1))
    y = rows - 1 + np.isin(directions, (1, 2))
    starts = np.full(int(flat.max()) + 1, -1)
    starts[own[::-1]] = np.arange(len(own))[::-1]  # the first edge, along the top
    return _walk(starts.tolist(), following.tolist(), corner.tolist(), np.stack([x, y], axis=1))


def _walk(
    starts: list[int], following: list[int], corner: list[bool], ends: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """The corners met on the way around each piece, from its first edge on."""
    polygons = []
    for start in starts:
        met = []
        edge = start
        while True:
            if corner[edge]:
                met.append(edge)
            edge = following[edge]
            if edge == start:
                break
        polygons.append(ends[met])
    return polygons
