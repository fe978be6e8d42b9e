"""Photos and targets whose names are numbers that nearly agree, such as the time stamps of two cameras."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence


def number_of(name: str) -> float | None:
    """The number that a name is; None if it is none."""
    try:
        number = float(name)
    except ValueError:
        return None
    return number if math.isfinite(number) and name[:1].isdigit() else None


def nearest_names(ours: Sequence[str], theirs: Sequence[str], most: float) -> Mapping[str, str]:
    """Name -> the name of the nearest number, which differs by at most ``most``.

    The nearest pairs come first, and each name has one partner, as in associate.py of TUM RGB-D (Sturm et al., 2012).
    """
    ranked = sorted((number, name) for name in theirs if (number := number_of(name)) is not None)
    pairs: list[tuple[float, str, str]] = []
    for name in ours:
        if (number := number_of(name)) is None:
            continue
        for place in range(bisect_left(ranked, (number - most, "")), len(ranked)):
            other, partner = ranked[place]
            if other > number + most:
                break
            pairs.append((abs(other - number), name, partner))
    found: dict[str, str] = {}
    taken: set[str] = set()
    for _, name, partner in sorted(pairs):
        if name not in found and partner not in taken:
            found[name] = partner
            taken.add(partner)
    return found
