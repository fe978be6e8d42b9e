"""Splits: from folders, from lists of names, or at random where there are neither."""

from collections.abc import Mapping
from typing import Any

from densevit.data.discover.candidates import Candidate
from densevit.data.discover.roles import split_of
from densevit.data.discover.tree import File, Tree
from densevit.data.files import name_key
from densevit.data.splits import SplitConfig, sorted_splits, split_key
from densevit.errors import DataError
from densevit.io import read_lines

_MOST_LISTS = 50
_HELD_OUT_FIRST = {"test": 0, "val": 1}
"""A name in several lists counts for the one that keeps it from training."""


def splits_of_photos(tree: Tree, one: Candidate, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys for the splits of a candidate, and sentences on them."""
    if given.get("splits") is not None or given.get("pairs") is not None:
        return {}, []
    if names := one.splits:
        counts = ", ".join(f"{name} {sum(key[0] == name for key in one.pairs)}" for name in sorted_splits(names))
        remarks = [f"splits by folders: {counts}"]
        keys = {split_key(name) for name in names}
        if "val" in keys or "train" not in keys:
            return {}, remarks
        default = SplitConfig()
        text = f"there is no val; {default.val:.0%} of train are drawn for it (splits.val, splits.seed, --split-by)"
        return {"splits": default}, [*remarks, text]
    lists, remarks = _lists(tree, one)
    if not lists and (stems := _by_name(one)):
        counts = ", ".join(f"{split} {len(own)}" for split, own in stems.items())
        lists, remarks = stems, [f"splits by the names of photos: {counts}", *remarks]
    if lists:
        return {"splits": SplitConfig(names=lists)}, remarks
    default = SplitConfig()
    text = f"no splits are named; {default.val:.0%} of the photos are drawn for val with seed {default.seed}"
    return {"splits": default}, [*remarks, f"{text} (splits.val, splits.seed; --split-by for groups of photos)"]


def _lists(tree: Tree, one: Candidate) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Split -> names of photos, from text files such as ImageSets/Segmentation/train.txt."""
    known: dict[str, str] = {}
    for _, folder, name in one.pairs:
        full = f"{folder}/{name}" if folder else name
        photo = one.photos.files.get(("", folder, name))
        for form in (full, *((photo.inside.rsplit(".", 1)[0], photo.stem) if photo is not None else ())):
            known.setdefault(name_key(form), full)
    found: dict[str, dict[str, None]] = {}
    files: list[str] = []
    unread = [file.inside for file in tree.having(".yaml", ".yml", ".csv", ".json") if _is_split_list(file)]
    for file in [file for file in tree.having(".txt", ".lst") if split_of(file.stem)[1]][:_MOST_LISTS]:
        names = _read_list(tree, file, known)
        if names and file.stem.lower() != "trainval":
            files.append(file.inside)
            found.setdefault(split_key(split_of(file.stem)[1]), {}).update(dict.fromkeys(names))
    remarks = (
        [f"{', '.join(unread[:3])} may hold splits and is passed over; set splits.names to use them"] if unread else []
    )
    if len(found) < 2:
        return {}, remarks
    taken: dict[str, str] = {}
    twice: list[str] = []
    for split in sorted(found, key=lambda name: _HELD_OUT_FIRST.get(name, 2)):
        for name in found[split]:
            if taken.setdefault(name, split) != split:
                twice.append(name)
    lists = {s: tuple(name for name in found[s] if taken[name] == s) for s in sorted_splits(found)}
    counts = ", ".join(f"{split} {len(names)}" for split, names in lists.items())
    remarks.insert(0, f"splits by the lists {', '.join(files[:4])}: {counts}")
    if twice:
        remarks.append(f"{len(twice)} photos are in two lists, such as {twice[0]}; they are kept from training")
    if rest := len({*known.values()} - {*taken}):
        remarks.append(f"{rest} photos are in no list and become train")
    return lists, remarks


def _by_name(one: Candidate) -> dict[str, tuple[str, ...]]:
    """Split -> names of photos, where all names say it, such as train_001; empty otherwise."""
    found: dict[str, list[str]] = {}
    for _, folder, name in sorted(one.pairs):
        split = split_key(split_of(name)[1])
        if split not in ("train", "val", "test"):
            return {}
        found.setdefault(split, []).append(f"{folder}/{name}" if folder else name)
    return {split: tuple(found[split]) for split in sorted_splits(found)} if {"train", "val"} <= found.keys() else {}


def _is_split_list(file: File) -> bool:
    stem = file.stem.lower()
    return "split" in stem or (bool(split_of(file.stem)[1]) and "coco" not in stem and "instances" not in stem)


def _read_list(tree: Tree, file: File, known: Mapping[str, str]) -> list[str]:
    """The photos of a list, by name or path with or without extension; empty if it lists something else."""
    try:
        lines = read_lines(tree.path(file), "names of photos")
    except DataError:
        return []
    names = [found for line in lines if (found := _photo(line, known)) is not None]
    return names if 2 * len(names) >= len(lines) or len(names) >= 20 else []


def _photo(line: str, known: Mapping[str, str]) -> str | None:
    for entry in (line, line.split()[0]):
        path = name_key(entry.replace("\\", "/").removeprefix("./").strip("/"))
        for form in (path, path.rsplit(".", 1)[0], path.rpartition("/")[2], path.rpartition("/")[2].rsplit(".", 1)[0]):
            if form in known:
                return known[form]
    return None
