"""Which file belongs to which photo: by the placeholders of templates, or by the stems of plain folders."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from densevit.data.columns import LOSSY_SUFFIXES, WHAT, Column, Values
from densevit.data.nearest import nearest_names
from densevit.data.splits import split_key
from densevit.errors import DataError

Loose = tuple[Path, tuple[str, ...], Values]
"""A target that no photo's name fits: its path, what its placeholders are compared by, and all of them."""


@dataclass(slots=True)
class Matches:
    """The target of each photo, by its place in the list, and what was left over.

    Attributes:
        files: the target, or several in natural order.
        orphans: targets without a photo.
        twins: two files that claim the same photo; the first has it.
        case: those whose names differ in upper and lower case only.
        copies: JPEGs next to a lossless target of the same name.
    """

    files: dict[int, list[tuple[Path, Values]]] = field(default_factory=dict)
    orphans: list[tuple[Path, Values]] = field(default_factory=list)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    case: list[tuple[int, Path]] = field(default_factory=list)
    copies: list[Path] = field(default_factory=list)


def match_targets(
    photos: list[Values], column: Column, places: Mapping[str, int] | None = None, nearest: float = 0
) -> Matches:
    """Give each photo its target, or several where the template has ``{class}``.

    Args:
        photos: the placeholders of each photo.
        column: of the targets.
        places: task number -> place of its photo, for ``{task}``.
        nearest: how much names that are numbers may differ.

    Raises:
        DataError: one file would be the target of several photos.
    """
    fields = [field for field in ("split", "folder", "name", "rest") if field in column.template.fields]
    fields = [field for field in fields if photos and field in photos[0]]
    index: dict[tuple[str, ...], list[int]] = {}
    for number, values in enumerate(photos):
        index.setdefault(tuple(values[field] for field in fields), []).append(number)
    matches = Matches()
    loose: list[Loose] = []
    splits = _split_names(photos)
    for relative, path, first in column.found:
        numbers: list[int] = []
        values = first
        if places is not None and "task" in first:
            numbers = [places[first["task"]]] if first["task"] in places else []
        else:
            for values in itertools.chain([first], column.template.readings(relative) if relative else ()):
                if numbers := index.get(tuple(_as_photo(values, field, splits) for field in fields), []):
                    break
        if len(numbers) > 1 and not column.shared:
            others = " and ".join(f"{{{field}}}" for field in sorted({*photos[0]} - {*fields}))
            raise DataError(
                f"{path} fits {len(numbers)} photos, as they differ in {others}, which {column.template.text} lacks; "
                f"each photo needs a {WHAT[column.kind]} of its own"
            )
        if not numbers:
            loose.append((path, tuple(_as_photo(first, field, splits) for field in fields), first))
        for number in numbers:
            _add(matches, number, path, values, column)
    if nearest and fields[-1:] == ["name"]:
        loose = _match_numbers(matches, loose, index, nearest)
    _match_case(matches, loose, index, len(photos))
    return matches


def _add(matches: Matches, number: int, path: Path, values: Values, column: Column) -> None:
    files = matches.files.setdefault(number, [])
    lossy = path.suffix.lower() in LOSSY_SUFFIXES
    if files and "class" not in column.template.fields and not column.objects:
        if lossy != (files[0][0].suffix.lower() in LOSSY_SUFFIXES):
            matches.copies.append(path if lossy else files[0][0])
            matches.files[number] = files if lossy else [(path, values)]
        else:
            matches.twins.append((files[0][0], path))
        return
    files.append((path, values))


def _split_names(photos: Iterable[Values]) -> dict[str, str]:
    """What targets may call a split -> its name in photos: Train is train, and valid is val, unless both are there."""
    names = {values["split"] for values in photos if "split" in values}
    usual = {split_key(name): name for name in names}
    return (usual if len(usual) == len(names) else {}) | {name: name for name in names}


def _as_photo(values: Values, field: str, splits: Mapping[str, str]) -> str:
    """The text of a placeholder, with the split as the photos call it."""
    text = values[field]
    return splits.get(text, splits.get(split_key(text), text)) if field == "split" else text


def _match_numbers(
    matches: Matches, loose: list[Loose], index: Mapping[tuple[str, ...], list[int]], most: float
) -> list[Loose]:
    """Give photos without a target, whose names are numbers, the nearest one; what is left over is returned."""
    ours: dict[tuple[str, ...], dict[str, int]] = {}
    theirs: dict[tuple[str, ...], dict[str, Loose]] = {}
    for key, numbers in index.items():
        if numbers[0] not in matches.files:
            ours.setdefault(key[:-1], {})[key[-1]] = numbers[0]
    for one in loose:
        theirs.setdefault(one[1][:-1], {})[one[1][-1]] = one
    used: set[Path] = set()
    for place, photos in ours.items():
        targets = theirs.get(place, {})
        for photo, target in nearest_names([*photos], [*targets], most).items():
            path, _, values = targets[target]
            matches.files[photos[photo]] = [(path, values)]
            used.add(path)
    return [one for one in loose if one[0] not in used]


def _match_case(
    matches: Matches,
    loose: list[Loose],
    index: Mapping[tuple[str, ...], list[int]],
    count: int,
) -> None:
    """Photos without a target take those whose names differ only in upper and lower case; the rest are orphans."""
    lacking = {number for number in range(count) if number not in matches.files}
    folded: dict[tuple[str, ...], list[int]] = {}
    for key, numbers in index.items() if loose else ():
        folded.setdefault(tuple(map(str.casefold, key)), []).extend(n for n in numbers if n in lacking)
    for path, key, values in loose:
        numbers = folded.get(tuple(map(str.casefold, key)), []) if key else []
        if len(numbers) == 1 and numbers[0] in lacking:
            matches.files[numbers[0]] = [(path, values)]
            matches.case.append((numbers[0], path))
            lacking.discard(numbers[0])
        else:
            matches.orphans.append((path, values))
