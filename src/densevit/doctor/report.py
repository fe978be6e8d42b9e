"""A diagnosis as plain data: the figures of each split, and the findings; for terminal, JSON and page alike."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from densevit.doctor.checks_classes import Histogram, histograms
from densevit.doctor.context import Material
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import DepthFacts, ValueFacts
from densevit.doctor.layout import KINDS
from densevit.doctor.rules import Finding
from densevit.doctor.semantics import metres_per_step
from densevit.types import Size

MAX_FILES = 1000
"""Of each finding, by name; all are counted."""


@dataclass(frozen=True, slots=True)
class SplitFigures:
    """What there is in a split.

    Attributes:
        name: of the split.
        photos: by name.
        read: photos that were opened.
        targets: per kind, how many belong to a photo.
        sizes: photos of each (height, width), the most frequent first.
        classes: None without masks or names.
        depth_m: metres: least, 1 %, median, 99 %, largest; None without depth.
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

    def size_range(self) -> str:
        """The sizes in a few words."""
        if not self.sizes:
            return ""
        if len(self.sizes) == 1:
            return _size(self.sizes[0][0])
        by_area = sorted((size for size, _ in self.sizes), key=lambda size: size[0] * size[1])
        return f"{_size(by_area[0])} to {_size(by_area[-1])}, {len(by_area)} sizes"


def figures(material: Material) -> list[SplitFigures]:
    """The figures of every split."""
    by_split = histograms(material)
    found = []
    for split in material.splits:
        photos = [photo for sample, photo in material.photos() if sample.split == split.name]
        maps = [d for sample, d in material.of("depth", DepthFacts) if sample.split == split.name and d.levels > 0]
        depth_m, valid = _depth(material, maps)
        found.append(
            SplitFigures(
                name=split.name,
                photos=len(split.photos),
                read=sum(sample.split == split.name for sample in material.samples),
                targets={kind: len(split.targets[kind]) for kind in KINDS if kind in split.targets},
                sizes=Counter(photo.upright_size for photo in photos).most_common(),
                classes=by_split.get(split.name),
                depth_m=depth_m,
                valid=valid,
            )
        )
    return found


def _depth(material: Material, maps: list[DepthFacts]) -> tuple[tuple[float, ...] | None, float | None]:
    if not maps:
        return None, None
    metres = np.array(
        [np.array(d.quantiles) * metres_per_step(d, material.splits[0].config) for d in maps]
    )  # (maps, 5)
    low, middle, high = metres[:, 0].min(), np.median(metres[:, 1]), metres[:, 2].max()
    ends = (float(metres[:, 3].min()), float(low), float(middle), float(high), float(metres[:, 4].max()))
    return ends, float(np.mean([d.valid for d in maps]))


def plain(diagnosis: Diagnosis, data: str) -> dict[str, Any]:
    """The diagnosis for JSON."""
    material = diagnosis.material
    names = material.classes.names if material.classes is not None else ()
    return {
        "data": data,
        "seconds": round(diagnosis.seconds, 1),
        "sampled": material.sampled,
        "counts": diagnosis.count(),
        "classes": list(names),
        "ignore_index": material.ignore_index,
        "splits": [_plain_split(split, names) for split in figures(material)],
        "findings": [_plain_finding(finding, material) for finding in diagnosis.findings],
    }


def _plain_finding(finding: Finding, material: Material) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "split": finding.split,
        "what": finding.what,
        "why": finding.check.why,
        "fix": finding.fix,
        "written": finding.check.written,
        "num_files": len(finding.files),
        "files": [material.short(path) for path in finding.files[:MAX_FILES]],
    }


def _plain_split(split: SplitFigures, names: tuple[str, ...]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": split.name,
        "photos": split.photos,
        "read": split.read,
        "targets": split.targets,
        "sizes": [{"height": h, "width": w, "photos": count} for (h, w), count in split.sizes[:50]],
        "num_sizes": len(split.sizes),
    }
    if split.classes is not None:
        shares = class_shares(split.classes)
        record["ignored_share"] = ignored_share(split.classes)
        record["classes"] = {
            name: {"pixels": int(split.classes.pixels[i]), "share": shares[i], "photos": int(split.classes.photos[i])}
            for i, name in enumerate(names)
        }
    if split.depth_m is not None:
        keys = ("min", "percentile_1", "median", "percentile_99", "max")
        record["depth_m"] = dict(zip(keys, split.depth_m, strict=True)) | {"valid_share": split.valid}
    return record


def class_shares(histogram: Histogram) -> list[float]:
    """Of the labelled pixels."""
    total = max(int(histogram.pixels.sum()), 1)
    return [int(pixels) / total for pixels in histogram.pixels]


def ignored_share(histogram: Histogram) -> float:
    """Of all mask pixels that are a class or ignored."""
    return histogram.ignored / max(histogram.ignored + int(histogram.pixels.sum()), 1)


def headline(diagnosis: Diagnosis) -> str:
    """The findings counted, in a line."""
    counts = diagnosis.count()
    if not diagnosis.findings:
        return "nothing was found"
    return ", ".join(f"{number} {name}{'s' if number != 1 else ''}" for name, number in counts.items() if number)


def remarks(diagnosis: Diagnosis) -> list[str]:
    """What the reader must know of how it was looked."""
    material = diagnosis.material
    read = len(material.samples)
    total = sum(len(split.photos) for split in material.splits)
    lines = [f"{read} of {total} photos opened in {diagnosis.seconds:.0f} s"]
    if material.sampled:
        lines.append("a part was opened: classes that were not seen, copies and leaks are not concluded from it")
    if any(isinstance(facts, ValueFacts) for sample in material.samples for facts in sample.files()):
        lines.append("value maps are checked for shape and NaN alone")
    return lines


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
