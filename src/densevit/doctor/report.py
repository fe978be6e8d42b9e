"""The diagnosis summarised, for terminal, page and JSON."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from densevit.doctor.checks_classes import Histogram, histograms
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import DepthFacts, PhotoFacts, ShapeFacts, ValueFacts, size_text
from densevit.doctor.layout import KINDS
from densevit.doctor.palettes import ColourShare, class_colours, colour_shares, css
from densevit.doctor.rules import Finding, listed

MAX_FILES, MAX_SIZES = 1000, 50
"""Files of each finding and sizes of each split in JSON; all are counted."""

MAX_CLASSES = 24
"""Rows of the table of classes in a terminal; of more, the most and the least frequent."""

HEAD = ("split", "photos", "targets", "height x width", "depth in m")
"""Columns of the table of splits."""

COLOUR_HEAD = ("colour", "share of the pixels", "masks")


def split_records(context: Context) -> list[dict[str, Any]]:
    """Summary of each split, with the keys of the JSON file."""
    by_split = histograms(context)
    records = []
    for split in context.splits:
        sizes = Counter(photo.upright_size for _, photo in context.of(PhotoFacts, split.name)).most_common()
        shapes = _shapes(context, split.name)
        record: dict[str, Any] = {
            "name": split.name,
            "photos": len(split.photos),
            "read": sum(sample.split == split.name for sample in context.samples),
            "targets": {kind: len(split.targets[kind]) for kind in KINDS if kind in split.targets},
            "sizes": [{"height": h, "width": w, "photos": count} for (h, w), count in sizes],
            "num_sizes": len(sizes),
        }
        if shapes:
            record["shapes"] = dict(shapes)
        if split.name in by_split and context.classes is not None:
            histogram = by_split[split.name]
            columns = zip(histogram.pixels.tolist(), histogram.shares.tolist(), histogram.photos.tolist(), strict=True)
            rows = [{"pixels": pixels, "share": share, "photos": photos} for pixels, share, photos in columns]
            record["ignored_share"] = histogram.ignored_share
            record["classes"] = dict(zip(context.classes.names, rows, strict=True))
        maps = [depth for _, depth in context.of(DepthFacts, split.name) if depth.levels > 0]
        if maps:
            metres = np.array([depth.metres(context.splits[0].config) for depth in maps])  # (maps, 5)
            record["depth_m"] = {
                "min": float(metres[:, 3].min()),
                "percentile_1": float(metres[:, 0].min()),
                "median": float(np.median(metres[:, 1])),
                "percentile_99": float(metres[:, 2].max()),
                "max": float(metres[:, 4].max()),
                "valid_share": float(np.mean([depth.valid for depth in maps])),
            }
        records.append(record)
    return records


def _shapes(context: Context, split: str) -> Counter[str]:
    """How many shapes of each label are drawn in a split."""
    drawn: Counter[str] = Counter()
    for _, facts in context.of(ShapeFacts, split):
        drawn.update(facts.labels)
    return drawn


def split_row(record: dict[str, Any]) -> tuple[str, ...]:
    """Cells of a split under ``HEAD``."""
    targets = ", ".join(f"{number} {kind}" for kind, number in record["targets"].items()) or "none"
    sizes = sorted(((size["height"], size["width"]) for size in record["sizes"]), key=lambda size: size[0] * size[1])
    size_range = size_text(sizes[0]) if sizes else ""
    if len(sizes) > 1:
        size_range += f" to {size_text(sizes[-1])}, {len(sizes)} sizes"
    depth = ""
    if m := record.get("depth_m"):
        depth = f"{m['percentile_1']:.3g} to {m['percentile_99']:.3g}, median {m['median']:.3g}"
        depth += f"; {m['valid_share']:.0%} measured"
    return record["name"] or "-", str(record["photos"]), targets, size_range, depth


def class_columns(by_split: dict[str, Histogram], context: Context) -> dict[str, list[str]]:
    """For each split with masks, a cell per class and one for ignored pixels."""
    columns = {}
    names = context.classes.names if context.classes is not None else ()
    for name, histogram in by_split.items():
        cells = [f"{share:.2%}, {n} photos" for share, n in zip(histogram.shares, histogram.photos, strict=True)]
        drawn = _shapes(context, name)
        if drawn:
            cells = [f"{cell}, {drawn[label]} shapes" for cell, label in zip(cells, names, strict=True)]
        columns[name or "pixels"] = [*cells, f"{histogram.ignored_share:.2%} of all"]
    return columns


def headline(diagnosis: Diagnosis) -> str:
    """The number of findings of each severity."""
    return ", ".join(f"{name}s: {n}" for name, n in diagnosis.count().items() if n) or "no findings"


def remarks(diagnosis: Diagnosis) -> list[str]:
    """How the data set was examined."""
    context = diagnosis.context
    total = sum(len(split.photos) for split in context.splits)
    lines = [f"{len(context.samples)} of {total} photos opened in {diagnosis.seconds:.0f} s"]
    shapes = sum(sum(facts.labels.values()) for _, facts in context.of(ShapeFacts))
    return [*lines, f"{shapes} shapes drawn"] if shapes else lines


def unread(diagnosis: Diagnosis) -> list[str]:
    """What was not looked at, in words."""
    context = diagnosis.context
    lines = [item.line() for item in context.unread]
    if context.sampled:
        lines.append("copies and leaks but of equal files, and classes that are absent, since only a part was opened")
    if context.of(ValueFacts):
        lines.append("what value maps hold, besides their shape and NaN")
    return lines


Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
"""Title, head and rows."""


def tables(diagnosis: Diagnosis, name: str) -> list[Table]:
    """The splits, and the classes and colours if there are any."""
    rows = [split_row(record) for record in split_records(diagnosis.context)]
    width = len(HEAD) if any(row[-1] for row in rows) else len(HEAD) - 1
    splits: Table = (name, HEAD[:width], [row[:width] for row in rows])
    by_split = histograms(diagnosis.context)
    if diagnosis.context.classes is None or not by_split:
        return [splits, *_colours(diagnosis.context)]
    names = diagnosis.context.classes.names
    columns = class_columns(by_split, diagnosis.context)
    shares = next(iter(by_split.values())).shares
    title, chosen = "classes", list(range(len(names)))
    if len(names) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        order = sorted(chosen, key=lambda i: -shares[i])
        chosen = [*order[:half], *order[-half:]]
        title = f"the {half} most and least frequent of {len(names)} classes"
    rows = [(f"{i} {names[i]}", *(cells[i] for cells in columns.values())) for i in chosen]
    rows.append(("ignored", *(cells[-1] for cells in columns.values())))
    return [splits, (title, ("class", *columns), rows), *_colours(diagnosis.context)]


def _colours(context: Context) -> list[Table]:
    """The colours in masks, or of their palettes, where no class list says what they mean."""
    rows: list[tuple[str, ...]] = [
        (colour_name(row), f"{row.share:.2%}", str(row.masks)) for row in colour_shares(context)
    ]
    return [("colours in the masks", COLOUR_HEAD, rows)] if rows else []


def colour_name(row: ColourShare) -> str:
    """A colour of masks, after its number if it has one."""
    return f"#{row.colour:06x}" if row.number is None else f"{row.number} #{row.colour:06x}"


def lines(finding: Finding, context: Context) -> list[str]:
    """What was found with examples, why it hurts, and what to do."""
    shown = listed([context.short(path) for path in finding.files], 3)
    what = f"{finding.what}: {shown}" if shown else finding.what
    safe = " (--write-fixed, where it is safe)" if finding.check.fixable else ""
    return [what, f"why: {finding.check.why}", f"fix: {finding.fix}{safe}"]


def as_record(diagnosis: Diagnosis, data: str, recognised: Sequence[str] = ()) -> dict[str, Any]:
    """The diagnosis for JSON."""
    context = diagnosis.context
    return {
        "data": data,
        "recognised": [*recognised],
        "seconds": round(diagnosis.seconds, 1),
        "sampled": context.sampled,
        "counts": diagnosis.count(),
        "classes": list(context.classes.names) if context.classes is not None else [],
        "class_colours": [css(colour) for colour in class_colours(context)] if context.classes is not None else [],
        "ignore_index": context.ignore_index,
        "mask_colours": [
            {"number": row.number, "colour": f"#{row.colour:06x}", "share": row.share, "masks": row.masks}
            for row in colour_shares(context)
        ],
        "splits": [record | {"sizes": record["sizes"][:MAX_SIZES]} for record in split_records(context)],
        "not_looked_at": [
            {"what": item.what, "files": item.count, "example": str(item.example) if item.example else None}
            for item in context.unread
        ],
        "findings": [
            {
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
            for finding in diagnosis.findings
        ],
    }
