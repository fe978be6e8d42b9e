"""The outcome of a comparison, as rows and as a table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One tensor or number, or several of one kind with the worst error among them.

    Attributes:
        source: the reference program.
        variant: the fixture.
        case: what was compared.
        count: how many tensors or numbers.
        error: relative L2 distance, or relative distance of numbers; not a number where the comparison failed.
        tolerance: for it.
        problem: why there is no error.
    """

    source: str
    variant: str
    case: str
    count: int
    error: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether it was compared and is within the tolerance."""
        return not self.problem and self.error <= self.tolerance

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        error = None if math.isnan(self.error) else self.error
        return asdict(self) | {"error": error, "verdict": "pass" if self.passed else "FAIL"}


def relative_l2(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs|| in float64, the absolute distance from zeros.

    Raises:
        ValueError: if the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"ours has shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
    distance = float((ours.double() - theirs.double()).norm())
    scale = float(theirs.double().norm())
    return distance / scale if scale else distance


def merge(rows: Iterable[Row]) -> list[Row]:
    """Rows of the same case as one, with the worst error; a failure keeps a row of its own."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    merged: list[Row] = []
    for row in rows:
        if row.passed:
            groups.setdefault((row.source, row.variant, row.case), []).append(row)
        else:
            merged.append(row)
    for (source, variant, case), group in groups.items():
        worst = max(group, key=lambda row: row.error)
        merged.append(Row(source, variant, case, sum(r.count for r in group), worst.error, worst.tolerance))
    return sorted(merged, key=lambda row: (row.source, row.variant, row.case))


def markdown(rows: Sequence[Row]) -> str:
    """A table."""
    lines = [
        "| source | variant | case | tensors | relative error | tolerance | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        error = f"`{row.problem}`" if row.problem else f"{row.error:.1e}"
        verdict = "pass" if row.passed else "**FAIL**"
        lines.append(
            f"| {row.source} | {row.variant} | {row.case} | {row.count} | {error} | {row.tolerance:.0e} | {verdict} |"
        )
    return "\n".join(lines) + "\n"
