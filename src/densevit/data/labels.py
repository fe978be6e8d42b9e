"""From the stored numbers of a mask to class ids: ranges, ignored values, merged and dropped classes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.config import nearest
from densevit.data.polygons import shown
from densevit.data.sample import ClassTable
from densevit.errors import ConfigError, DataError
from densevit.limits import limits, too_much

_UNKNOWN = np.iinfo(np.int32).min
"""Marks numbers that are refused in look-up tables."""


class LabelRule:
    """Maps the numbers in masks to class ids.

    Args:
        source: the classes of the masks; None if they have no names, and numbers are unchanged.
        ignore_index: value of pixels without a class, if there is no ``source``.
        ids: stored number -> class of ``source``; by default they are the same.
        ignored: stored numbers without a class, besides the ignore value.
        reduce_zero: masks count from 1 and 0 is no class.
        nearest: numbers that are neither a class nor ignored are of the class of the nearest number in ``ids``, the
            smaller one of two.
        merge, drop: as for ``merge_classes``.
    """

    def __init__(
        self,
        source: ClassTable | None,
        *,
        ignore_index: int = 255,
        ids: Mapping[int, int] | None = None,
        ignored: Iterable[int] = (),
        reduce_zero: bool = False,
        nearest: bool = False,
        merge: Mapping[str, Sequence[str]] | None = None,
        drop: Sequence[str] = (),
    ) -> None:
        if abs(ignore_index) > limits().class_id:
            raise ConfigError(too_much(f"ignore_index is {shown(ignore_index)}", "class_id"))
        self.source, self.ids, self.reduce_zero, self.nearest = source, ids, reduce_zero, nearest
        self.ignored = {*ignored, 0} if reduce_zero else {*ignored}
        self.ignore_index = ignore_index if source is None else source.ignore_index
        self.classes: ClassTable | None = None
        self._table: NDArray[np.int32] | None = None
        if source is None:
            if merge or drop:
                raise ConfigError(
                    "merge or drop is set but the classes have no names; add classes.json, or set classes to a list of "
                    "names"
                )
            return
        self.classes, final = merge_classes(source, merge or {}, drop)
        self._table = self._build(source, final)

    def _build(self, source: ClassTable, final: Sequence[int]) -> NDArray[np.int32]:
        """Stored number -> final class."""
        ids = self.ids
        if ids is None:
            ids = {index + self.reduce_zero: index for index in range(len(source.names))}
            if self.ignore_index in ids:
                raise ConfigError(
                    f"ignore_index {self.ignore_index} is also the number of class "
                    f"{source.names[ids[self.ignore_index]]!r} in the masks; set ignore_index to a number beyond them"
                )
        # With `ids`, the ignore value may also be the stored number of a class, which it then means.
        ignored = self.ignored | ({self.ignore_index} - {*ids})
        ignored = {value for value in ignored if 0 <= value <= limits().class_id}  # `__call__` sees to the others
        size = max([*ids, *ignored, 255]) + 2  # the last entry is for all larger numbers
        table = np.full(size, _UNKNOWN, np.int32)
        if self.nearest:
            known = np.array(sorted(ids))
            table[:] = np.array([final[ids[value]] for value in known.tolist()])[
                np.searchsorted((known[1:] + known[:-1]) / 2, np.arange(size))
            ]
        for stored, index in ids.items():
            table[stored] = final[index]
        table[[*ignored]] = self.ignore_index
        return table

    def __call__(self, stored: NDArray[np.int32], name: str) -> NDArray[np.int32]:
        """Stored numbers (H, W) -> class ids (H, W).

        Raises:
            DataError: if a number is neither a class nor ignored, naming the mask ``name``.
        """
        low, high, most = int(stored.min()), int(stored.max()), limits().class_id
        if low < 0 or high > most:
            far = (stored < 0) | (stored > most)
            known = np.isin(stored, [value for value in (*self.ignored, self.ignore_index) if _fits(value)])
            outside = stored[far & ~known]
            if outside.size:
                odd = outside.max() if high > most else outside.min()
                raise DataError(
                    f"mask {name} holds {odd}; class numbers of 0 to {most} are accepted; write class numbers (are "
                    "these instance numbers, or a colour packed into one number?)"
                )
            stored = np.where(far, self.ignore_index, stored)
            low = min(self.ignore_index, 0)
        if self._table is None:
            return self.shift(stored).astype(np.int32)
        inside = low >= 0 and high < len(self._table)
        labels = self._table[stored if inside else stored.clip(0, len(self._table) - 1)]
        if low < 0:  # the ignore value, as nothing else is negative by now
            labels[stored < 0] = self.ignore_index
        if (labels == _UNKNOWN).any():
            self._refuse(stored, labels == _UNKNOWN, name)
        return labels

    def shift(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Stored numbers with ignored values replaced and ``reduce_zero`` applied; unknown numbers are kept."""
        ignored = np.isin(stored, [value for value in (*self.ignored, self.ignore_index) if _fits(value)])
        return np.where(ignored, self.ignore_index, stored - self.reduce_zero)

    def _refuse(self, stored: NDArray[np.int32], unknown: NDArray[np.bool_], name: str) -> None:
        assert self.source is not None
        if self.ids is None:
            labels = np.where(unknown, stored - self.reduce_zero, self.ignore_index).astype(np.int32)
            self.source.check(labels, name)
        values, ids = np.unique(stored[unknown]), self.ids
        numbers = f"{len(ids)} numbers from {min(ids)} to {max(ids)}" if ids else "no numbers"
        raise DataError(
            f"mask {name} holds {', '.join(map(str, values[:8]))}, which no class of this data set has; "
            f"its masks have {numbers} and {self.ignore_index}; check that it is of this data set"
        )


def _fits(value: int) -> bool:
    """Whether a mask can hold a number."""
    return -(2**31) <= value < 2**31


def merge_classes(
    table: ClassTable, merge: Mapping[str, Sequence[str]], drop: Sequence[str] = ()
) -> tuple[ClassTable, tuple[int, ...]]:
    """Merge, rename and drop classes.

    Args:
        table: the classes.
        merge: new name -> old names. A new name that is also an old one includes that class. A single old name is
            renamed. The new class takes the place of its first member.
        drop: names whose pixels are ignored.

    Returns:
        The new classes, and the new id of each old one.

    Raises:
        ConfigError: if the data set lacks a name, or a name occurs twice.
    """
    if not merge and not drop:
        return table, tuple(range(len(table.names)))
    new_name = {name: name for name in table.names}
    used: set[str] = set()
    for name, members in [*merge.items(), *(("", (name,)) for name in drop)]:
        for member in members:
            if member not in new_name:
                raise ConfigError(f"merge or drop names class {member!r}{nearest(member, table.names)}")
            if member in used:
                raise ConfigError(f"merge or drop names class {member!r} twice; each class may go to one place")
            used.add(member)
            new_name[member] = name
    if emptied := [name for name, members in merge.items() if not members]:
        raise ConfigError(f"merge has no class for {emptied[0]!r}; list the classes that it is made of")
    names = tuple(dict.fromkeys(name for name in new_name.values() if name))
    if not names:
        raise ConfigError("drop names every class; at least one must stay")
    final = tuple(names.index(name) if name else table.ignore_index for name in new_name.values())
    if 0 <= table.ignore_index < len(names):
        raise ConfigError(f"ignore_index {table.ignore_index} is also the id of a class; set another one")
    palette = tuple(table.palette[final.index(index)] for index in range(len(names))) if table.palette else ()
    return ClassTable(names, table.ignore_index, _merged_views(table, final, len(names)), palette), final


def _merged_views(
    table: ClassTable, final: tuple[int, ...], count: int
) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    """The views that are still possible: those where the members of every merged class have one class."""
    views = {}
    for key, (names, mapping) in table.views.items():
        places = [{mapping[old] for old, new in enumerate(final) if new == index} for index in range(count)]
        if all(len(place) == 1 for place in places):
            views[key] = (names, tuple(place.pop() for place in places))
    return views
