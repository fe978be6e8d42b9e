"""How often each class occurs, and where."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.checks_masks import encoding_fault
from densevit.doctor.context import TRAIN, VAL, Material, is_indexed
from densevit.doctor.rules import Findings
from densevit.doctor.semantics import class_ids

RARE_SHARE = 0.001
"""Of the labelled pixels; below, a class is called rare."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Classes of the masks of a split.

    Attributes:
        pixels: (K,) pixels of each class.
        photos: (K,) photos with it.
        ignored: pixels without a class.
        masks: masks counted.
    """

    pixels: NDArray[np.int64]
    photos: NDArray[np.int64]
    ignored: int
    masks: int


def histograms(material: Material) -> dict[str, Histogram]:
    """Per split; empty without a class table. Masks that cannot be meant as class numbers are left out."""
    count, ignore = material.num_classes, material.ignore_index
    if count is None:
        return {}
    found: dict[str, Histogram] = {}
    for split in material.splits:
        pixels, photos = np.zeros(count, np.int64), np.zeros(count, np.int64)
        ignored = masks = 0
        for sample, mask in material.masks():
            if sample.split != split.name or not is_indexed(mask):
                continue
            labels = class_ids(mask, split.config, ignore)
            valid = (labels >= 0) & (labels < count) & (labels != ignore)
            pixels[labels[valid]] += mask.counts[valid]
            photos[labels[valid]] += 1
            ignored += int(mask.counts[labels == ignore].sum())
            masks += 1
        if masks:
            found[split.name] = Histogram(pixels, photos, ignored, masks)
    return found


def check_classes_seen(material: Material, found: Findings) -> None:
    """Classes that are nowhere, in one split alone, or rare. Of a part of the files nothing is concluded."""
    by_split = histograms(material)
    if material.sampled or not by_split or material.classes is None or encoding_fault(material) is not None:
        return
    names = material.classes.names
    total = sum((h.pixels for h in by_split.values()), np.zeros(len(names), np.int64))
    if unseen := [i for i in range(len(names)) if not total[i]]:
        what = f"{_list(names, unseen)} of {len(names)} classes {_are(unseen)} in no mask"
        found.add("class-unseen", what, hint=_unseen_hint(unseen, material))
    train = next((by_split[name] for name in by_split if name in TRAIN), None)
    val = next((by_split[name] for name in VAL if name in by_split), None)
    if train is not None and val is not None:
        only_val = [i for i in range(len(names)) if val.pixels[i] and not train.pixels[i]]
        if only_val:
            found.add("class-val-only", f"{_list(names, only_val)} {_are(only_val)} in val and not in train")
        only_train = [i for i in range(len(names)) if train.pixels[i] and not val.pixels[i]]
        if only_train:
            found.add("class-train-only", f"{_list(names, only_train)} {_are(only_train)} in train and not in val")
    learnt = train or next(iter(by_split.values()))
    shares = learnt.pixels / max(int(learnt.pixels.sum()), 1)
    rare = [i for i in np.argsort(shares, kind="stable").tolist() if 0 < shares[i] < RARE_SHARE]
    if rare:
        shown = ", ".join(f"{names[i]} {shares[i]:.3%} in {learnt.photos[i]} photos" for i in rare[:6])
        more = f" and {len(rare) - 6} more" if len(rare) > 6 else ""
        found.add("class-rare", f"{len(rare)} classes cover under {RARE_SHARE:.1%} of the pixels: {shown}{more}")


def _unseen_hint(unseen: list[int], material: Material) -> str:
    reduced = any(split.config.reduce_zero_label for split in material.splits)
    last = (material.num_classes or 0) - 1
    if unseen == [0] and not reduced and last > 0:
        return "If numbers count from 1 in the masks, set reduce_zero_label: true."
    if unseen == [last] and reduced:
        return "If numbers count from 0 in the masks, leave reduce_zero_label out."
    return ""


def _list(names: tuple[str, ...], chosen: list[int], most: int = 8) -> str:
    shown = ", ".join(f"{names[i]} ({i})" for i in chosen[:most])
    return shown + (f" and {len(chosen) - most} more" if len(chosen) > most else "")


def _are(chosen: list[int]) -> str:
    return "is" if len(chosen) == 1 else "are"
