"""Splits: from folders, from lists of names, or at random where there are neither."""

from collections.abc import Iterator, Mapping
from typing import Any

from densevit.data.discover.candidates import Candidate
from densevit.data.discover.roles import role_of, split_of, words_of
from densevit.data.discover.split_files import Lists, read_lists
from densevit.data.discover.tree import Tree, counted
from densevit.data.files import name_key
from densevit.data.splits import SplitConfig, divide, sorted_splits, split_key

_HELD_OUT_FIRST = {"test": 0, "val": 1}
"""A name in several lists counts for the one that keeps it from training."""


def splits_of_photos(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys for the splits of a candidate, and sentences on them."""
    if given.get("splits") is not None or given.get("pairs") is not None:
        return {}, []
    default = SplitConfig()
    if names := one.splits:
        counts = ", ".join(f"{name} {sum(key[0] == name for key in one.pairs)}" for name in sorted_splits(names))
        remarks = [f"splits by folders and files: {counts}"]
        keys = {split_key(name) for name in names}
        if "val" in keys or "train" not in keys:
            return {}, remarks
        text = f"there is no val; {default.val:.0%} of train are drawn for it (splits.val, splits.seed, --split-by)"
        return {"splits": default}, [*remarks, text]
    lists, remarks = _by_lists(tree, one)
    if not lists and (stems := _by_name(one)):
        counts = ", ".join(f"{split} {len(own)}" for split, own in stems.items())
        lists, remarks = stems, [*remarks, f"splits by the names of photos: {counts}"]
    if lists:
        if "val" not in lists:
            lists = _with_val(lists, one)
            text = f"{default.val:.0%} of train are drawn for it: {counted(len(lists.get('val', ())), 'photo')}"
            remarks.append(f"there is no val; {text} (splits.names)")
        return {"splits": SplitConfig(names=lists)}, remarks
    return {"splits": default}, [*remarks, said_random()]


def said_random() -> str:
    """The sentence on splits that are drawn."""
    default = SplitConfig()
    text = f"no splits are named; {default.val:.0%} of the photos are drawn for val with seed {default.seed}"
    return f"{text} (splits.val, splits.seed; --split-by for groups of photos)"


def _by_lists(tree: Tree, one: Candidate) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Split -> names of photos, from files such as ImageSets/Segmentation/train.txt or splits.yaml."""
    found, unread = read_lists(tree, _forms(one))
    remarks = []
    if unread:
        text = "may hold splits and is passed over; set splits.names to use them"
        remarks.append(f"{', '.join(unread[:3])} {text}")
    useful = [lists for lists in found if {"val", "test"} & lists.names.keys()]
    if not useful:
        only = [lists.files[0] for lists in found if len({*lists.names["train"]}) < len(one.pairs)]
        if only:
            remarks.append(f"{', '.join(only[:3])} lists photos of train only and is passed over")
        return {}, remarks
    best = max(useful, key=lambda lists: (_of_masks(lists), len({n for names in lists.names.values() for n in names})))
    if other := [lists.files[0] for lists in useful if lists is not best]:
        remarks.append(f"other lists of splits, such as {other[0]}, are passed over; set splits.names to use them")
    lists, said = _disjoint(best)
    if rest := len(one.pairs) - sum(map(len, lists.values())):
        said.append(f"in no list: {counted(rest, 'photo')}, taken for train")
    return lists, [*said, *remarks]


def _of_masks(lists: Lists) -> bool:
    """Whether a folder says that these are lists for segmentation, as ImageSets/Segmentation does."""
    return any(role_of(words_of(folder)) == "masks" for folder in lists.files[0].split("/")[:-1])


def _disjoint(found: Lists) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The names of each split, without those of another that keeps them from training."""
    taken: dict[str, str] = {}
    twice: dict[str, None] = {}
    for split in sorted(found.names, key=lambda name: _HELD_OUT_FIRST.get(name, 2)):
        for name in found.names[split]:
            if taken.setdefault(name, split) != split:
                twice[name] = None
    lists = {s: tuple(name for name in found.names[s] if taken[name] == s) for s in sorted_splits(found.names)}
    counts = ", ".join(f"{split} {len(names)}" for split, names in lists.items())
    remarks = [f"splits by the lists {', '.join(found.files[:4])}: {counts}"]
    if twice:
        remarks.append(f"in two lists: {counted(len(twice), 'photo')}, such as {next(iter(twice))}, kept from training")
    return {split: names for split, names in lists.items() if names}, remarks


def _forms(one: Candidate) -> dict[str, str]:
    """How lists may write a photo -> its name; without what several photos share."""
    known: dict[str, str] = {}
    shared: set[str] = set()
    for _, folder, name in one.pairs:
        full = f"{folder}/{name}" if folder else name
        photo = one.photos.files.get(("", folder, name))
        forms = {full, name, *((photo.inside.rsplit(".", 1)[0], photo.stem) if photo is not None else ())}
        for form in map(name_key, forms):
            if known.setdefault(form, full) != full:
                shared.add(form)
    return {form: full for form, full in known.items() if form not in shared}


def _names(one: Candidate) -> Iterator[str]:
    for _, folder, name in sorted(one.pairs):
        yield f"{folder}/{name}" if folder else name


def _by_name(one: Candidate) -> dict[str, tuple[str, ...]]:
    """Split -> names of photos, where all names say it, such as train_001; empty otherwise."""
    found: dict[str, list[str]] = {}
    for name in _names(one):
        split = split_key(split_of(name.rpartition("/")[2])[1])
        if split not in ("train", "val", "test"):
            return {}
        found.setdefault(split, []).append(name)
    lists = {split: tuple(found[split]) for split in sorted_splits(found)}
    return lists if "train" in found and len(found) > 1 else {}


def _with_val(lists: Mapping[str, tuple[str, ...]], one: Candidate) -> dict[str, tuple[str, ...]]:
    """The lists, with some photos of train drawn for val."""
    held_out = {name for split, names in lists.items() if split != "train" for name in names}
    train = [name for name in _names(one) if name not in held_out]
    splits = divide(train, [""] * len(train), SplitConfig())
    drawn = {s: tuple(n for n, own in zip(train, splits, strict=True) if own == s) for s in ("train", "val")}
    return {split: names for split, names in ({**lists, **drawn}).items() if names}
