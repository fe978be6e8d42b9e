"""A data set, examined: all of it for ``densevit doctor``, or a glance before a training run."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from densevit.data import ClassTable, FolderConfig
from densevit.doctor.checks_classes import check_classes_seen
from densevit.doctor.checks_depth import check_depth, check_values
from densevit.doctor.checks_duplicates import check_copies
from densevit.doctor.checks_files import check_classes, check_folders, check_names, check_reading
from densevit.doctor.checks_masks import check_masks
from densevit.doctor.checks_photos import check_photos, check_target_sizes
from densevit.doctor.colours import read_colours
from densevit.doctor.context import Material
from densevit.doctor.facts import MaskFacts, SampleFacts
from densevit.doctor.layout import KINDS, Kind, Split, read_split, splits_of
from densevit.doctor.leakage import check_overlap
from densevit.doctor.probe import probe
from densevit.doctor.rules import SEVERITIES, Finding, Findings
from densevit.doctor.scan import jobs_of, scan
from densevit.doctor.semantics import as_classes, has_bands
from densevit.types import Size

FAST_PHOTOS = 24
"""Photos of each split that are looked at before a run."""

FAST_SECONDS = 4.0
"""After which no further photo is opened before a run: large ones must not hold it up."""


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to look.

    Attributes:
        only: names of splits; all if empty.
        sample: photos of each split that are opened; all if None. Names are always checked in full.
        workers: processes; 0 for none but this one.
        crop: (height, width) of ``augment.crop``.
        colours: file with the colour of each class, for masks in colours.
    """

    only: tuple[str, ...] = ()
    sample: int | None = None
    workers: int = 0
    crop: Size | None = None
    colours: Path | None = None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found, errors first, and all that it was found in."""

    findings: list[Finding]
    material: Material
    seconds: float

    def count(self) -> dict[str, int]:
        """Findings of each severity."""
        return {name: sum(f.severity == name for f in self.findings) for name in SEVERITIES}


def examine(
    config: FolderConfig, options: Options | None = None, *, progress: Callable[[int, int], None] | None = None
) -> Diagnosis:
    """Look at all files of a data set.

    Args:
        config: where it lies; its split may be left out.
        options: how thoroughly.
        progress: is told how many of how many photos are done.

    Raises:
        DataError: if there is no data set, no such split, or no colour map in the file of ``colours``.
    """
    began = time.perf_counter()
    options = options or Options()
    found = Findings()
    splits = [read_split(place) for place in splits_of(config, options.only)]
    check_folders(config.root if config.images is None else None, splits, found)
    check_names(splits, found)
    classes = check_classes(config, splits, found)
    jobs = jobs_of(splits, options.sample)
    samples = scan(
        jobs,
        workers=min(options.workers, len(jobs) // 32),
        progress=None if progress is None else lambda done: progress(done, len(jobs)),
    )
    material = Material(
        splits=splits,
        samples=_understood(samples, splits, classes),
        classes=classes,
        colours=read_colours(options.colours, config, classes),
        crop=options.crop,
        sampled=len(jobs) < sum(len(split.photos) for split in splits),
    )
    check_content(material, found)
    if material.sampled:
        check_overlap(splits, found)
    return Diagnosis(in_order(found), material, time.perf_counter() - began)


def check_content(material: Material, found: Findings) -> None:
    """All checks of what stands in the files."""
    check_reading(material, found)
    check_photos(material, found)
    check_target_sizes(material, found)
    check_masks(material, found)
    check_classes_seen(material, found)
    check_depth(material, found)
    check_values(material, found)
    if not material.sampled:
        check_copies(material, found)


def in_order(found: Findings) -> list[Finding]:
    """Errors first, within a severity as they were found."""
    return sorted(found.found, key=lambda finding: SEVERITIES.index(finding.severity))


def fast_check(
    places: Mapping[str, FolderConfig], *, kinds: Iterable[Kind] = KINDS, crop: Size | None = None
) -> list[Finding]:
    """A glance at the data of a run: names in full, some photos, and files that are in two splits. A few seconds.

    Args:
        places: data set by the role that it has in the run, ``train`` and ``val``.
        kinds: targets that the run needs.
        crop: (height, width) that it cuts out.

    Returns:
        Findings, errors first; none for a folder that is not there, of which the data set itself will speak.
    """
    found = Findings()
    splits: list[Split] = []
    for role, config in places.items():
        folder = config.folder("images")
        if (
            folder is None
            or not folder.is_dir()
            or has_bands(config)
            or any(s.config.folder("images") == folder for s in splits)
        ):
            continue
        split = read_split(config, tuple(kinds))
        split.name = role
        splits.append(split)
    if not splits:
        return []
    check_names(splits, found)
    classes = check_classes(splits[0].config, splits, found)
    colours = read_colours(None, splits[0].config, classes)
    samples = _understood(_glance(splits), splits, classes)
    material = Material(splits, samples, classes, colours, crop, sampled=True)
    check_content(material, found)
    check_overlap(splits, found)
    return in_order(found)


def _understood(samples: list[SampleFacts], splits: list[Split], classes: ClassTable | None) -> list[SampleFacts]:
    """Masks in colours as class numbers, where the data set itself says which colour is which class."""
    colours = read_colours(None, splits[0].config, classes)
    if not colours or classes is None:
        return samples
    configs = {split.name: split.config for split in splits}
    return [
        replace(s, masks=as_classes(s.masks, configs[s.split], colours, classes.ignore_index))
        if isinstance(s.masks, MaskFacts)
        else s
        for s in samples
    ]


def _glance(splits: list[Split]) -> list[SampleFacts]:
    samples: list[SampleFacts] = []
    end = time.monotonic() + FAST_SECONDS
    jobs = jobs_of(splits, FAST_PHOTOS)
    # The splits in turn, so that none goes short when time is up.
    turns = {split.name: [job for job in jobs if job[0] == split.name] for split in splits}
    for index in range(FAST_PHOTOS):
        for own in turns.values():
            if index < len(own) and time.monotonic() < end:
                samples.append(probe(*own[index]))
    return samples
