"""A diagnosis as tables and lines for a terminal."""

from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.report import HEAD, class_columns, summarise
from densevit.doctor.rules import Finding, listed

MAX_CLASSES = 24
"""Rows of the table of classes; of more, the most and the least frequent."""

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
