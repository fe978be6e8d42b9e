"""What the plan of a laptop run needs to know about the data: photos, objects, shares of classes, depths."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data import DATASETS, parse_data
from densevit.data.sample import Dataset, Sample, Target
from densevit.errors import ConfigError
from densevit.types import Size

SAMPLED = 24
"""Samples that are read, spread evenly over the data set."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a few samples of a data set look like.

    Attributes:
        count: photos of the data set.
        size: (height, width) of its photos in pixels, the most frequent one.
        target: what can be learnt: labels if there are any, else depth, else values.
        thickness: how many pixels the objects of the class with the thinnest ones are across; None without labels.
        max_depth_m: a little more than the largest depth; None without depth.
        channels: names of the values; () without values.
        normals: whether the values are surface normals.
    """

    count: int
    size: Size
    target: Target
    thickness: float | None = None
    max_depth_m: float | None = None
    channels: tuple[str, ...] = ()
    normals: bool = False


def survey(dataset: Dataset) -> Survey:
    """Look at some samples of a data set, which must not be empty."""
    count = len(dataset)
    samples = [dataset[index] for index in sorted({round(i * (count - 1) / SAMPLED) for i in range(SAMPLED + 1)})]
    sizes = Counter((sample.image.shape[0], sample.image.shape[1]) for sample in samples)
    size = max(sizes, key=lambda one: (sizes[one], one))
    if any(sample.labels is not None for sample in samples):
        return Survey(count, size, "labels", _thickness(samples))
    depths = [float(s.depth.max()) for s in samples if s.depth is not None and s.depth.size]
    if depths:
        # Two digits, rounded up: the head ends at this depth, and a later photo may have a little more.
        largest = max(max(depths) * 1.05, 1e-2)
        unit = 10.0 ** (np.floor(np.log10(largest)) - 1)
        return Survey(count, size, "depth", max_depth_m=round(float(np.ceil(largest / unit) * unit), 6))
    values = next((sample.values for sample in samples if sample.values is not None), None)
    normals = any(sample.normals for sample in samples)
    names = [f"value {i + 1}" for i in range(0 if values is None else values.shape[2])]
    return Survey(count, size, "values", channels=("x", "y", "z") if normals else tuple(names), normals=normals)


def survey_sources(given: Mapping[str, Any]) -> tuple[Survey, int]:
    """What the training data of a run's config look like, and how many photos val has.

    Raises:
        ConfigError: there are no data.
    """
    sources = given.get("sources")
    if not isinstance(sources, list | tuple) or not sources or not isinstance(sources[0], Mapping):
        raise ConfigError("there are no data to train on; give --data DIR")
    counts: list[int] = []
    found: Survey | None = None
    for split in ("train", "val"):
        if (place := sources[0].get(split)) is None:
            counts.append(0)
            continue
        config = parse_data(place)
        dataset = DATASETS[config.kind][1](config)
        counts.append(len(dataset))
        if split == "train":
            if not counts[0]:
                raise ConfigError("the data set is empty; it needs at least one photo")
            found = survey(dataset)
    assert found is not None
    return found, counts[1]


def thickness(region: NDArray[np.bool_]) -> float | None:
    """How many pixels a region (H, W) is across: the mean length of its runs along rows or columns; None if empty.

    The smaller of both, so that a line counts by its width, whatever its direction. A disc has three quarters of its
    diameter.
    """
    area = int(region.sum())
    if not area:
        return None
    starts = [int(line.sum()) for line in (region[:, 0], region[0])]
    starts[0] += int((region[:, 1:] & ~region[:, :-1]).sum())
    starts[1] += int((region[1:] & ~region[:-1]).sum())
    return area / max(starts)


def _thickness(samples: Sequence[Sample]) -> float | None:
    """Of the thinnest class: the median over the photos that have it. The largest class is the ground of the others."""
    found: dict[int, list[float]] = {}
    for sample, labels in _labelled(samples):
        for value in np.unique(labels[labels != sample.ignore_index]).tolist():
            if (width := thickness(labels == value)) is not None:
                found.setdefault(value, []).append(width)
    shares = _counts(samples)
    ground = max(shares, key=lambda value: shares[value], default=None)
    widths = [float(np.median(values)) for value, values in found.items() if value != ground or len(found) == 1]
    return min(widths, default=None)


def _counts(samples: Sequence[Sample]) -> Counter[int]:
    """Pixels per class."""
    counts: Counter[int] = Counter()
    for sample, labels in _labelled(samples):
        values, pixels = np.unique(labels[labels != sample.ignore_index], return_counts=True)
        counts.update(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    return counts


def _labelled(samples: Sequence[Sample]) -> list[tuple[Sample, NDArray[Any]]]:
    return [(sample, sample.labels) for sample in samples if sample.labels is not None]
