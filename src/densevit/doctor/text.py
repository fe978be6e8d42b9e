"""The diagnosis in lines and tables, for a terminal."""

from densevit.doctor.context import Material
from densevit.doctor.examine import Diagnosis
from densevit.doctor.report import class_shares, figures, headline, ignored_share, remarks
from densevit.doctor.rules import Finding

MAX_CLASSES = 24
"""Rows of the table of classes; of more, the most and the least frequent."""

Tables = list[tuple[str, tuple[str, ...], list[tuple[str, ...]]]]


def tables(diagnosis: Diagnosis, name: str) -> Tables:
    """Title, head and rows: the splits, and the classes if there are any."""
    splits = figures(diagnosis.material)
    head: tuple[str, ...] = ("split", "photos", "targets", "height x width")
    with_depth = any(split.depth_m is not None for split in splits)
    rows: list[tuple[str, ...]] = []
    for split in splits:
        targets = ", ".join(f"{number} {kind}" for kind, number in split.targets.items()) or "none"
        row: tuple[str, ...] = (split.name or "-", str(split.photos), targets, split.size_range())
        if with_depth and split.depth_m is not None:
            _, low, middle, high, _ = split.depth_m
            row += (f"{low:.3g} to {high:.3g}, median {middle:.3g}; {split.valid:.0%} measured",)
        rows.append(row + ("",) * (with_depth and split.depth_m is None))
    found: Tables = [(name, head + (("depth in m",) if with_depth else ()), rows)]
    return found + _class_table(diagnosis)


def _class_table(diagnosis: Diagnosis) -> Tables:
    material = diagnosis.material
    known = [split for split in figures(material) if split.classes is not None]
    if material.classes is None or not known:
        return []
    columns = []
    for split in known:
        assert split.classes is not None
        shares = class_shares(split.classes)
        cells = [f"{share:.2%}, {photos} photos" for share, photos in zip(shares, split.classes.photos, strict=True)]
        columns.append((shares, [*cells, f"{ignored_share(split.classes):.2%} of all"]))
    names = [f"{index} {name}" for index, name in enumerate(material.classes.names)]
    chosen = list(range(len(names)))
    if len(chosen) > MAX_CLASSES:
        order = sorted(chosen, key=lambda i: -columns[0][0][i])
        half = MAX_CLASSES // 2
        chosen = [*order[:half], *order[-half:]]
    rows = [(names[i], *(cells[i] for _, cells in columns)) for i in chosen]
    rows.append(("ignored", *(cells[-1] for _, cells in columns)))
    title = (
        "classes"
        if len(chosen) == len(names)
        else f"the {MAX_CLASSES // 2} most and least frequent of {len(names)} classes"
    )
    return [(title, ("class", *(split.name or "pixels" for split in known)), rows)]


def lines(finding: Finding, material: Material, most: int = 3) -> list[str]:
    """What, with examples; why; what to do."""
    shown = ", ".join(material.short(path) for path in finding.files[:most])
    more = f" and {len(finding.files) - most} more" if len(finding.files) > most else ""
    safe = " (--write-fixed, where it is safe)" if finding.check.written else ""
    return [
        finding.what + (f": {shown}{more}" if shown else ""),
        f"why: {finding.check.why}",
        f"fix: {finding.fix}{safe}",
    ]


def closing(diagnosis: Diagnosis) -> list[str]:
    """The last lines."""
    return [f"{headline(diagnosis)}; {'; '.join(remarks(diagnosis))}"]
