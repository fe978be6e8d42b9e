"""The diagnosis summarised, for terminal, page and JSON."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from densevit.doctor.checks_classes import Histogram, histograms
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import DepthFacts, PhotoFacts, ValueFacts, size_text
from densevit.doctor.layout import KINDS
from densevit.doctor.rules import Finding, listed
from densevit.types import Size

MAX_FILES = 1000
"""Files of each finding in JSON; all are counted."""

MAX_CLASSES = 24
"""Rows of the table of classes in a terminal; of more, the most and the least frequent."""


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """What there is in a split.

    Attributes:
        name: of the split.
        photos: number of photos.
        read: number of photos that were read.
        targets: number of targets with a photo, per kind.
        sizes: number of photos of each (height, width), the most frequent first.
        classes: None without masks or names.
        depth_m: minimum, 1 %, median, 99 % and maximum in metres; None without depth.
        valid: mean share of measured pixels.
    """

    name: str
    photos: int
    read: int
    targets: dict[str, int]
    sizes: list[tuple[Size, int]]
    classes: Histogram | None
    depth_m: tuple[float, ...] | None
    valid: float | None

    def row(self) -> tuple[str, ...]:
        """Cells under ``HEAD``."""
        targets = ", ".join(f"{number} {kind}" for kind, number in self.targets.items()) or "none"
        by_area = sorted((size for size, _ in self.sizes), key=lambda size: size[0] * size[1])
        sizes = size_text(by_area[0]) if by_area else ""
        if len(by_area) > 1:
            sizes += f" to {size_text(by_area[-1])}, {len(by_area)} sizes"
        depth = ""
        if self.depth_m is not None:
            _, low, median, high, _ = self.depth_m
            depth = f"{low:.3g} to {high:.3g}, median {median:.3g}; {self.valid:.0%} measured"
        return self.name or "-", str(self.photos), targets, sizes, depth


HEAD = ("split", "photos", "targets", "height x width", "depth in m")


def summarise(context: Context) -> list[SplitSummary]:
    """Summarise every split."""
    by_split = histograms(context)
    summaries = []
    for split in context.splits:
        maps = [depth for _, depth in context.of(DepthFacts, split.name) if depth.levels > 0]
        depth_m = None
        if maps:
            metres = np.array([depth.metres(context.splits[0].config) for depth in maps])  # (maps, 5)
            low, median, high = metres[:, 0].min(), np.median(metres[:, 1]), metres[:, 2].max()
            depth_m = tuple(map(float, (metres[:, 3].min(), low, median, high, metres[:, 4].max())))
        summaries.append(
            SplitSummary(
                name=split.name,
                photos=len(split.photos),
                read=sum(sample.split == split.name for sample in context.samples),
                targets={kind: len(split.targets[kind]) for kind in KINDS if kind in split.targets},
                sizes=Counter(photo.upright_size for _, photo in context.of(PhotoFacts, split.name)).most_common(),
                classes=by_split.get(split.name),
                depth_m=depth_m,
                valid=float(np.mean([depth.valid for depth in maps])) if maps else None,
            )
        )
    return summaries


def class_columns(summaries: list[SplitSummary]) -> dict[str, list[str]]:
    """For each split with masks, a cell per class and one for ignored pixels."""
    columns = {}
    for split in summaries:
        if split.classes is not None:
            pairs = zip(split.classes.shares, split.classes.photos, strict=True)
            cells = [f"{share:.2%}, {photos} photos" for share, photos in pairs]
            columns[split.name or "pixels"] = [*cells, f"{split.classes.ignored_share:.2%} of all"]
    return columns


def headline(diagnosis: Diagnosis) -> str:
    """The number of findings of each severity."""
    counts = [f"{name}s: {number}" for name, number in diagnosis.count().items() if number]
    return ", ".join(counts) or "no findings"


def remarks(diagnosis: Diagnosis) -> list[str]:
    """How the data set was examined."""
    context = diagnosis.context
    total = sum(len(split.photos) for split in context.splits)
    lines = [f"{len(context.samples)} of {total} photos opened in {diagnosis.seconds:.0f} s"]
    if context.sampled:
        lines.append("absent classes, copies and leaks are not reported, since only a part was opened")
    if context.of(ValueFacts):
        lines.append("value maps are checked only for shape and NaN")
    return lines


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, head and rows."""


def tables(diagnosis: Diagnosis, name: str) -> list[Table]:
    """The splits, and the classes if there are any."""
    summaries = summarise(diagnosis.context)
    width = len(HEAD) if any(split.depth_m is not None for split in summaries) else len(HEAD) - 1
    splits: Table = (name, HEAD[:width], [split.row()[:width] for split in summaries])
    columns = class_columns(summaries)
    first = next((split.classes for split in summaries if split.classes is not None), None)
    if diagnosis.context.classes is None or first is None:
        return [splits]
    names = diagnosis.context.classes.names
    title, chosen = "classes", list(range(len(names)))
    if len(names) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        order = sorted(chosen, key=lambda i: -first.shares[i])
        chosen = [*order[:half], *order[-half:]]
        title = f"the {half} most and least frequent of {len(names)} classes"
    rows = [(f"{i} {names[i]}", *(cells[i] for cells in columns.values())) for i in chosen]
    rows.append(("ignored", *(cells[-1] for cells in columns.values())))
    return [splits, (title, ("class", *columns), rows)]


def lines(finding: Finding, context: Context) -> list[str]:
    """What was found with examples, why it hurts, and what to do."""
    shown = listed([context.short(path) for path in finding.files], 3)
    safe = " (--write-fixed, where it is safe)" if finding.check.fixable else ""
    return [
        finding.what + (f": {shown}" if shown else ""),
        f"why: {finding.check.why}",
        f"fix: {finding.fix}{safe}",
    ]


def as_record(diagnosis: Diagnosis, data: str) -> dict[str, Any]:
    """The diagnosis for JSON."""
    context = diagnosis.context
    names = context.classes.names if context.classes is not None else ()
    return {
        "data": data,
        "seconds": round(diagnosis.seconds, 1),
        "sampled": context.sampled,
        "counts": diagnosis.count(),
        "classes": list(names),
        "ignore_index": context.ignore_index,
        "splits": [_split_record(split, names) for split in summarise(context)],
        "findings": [_finding_record(finding, context) for finding in diagnosis.findings],
    }


def _finding_record(finding: Finding, context: Context) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "split": finding.split,
        "what": finding.what,
        "why": finding.check.why,
        "fix": finding.fix,
        "written": finding.check.fixable,
        "num_files": len(finding.files),
        "files": [context.short(path) for path in finding.files[:MAX_FILES]],
    }


def _split_record(split: SplitSummary, names: tuple[str, ...]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": split.name,
        "photos": split.photos,
        "read": split.read,
        "targets": split.targets,
        "sizes": [{"height": h, "width": w, "photos": count} for (h, w), count in split.sizes[:50]],
        "num_sizes": len(split.sizes),
    }
    if split.classes is not None:
        pixels, shares, photos = split.classes.pixels, split.classes.shares, split.classes.photos
        record["ignored_share"] = split.classes.ignored_share
        record["classes"] = {
            name: {"pixels": int(pixels[i]), "share": float(shares[i]), "photos": int(photos[i])}
            for i, name in enumerate(names)
        }
    if split.depth_m is not None:
        keys = ("min", "percentile_1", "median", "percentile_99", "max")
        record["depth_m"] = dict(zip(keys, split.depth_m, strict=True)) | {"valid_share": split.valid}
    return record
