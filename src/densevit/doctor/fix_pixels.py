"""The corrected content of one target, where that is beyond doubt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.checks_masks import spread_values, stretched, unknown_colours
from densevit.doctor.checks_photos import same_aspect, size_faults
from densevit.doctor.context import Context
from densevit.doctor.facts import MaskFacts, PhotoFacts, SampleFacts, ShapeFacts, TargetFacts
from densevit.doctor.probe import mask_pixels
from densevit.io.stored import read_stored, resize_nearest, turn_upright

Fixed = tuple[NDArray[Any], list[str]]
"""The corrected content of a file, and the codes that it settles."""


def fix_target(context: Context, fault: str | None, sample: SampleFacts, target: TargetFacts) -> Fixed | None:
    """The corrected content of a file; None if there is nothing to fix, or no safe way."""
    codes = [code for code, faulty in size_faults(sample) if faulty is target]
    if isinstance(target, MaskFacts):
        return _fix_mask(context, fault, sample, target, codes)
    if "exif-mask-unturned" not in codes or isinstance(target, ShapeFacts):
        return None
    assert isinstance(sample.photo, PhotoFacts)
    stored = read_stored(Path(target.path))
    pixels = turn_upright(turn_upright(stored.pixels, stored.orientation), sample.photo.orientation)
    if stored.format != "NPY":
        if pixels.dtype.kind not in "iu" or pixels.ndim != 2 or pixels.min() < 0 or pixels.max() > 65535:
            return None  # PNG cannot hold it
        pixels = pixels.astype(np.uint16)
    return pixels, ["exif-mask-unturned"]


def _fix_mask(
    context: Context, fault: str | None, sample: SampleFacts, mask: MaskFacts, size_codes: list[str]
) -> Fixed | None:
    if mask.read is not None or mask.is_lossy or (mask.colours and unknown_colours(mask, context.colours).size):
        return None
    turn = "exif-mask-unturned" in size_codes
    resize = "mask-size" in size_codes and same_aspect(sample)
    renumber = fault is not None and mask.is_indexed and (fault != "mask-spread" or bool(fixed_values(context)))
    if not (turn or resize or mask.has_channels or mask.has_floats or renumber):
        return None
    stored = read_stored(Path(mask.path))
    labels = turn_upright(mask_pixels(stored)[0], stored.orientation).astype(np.int64)
    codes = ["mask-colours"] if mask.has_channels else ["mask-floats"] if mask.has_floats else []
    if mask.colours:
        colours, numbers = np.array(sorted(context.colours.items()), np.int64).T
        labels = numbers[np.searchsorted(colours, labels)]
    elif renumber and fault is not None:
        if fault != "mask-0-255" or 255 in mask.values:
            codes.append(fault)
        labels = _renumber(labels, fault, context)
    assert isinstance(sample.photo, PhotoFacts)
    if turn:
        labels = turn_upright(labels, sample.photo.orientation)
        codes.append("exif-mask-unturned")
    if resize:
        labels = resize_nearest(labels, sample.photo.upright_size)
        codes.append("mask-size")
    if not codes or labels.min() < 0 or labels.max() > 65535:
        return None
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16), codes


def _renumber(labels: NDArray[np.int64], fault: str, context: Context) -> NDArray[np.int64]:
    if fault == "mask-0-255":
        return np.where(labels == 255, 1, labels)
    if fault == "mask-off-by-one":
        return np.where(labels == context.ignore_index, labels, labels - 1)
    if fault == "mask-spread":
        return to_nearest(labels, fixed_values(context))
    return np.searchsorted(stretched(context.num_classes or 2), labels)


def fixed_values(context: Context) -> tuple[int, ...]:
    """The number of every class in masks of spread numbers; empty if there are not as many as classes."""
    judged = spread_values(context)
    values = judged.keys["class_values"] if judged is not None else ()
    return tuple(values) if context.num_classes in {None, len(values)} else ()


def to_nearest(labels: NDArray[np.int64], values: Sequence[int]) -> NDArray[np.int64]:
    """The class whose number is nearest, the lower one of two."""
    numbers = np.array(values, np.int64)
    return np.searchsorted((numbers[1:] + numbers[:-1]) // 2, labels, side="left")
