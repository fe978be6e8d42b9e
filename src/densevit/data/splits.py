"""Splits of photos that have none: at random, in groups, or by lists of names."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from densevit.config import Config, did_you_mean
from densevit.data.files import name_key
from densevit.errors import DataError

Share = Annotated[float, Field(ge=0, lt=1)]

SPLIT_NAMES = {
    "train": ("train", "training", "trainval", "train_val", "train-val"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names that a split's folder or column may have for each split, in any case."""

_LONGEST_PATTERN = 1_000


class SplitConfig(Config):
    """How photos are divided into train, val and test.

    Attributes:
        val, test: shares of the photos, or of their groups, that are drawn at random; the others are train. Where the
            data have splits, train is divided together with those that are drawn, and the others stay as they are.
        seed: of the draw, which does not depend on the order of the photos.
        by: regular expression whose first group (or whole match) in a photo's name is its group, such as a patient or
            a video; groups are never divided.
        names: names of the photos of each split, instead of a draw; those that no list has are train.
    """

    val: Share = 0.2
    test: Share = 0.0
    seed: int = 0
    by: str | None = None
    names: dict[str, tuple[str, ...]] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(f"val and test are {self.val:g} and {self.test:g}, which leaves nothing for train")
        if self.by is not None:
            if len(self.by) > _LONGEST_PATTERN:
                raise ValueError(f"by has {len(self.by)} characters; up to {_LONGEST_PATTERN} are accepted")
            try:
                re.compile(self.by)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"by is {self.by!r}, which is not a regular expression ({error})") from None
        return self


def divide(names: Sequence[str], given: Sequence[str], config: SplitConfig) -> list[str]:
    """The split of each photo, which depends only on the names, not on their order or on the platform.

    Args:
        names: of the photos.
        given: the splits that they already have; "" for none.
        config: how they are divided.

    Raises:
        DataError: a list has an unknown name, or one that another list has; ``by`` does not match a name.
    """
    if config.names is not None:
        return _listed(names, config.names)
    shares = {split: share for split, share in (("val", config.val), ("test", config.test)) if share > 0}
    called = {split_key(split): split for split in sorted({*given}, reverse=True)}  # "valid" stays "valid"
    keys = [split_key(split) for split in given]
    groups = {
        name: group_of(name, config.by) for name, key in zip(names, keys, strict=True) if key in {"", "train", *shares}
    }
    drawn = _draw({*groups.values()}, shares, config.seed)
    splits = []
    for name, split in zip(names, given, strict=True):
        key = drawn.get(groups[name], "train") if name in groups else ""
        splits.append(called.get(key, key) if key else split)
    return splits


def group_of(name: str, by: str | None) -> str:
    """The group of a photo: what ``by`` finds in its name, or the name itself.

    Raises:
        DataError: it finds nothing.
    """
    if by is None:
        return name_key(name)
    found = re.search(by, name_key(name))
    group = None if found is None else found[1] if found.re.groups else found[0]
    if not group:
        raise DataError(
            f"the expression {by!r} of the splits finds nothing in the name {name}; its first group, or its whole "
            "match, must be the group of each photo; change it"
        )
    return group


def _digest(text: str) -> bytes:
    """A hash; names that are no Unicode text, as a file system may have, count by their bytes."""
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape")).digest()


def _draw(groups: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Group -> split for those that are drawn; each share takes at least one while one is left for train."""
    ranked = sorted(groups, key=lambda group: (_digest(f"{seed}:{group}"), group))
    drawn: dict[str, str] = {}
    for split, share in shares.items():
        for _ in range(max(round(share * len(ranked)), 1)):
            if len(drawn) + 1 < len(ranked):
                drawn[ranked[len(drawn)]] = split
    return drawn


def _listed(names: Sequence[str], lists: Mapping[str, Sequence[str]]) -> list[str]:
    known = {name_key(name) for name in names}
    split_of: dict[str, str] = {}
    unknown: list[str] = []
    for split, listed in lists.items():
        for name in map(name_key, listed):
            if name not in known:
                unknown.append(name)
            elif (other := split_of.setdefault(name, split)) != split:
                raise DataError(f"{name} is in the lists of {other} and {split}; each photo may be in one; remove it")
    if unknown:
        hint = did_you_mean(unknown[0], sorted(known)[:2_000]) or f"; names look like {', '.join(names[:3])}"
        raise DataError(
            f"{len(unknown)} names in the lists of splits are of no photo, for example {', '.join(unknown[:3])}{hint}"
        )
    return [split_of.get(name_key(name), "train") for name in names]


def split_key(name: str) -> str:
    """The usual name of a split: "val" for Validation; others as they are."""
    folded = name.casefold()
    return next((key for key, names in SPLIT_NAMES.items() if folded in names), name)


def sorted_splits(names: Iterable[str]) -> list[str]:
    """The names in the order train, val, the others, each once."""
    order = {"train": 0, "val": 1}
    return sorted({*names}, key=lambda name: (order.get(split_key(name), 2), name))


def find_split(wanted: str, names: Iterable[str]) -> str | None:
    """The split of this name, or the one that usually means it, such as valid for val; None if there is none.

    Raises:
        DataError: several mean it.
    """
    names = sorted({*names})
    if wanted in names:
        return wanted
    meant = [name for name in names if split_key(name) == split_key(wanted)]
    if len(meant) > 1:
        raise DataError(f"split {wanted!r} may be any of {', '.join(meant)}; name one of them")
    return meant[0] if meant else None


def no_split(wanted: str, names: Iterable[str], place: str) -> DataError:
    """The error for a split that the data lack."""
    same = SPLIT_NAMES.get(split_key(wanted), ())
    also = f"; {', '.join(same)} mean the same" if len(same) > 2 else ""
    return DataError(
        f"{place} has no split {wanted!r}; splits found: {', '.join(sorted_splits(names)) or 'none'}{also}"
    )
