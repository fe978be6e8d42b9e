"""Files that two splits share, without opening a picture: equal sizes first, then equal bytes."""

import hashlib
from pathlib import Path

from densevit.doctor.layout import Split
from densevit.doctor.rules import Findings

MOST_FILES = 400
"""Files that are hashed; a real leak shows in the first few."""

_HEAD = 1 << 20
"""Bytes of each that are hashed: photos that agree so far and in size are the same."""


def check_overlap(splits: list[Split], found: Findings) -> None:
    """Photos with equal files in two splits."""
    for index, first in enumerate(splits):
        for second in splits[index + 1 :]:
            shared = _shared(list(first.photos.values()), list(second.photos.values()))
            if shared:
                what = f"{len(shared)} photos are in {first.name} and in {second.name}, with equal files"
                found.add("leak-exact", what, [path for pair in shared for path in pair])


def _shared(first: list[Path], second: list[Path]) -> list[tuple[Path, Path]]:
    by_size: dict[int, list[Path]] = {}
    for path in first:
        by_size.setdefault(_size(path), []).append(path)
    shared: list[tuple[Path, Path]] = []
    hashed = 0
    known: dict[Path, bytes] = {}
    for path in second:
        twins = by_size.get(_size(path), []) if _size(path) > 0 else []
        if not twins or hashed >= MOST_FILES:
            continue
        hashed += 1 + len(twins)
        for twin in twins:
            known[twin] = known.get(twin) or _digest(twin)
            if known[twin] == _digest(path) != b"":
                shared.append((twin, path))
                break
    return shared


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> bytes:
    """Of the first megabyte; empty if it cannot be read, which other checks report."""
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_HEAD), digest_size=16).digest()
    except OSError:
        return b""
