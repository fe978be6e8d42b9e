"""The result of a comparison as rows, and as a table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

HEAD = ("source", "variant", "case", "tensors", "relative error", "tolerance", "verdict")


@dataclass(frozen=True)
class Row:
    """One tensor or number, or several of one kind with the largest error among them.

    Attributes:
        source: the reference program.
        variant: the fixture.
        case: what was compared.
        count: how many tensors or numbers.
        error: relative L2 distance, or relative distance of numbers; NaN if the comparison failed.
        tolerance: for the error.
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
        """Whether the error is within the tolerance."""
        return not self.problem and self.error <= self.tolerance

    def plain(self) -> dict[str, Any]:
        """The row as JSON data."""
        error = None if math.isnan(self.error) else self.error
        return asdict(self) | {"error": error, "verdict": "pass" if self.passed else "FAIL"}

    def cells(self) -> tuple[str, ...]:
        """The row as text; the columns are ``HEAD``."""
        error = self.problem or f"{self.error:.1e}"
        verdict = "pass" if self.passed else "FAIL"
        return self.source, self.variant, self.case, str(self.count), error, f"{self.tolerance:.0e}", verdict


def relative_l2(ours: Tensor, theirs: Tensor) -> float:
    """||ours - theirs|| / ||theirs|| in float64; the absolute distance if theirs is zero.

    Raises:
        ValueError: if the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise ValueError(f"ours has shape {tuple(ours.shape)}, theirs {tuple(theirs.shape)}")
    distance = float((ours.double() - theirs.double()).norm())
    scale = float(theirs.double().norm())
    return distance / scale if scale else distance


def merge(rows: Iterable[Row]) -> list[Row]:
    """Merge the rows of each case into one with the largest error; failures stay separate."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    merged: list[Row] = []
    for row in rows:
        if row.passed:
            groups.setdefault((row.source, row.variant, row.case), []).append(row)
        else:
            merged.append(row)
    for key, group in groups.items():
        worst = max(group, key=lambda row: row.error)
        merged.append(Row(*key, sum(row.count for row in group), worst.error, worst.tolerance))
    return sorted(merged, key=lambda row: (row.source, row.variant, row.case))


def markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
