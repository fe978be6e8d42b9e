"""Examine a data set: completely for ``densevit doctor``, or briefly before a training run."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from math import inf
from pathlib import Path

from densevit.data import ClassTable, FolderConfig
from densevit.data.pairs import Pairs, find_pairs
from densevit.data.sample import TargetFolder
from densevit.doctor.checks_classes import check_classes_seen
from densevit.doctor.checks_depth import check_depth, check_values
from densevit.doctor.checks_duplicates import check_duplicates
from densevit.doctor.checks_files import (
    check_classes,
    check_folders,
    check_left_over,
    check_names,
    check_reading,
    check_splits,
)
from densevit.doctor.checks_groups import check_groups
from densevit.doctor.checks_masks import check_masks
from densevit.doctor.checks_photos import check_photos, check_target_sizes
from densevit.doctor.checks_shapes import check_listed, check_shapes, set_readers
from densevit.doctor.colours import read_colours
from densevit.doctor.context import Context
from densevit.doctor.facts import SampleFacts
from densevit.doctor.layout import KINDS, Split, read_layout, split_of
from densevit.doctor.probe import probe
from densevit.doctor.rules import SEVERITIES, Finding, Findings
from densevit.doctor.scan import jobs_of, scan
from densevit.doctor.unread import not_looked_at
from densevit.errors import DataError
from densevit.types import Size

CONTENT_CHECKS = (
    *(check_reading, check_photos, check_target_sizes, check_masks, check_shapes, check_classes_seen),
    *(check_depth, check_values, check_duplicates),
)
"""The checks of what the files contain, in the order of their findings."""

FAST_PHOTOS = 24
"""Photos of each split that are read before a run."""

FAST_ANNOTATIONS = 50e6
"""Bytes of annotations of COCO up to which they are read before a run; training reads larger ones, and checks them."""

FAST_SECONDS = 4.0
"""Time after which no further photo is read before a run, since large ones must not delay it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The findings, errors first, and the data that they are about."""

    findings: list[Finding]
    context: Context
    seconds: float

    def count(self) -> dict[str, int]:
        """Number of findings of each severity."""
        return {name: sum(f.severity == name for f in self.findings) for name in SEVERITIES}


def examine(
    config: FolderConfig,
    *,
    only: Sequence[str] = (),
    sample: int | None = None,
    workers: int = 0,
    crop: Size | None = None,
    colours: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Examine the files of a data set.

    Args:
        config: the data set; its split may be left out.
        only: names of splits; all if empty.
        sample: photos of each split to read; all if None. Names are always checked in full.
        workers: number of processes; 0 works in this one.
        crop: (height, width) of ``augment.crop``.
        colours: file with the colour of each class, for masks in colours.
        progress: called with the number of photos done and of all.

    Raises:
        DataError: there is no data set, no such split, or no colour map in ``colours``.
    """
    began = time.perf_counter()
    pairs, splits = read_layout(config, only)
    findings = Findings()
    check_folders(config.root if config.images is None and config.pairs is None else None, pairs, findings)
    check_splits(pairs, findings)
    check_left_over(config, pairs, findings)
    classes = _check_names(splits, findings)
    check_listed(splits, pairs, findings)
    jobs = jobs_of(splits, sample)
    report = None if progress is None else lambda done: progress(done, len(jobs))
    samples = scan(jobs, workers=min(workers, len(jobs) // 32), progress=report)
    context = Context(pairs, splits, samples, classes, read_colours(colours, classes), crop)
    sampled = len(jobs) < sum(len(split.photos) for split in splits)
    context = replace(context, sampled=sampled, unread=not_looked_at(config, pairs, splits, len(jobs), only))
    _check_contents(context, findings)
    return Diagnosis(findings.by_severity(), context, time.perf_counter() - began)


def fast_check(
    places: Mapping[str, FolderConfig], *, kinds: Iterable[TargetFolder] = KINDS, crop: Size | None = None
) -> list[Finding]:
    """Check the data of a run in a few seconds: all names, some photos, and files that are in two splits.

    Args:
        places: data set by its role in the run, ``train`` and ``val``.
        kinds: targets that the run needs.
        crop: (height, width) of its crops.

    Returns:
        Findings, errors first; none for a missing folder, which the data set itself reports.
    """
    kinds = tuple(kinds)
    findings = Findings()
    splits: list[Split] = []
    seen: list[FolderConfig] = []
    all_pairs = Pairs()
    for role, config in places.items():
        if config in seen:
            continue
        seen.append(config)
        try:
            pairs = find_pairs(config)
        except DataError:  # the data set reports it, with the same words
            continue
        check_left_over(config, pairs, findings, kinds)
        all_pairs.pairs += pairs.pairs
        name = next((pair.split for pair in pairs.pairs), "")
        splits.append(replace(split_of(pairs, config, name, kinds), name=role))
    if any(split.photos for split in splits):
        classes = _check_names(splits, findings, most_bytes=FAST_ANNOTATIONS)
        context = Context(
            all_pairs, splits, _read_some(splits), classes, read_colours(None, classes), crop, sampled=True
        )
        _check_contents(context, findings)
    return list(dict.fromkeys(findings.by_severity()))


def _check_names(splits: list[Split], findings: Findings, *, most_bytes: float = inf) -> ClassTable | None:
    """Run the checks that open no photo and no mask, and set the readers of masks that are drawn."""
    check_names(splits, findings)
    check_groups(splits, findings)
    classes = check_classes(splits[0].config, splits, findings)
    return set_readers(splits, classes, findings, most_bytes=most_bytes)


def _check_contents(context: Context, findings: Findings) -> None:
    """Run the checks of what was read."""
    for check in CONTENT_CHECKS:
        check(context, findings)


def _read_some(splits: list[Split]) -> list[SampleFacts]:
    """Read the splits in turn, so that none is left out when time is up."""
    samples: list[SampleFacts] = []
    end = time.monotonic() + FAST_SECONDS
    for jobs in zip_longest(*(jobs_of([split], FAST_PHOTOS) for split in splits)):
        samples += [probe(*job) for job in jobs if job is not None and time.monotonic() < end]
    return samples
