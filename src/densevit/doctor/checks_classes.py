"""How often each class occurs, and where."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.checks_masks import encoding_fault, is_without_background
from densevit.doctor.context import TRAIN, VAL, Context
from densevit.doctor.rules import Findings, listed

RARE_SHARE = 0.001
"""A class with a smaller share of the labelled pixels is called rare."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Classes of the masks of a split.

    Attributes:
        pixels: (K,) pixels of each class.
        photos: (K,) photos with each class.
        ignored: pixels without a class.
    """

    pixels: NDArray[np.int64]
    photos: NDArray[np.int64]
    ignored: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """(K,) share of each class in the labelled pixels."""
        return self.pixels / max(int(self.pixels.sum()), 1)

    @property
    def ignored_share(self) -> float:
        """Share of ignored pixels in all that are a class or ignored."""
        return self.ignored / max(self.ignored + int(self.pixels.sum()), 1)


def histograms(context: Context) -> dict[str, Histogram]:
    """Histogram of each split with masks of class numbers; empty without a class table."""
    num_classes, ignore = context.num_classes, context.ignore_index
    by_split: dict[str, Histogram] = {}
    if num_classes is None:
        return by_split
    for split in context.splits:
        pixels, photos = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
        ignored = 0
        masks = context.class_counts(split.name)
        for labels, counts, _ in masks:
            valid = (labels >= 0) & (labels < num_classes) & (labels != ignore)
            np.add.at(pixels, labels[valid], counts[valid])
            photos[np.unique(labels[valid])] += 1
            ignored += int(counts[labels == ignore].sum())
        if masks:
            by_split[split.name] = Histogram(pixels, photos, ignored)
    return by_split


def check_classes_seen(context: Context, findings: Findings) -> None:
    """Find classes that occur nowhere, in one split only, or rarely.

    If only a part of the files was read, it is only said that they hold a single class.
    """
    by_split = histograms(context)
    if not by_split or context.classes is None or encoding_fault(context) is not None:
        return
    names = context.classes.names
    present = np.flatnonzero(np.sum([h.pixels for h in by_split.values()], axis=0))
    if len(present) == 1 and len(names) > 1:
        looked_at = sum(len(context.class_counts(split)) for split in by_split)
        findings.add(
            "mask-all-one-class", f"the only class in all {looked_at} masks that were read is {names[present[0]]}"
        )
    if context.sampled:
        return

    def report(code: str, absent: NDArray[np.bool_], text: str, hint: str = "") -> None:
        indices = np.flatnonzero(absent)
        if len(indices):
            shown = listed([f"{names[i]} ({i})" for i in indices], 8)
            findings.add(code, f"{len(indices)} of {len(names)} classes are {text}: {shown}", hint=hint)

    unseen = np.sum([h.pixels for h in by_split.values()], axis=0) == 0
    report("class-unseen", unseen, "in no mask", _unseen_hint(unseen, context))
    train = next((by_split[name] for name in by_split if name in TRAIN), None)
    val = next((by_split[name] for name in VAL if name in by_split), None)
    if train is not None and val is not None:
        in_train, in_val = train.pixels > 0, val.pixels > 0
        report("class-val-only", in_val & ~in_train, "in val but not in train")
        report("class-train-only", in_train & ~in_val, "in train but not in val")
    learnt = train or next(iter(by_split.values()))
    rare = [i for i in np.argsort(learnt.shares, kind="stable") if 0 < learnt.shares[i] < RARE_SHARE]
    if rare:
        shown = listed([f"{names[i]} {learnt.shares[i]:.3%} in {learnt.photos[i]} photos" for i in rare], 6)
        text = f"{len(rare)} of {len(names)} classes cover less than {RARE_SHARE:.1%} of the pixels each: {shown}"
        findings.add("class-rare", text)


def _unseen_hint(unseen: NDArray[np.bool_], context: Context) -> str:
    if unseen.any() and is_without_background(context):
        return "If one is the class of all that no shape covers, set background to its name."
    if unseen.sum() == 1 and len(unseen) > 1:
        if unseen[0] and not context.reduces_zero:
            return "If numbers count from 1 in the masks, set reduce_zero_label: true."
        if unseen[-1] and context.reduces_zero:
            return "If numbers count from 0 in the masks, leave reduce_zero_label out."
    return ""
