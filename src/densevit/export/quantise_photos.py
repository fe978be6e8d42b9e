"""The photos that a model is calibrated and measured on, with targets for the heads that have some."""

import glob
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densevit.data import DATASETS, Dataset
from densevit.data.description import describe
from densevit.data.split_roles import with_split
from densevit.data.transforms import targets_of
from densevit.errors import ConfigError, DataError
from densevit.evaluation.run_data import Model, Selected, select
from densevit.evaluation.selection import read_target, spread
from densevit.inference.predictor import Predictor
from densevit.io import find_images, read_image
from densevit.tasks import Task

MEASURED = 50
"""Photos to measure on at most, spread over the data."""

CALIBRATED = 4
"""Photos to find ranges on; where there are enough, none of those that are measured."""

SPLITS = ("val", "test")
"""The splits that are measured where the data have some and none is named: not what the model learnt from."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Photos:
    """Photos for some heads.

    Attributes:
        heads: that are measured on them.
        title: of the data, for the file's card.
        count: number of photos.
        read: number of a photo -> the photo, and the target of each head that has one.
        measured: numbers of the photos to measure on.
        calibrated: numbers of those to calibrate on.
        labelled: whether the heads have targets.
    """

    heads: tuple[str, ...]
    title: str
    count: int
    read: Callable[[int], tuple[Pixels, Mapping[str, Tensor]]]
    measured: tuple[int, ...]
    calibrated: tuple[int, ...]
    labelled: bool


@dataclass(frozen=True)
class Source:
    """What the user says about the photos; see ``densevit.evaluation.run_data.select``.

    Attributes:
        data: a folder, a zip archive or a dataset.yaml.
        split: of the data.
        keys: of its description.
        limit: photos to measure on at most.
    """

    data: Path | None
    split: str | None = None
    keys: Mapping[str, Any] | None = None
    limit: int = MEASURED


def find_photos(
    predictor: Predictor, name: str, heads: Sequence[str], source: Source, say: Callable[[str], None]
) -> list[Photos]:
    """The photos of every head: with targets where the data have some for it, and else without.

    Args:
        predictor: the model.
        name: what it was loaded from, next to which its data may be described.
        heads: to measure.
        source: of the photos.
        say: is told what was found and assumed.

    Raises:
        ConfigError: if no data are named.
        DataError: if there is no photo, or data that are described in detail fit no head.
    """
    keys = dict(source.keys or {})
    if source.data is None and not keys:
        raise ConfigError("quantize needs photos like those that the model is for; name a folder with --data DIR")
    found: list[Photos] = []
    problems: dict[str, Exception] = {}
    model = Model(name, predictor.tasks, predictor.trained_on)
    for head in heads:
        task = predictor.tasks[head]
        try:
            chosen = _selected(model, head, source)
        except (ConfigError, DataError, IndexError) as error:
            problems[head] = error
            continue
        for message in chosen.messages:
            say(message)
        found.append(_labelled(head, task, chosen.dataset, chosen.title, source.limit))
    if not found and keys:
        raise next(iter(problems.values()))
    for head, problem in problems.items():
        reason = str(problem).partition(";")[0]
        say(f"no targets for head {head!r} ({reason}); its agreement with float32 is measured")
    if problems:
        found.append(_unlabelled(tuple(problems), found, source))
    return found


def _selected(model: Model, head: str, source: Source) -> Selected:
    """The data of a head; of a split if one is named, else all, or the first of ``SPLITS`` that they have."""
    task = model.tasks[head]
    problem: Exception | None = None
    for split in (source.split,) if source.split else (None, *SPLITS):
        try:
            chosen = select(model, task.kind, head, source.data, split, source.keys or {})
            read_target(head, task, targets_of(chosen.dataset[0]), chosen.dataset)
        except (ConfigError, DataError, IndexError) as error:
            problem = problem or error
        else:
            return chosen
    assert problem is not None
    raise problem


def _labelled(head: str, task: Task, dataset: Dataset, title: str, limit: int) -> Photos:
    def read(number: int) -> tuple[Pixels, Mapping[str, Tensor]]:
        sample = dataset[number]
        return np.ascontiguousarray(sample.picture), {head: read_target(head, task, targets_of(sample), dataset)}

    return Photos((head,), title, len(dataset), read, *_chosen(len(dataset), limit), labelled=True)


def _unlabelled(heads: tuple[str, ...], labelled: Sequence[Photos], source: Source) -> Photos:
    """The photos of the labelled heads, or else those directly in the folder and below it."""
    if labelled:
        first = labelled[0]
        return Photos(
            heads,
            first.title,
            first.count,
            lambda number: (first.read(number)[0], {}),
            first.measured,
            first.calibrated,
            labelled=False,
        )
    assert source.data is not None
    dataset = _without_targets(source)
    if dataset is not None:
        known = dataset
        chosen = _chosen(len(known), source.limit)
        title = source.data.name
        return Photos(heads, title, len(known), lambda number: (known[number].picture, {}), *chosen, labelled=False)
    try:
        files = find_images([source.data])
    except DataError:
        if not source.data.is_dir():
            raise
        files = find_images([f"{glob.escape(str(source.data))}/**"])
    chosen = _chosen(len(files), source.limit)
    return Photos(
        heads, source.data.name, len(files), lambda number: (read_image(files[number]), {}), *chosen, labelled=False
    )


def _without_targets(source: Source) -> Dataset | None:
    """The photos of a data set whose targets are for other heads; None if the data are none."""
    for split in (source.split,) if source.split else (None, *SPLITS):
        try:
            config = with_split(describe(source.data, number=False, **(source.keys or {})).config, split)
            dataset = DATASETS[config.kind][1](config, targets=frozenset())
            if len(dataset) and dataset[0].picture.size:
                return dataset
        except (ConfigError, DataError):
            continue
    return None


def _chosen(total: int, limit: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the photos to measure on and to calibrate on; with few photos the same."""
    if total < 2 * CALIBRATED:
        return tuple(spread(total, limit)), tuple(spread(total, CALIBRATED))
    calibrated = tuple(spread(total, CALIBRATED))
    others = [number for number in range(total) if number not in calibrated]
    return tuple(others[i] for i in spread(len(others), limit)), calibrated
