"""How masks are encoded, and whether the numbers in them are the intended classes."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.mask_values import MaskValues, judge_values
from densevit.doctor.context import Context, Labelled
from densevit.doctor.facts import MaskFacts, ShapeFacts
from densevit.doctor.rules import Findings, listed

_BLUR_VALUES, _BLUR_SHARE = 8, 0.25
"""A mask with at least this many numbers without a class, which cover at most this share of it, was smoothed."""

_TURN_GAIN, _TURN_VOTES, _TURN_MASKS = 0.05, 0.75, 8
"""Masks are turned if that raises the correlation by this much on average, in this share of at least so many masks."""

_TURNS = (
    *("as they are", "mirrored left to right", "turned upside down", "mirrored top to bottom"),
    *("transposed", "turned right", "transposed and turned upside down", "turned left"),
)
"""EXIF orientations 1 to 8 in words."""


def check_masks(context: Context, findings: Findings) -> None:
    """Check encodings, numbers and contents."""
    _check_encodings(context, findings)
    _check_strays(context, findings)
    labelled = context.indexed_masks()
    masks = [mask for mask, _ in labelled]
    fault = encoding_fault(context)
    _check_contents(context, context.class_counts(), fault, findings)
    if not labelled:
        return
    if fault is None:
        _check_range(context, labelled, findings)
    else:
        _report_encoding(fault, context, masks, findings)
    _check_palettes(masks, findings)
    _check_turned(masks, findings)


def _check_encodings(context: Context, findings: Findings) -> None:
    masks = [mask for _, mask in context.of(MaskFacts)]
    total = len(masks)
    masks = [mask for mask in masks if mask.read is None]
    jpeg = [mask for mask in masks if mask.is_lossy]
    findings.add_share("mask-jpeg", jpeg, total, "masks are JPEG files, whatever their suffix")
    findings.add_share("mask-floats", [mask for mask in masks if mask.has_floats], total, "masks hold floats")
    coloured = [mask for mask in masks if not mask.is_lossy and mask.has_channels]
    if coloured:
        modes = " or ".join(sorted({mask.mode for mask in coloured}))
        text = f"masks have mode {modes}, with up to {max(mask.num_values for mask in coloured)} colours"
        findings.add_share("mask-colours", coloured, total, text, hint=_colour_hint(coloured, context))


def _colour_hint(coloured: list[MaskFacts], context: Context) -> str:
    equal = sum(not mask.colours for mask in coloured)
    if equal:
        return f"In {equal} of them the channels are equal, so each is the class number, and --write-fixed takes one."
    known = sum(not unknown_colours(mask, context.colours).size for mask in coloured)
    if known:
        return f"The colours of {known} are in the colour map."
    if not context.colours:
        return ""
    odd = np.unique(np.concatenate([unknown_colours(mask, context.colours)[:64] for mask in coloured]))
    return f"The colour map lacks {listed([f'#{colour:06x}' for colour in odd], 4)}."


def unknown_colours(mask: MaskFacts, colours: Iterable[int]) -> NDArray[np.int64]:
    """The colours of a mask that a colour map lacks."""
    return np.setdiff1d(mask.values, np.fromiter(colours, np.int64))


def encoding_fault(context: Context) -> str | None:
    """The code of the wrong encoding that explains all masks together, if there is one."""
    masks = [mask for mask, _ in context.indexed_masks()]
    if not masks or context.reduces_zero:
        return None
    values = _all_values(masks)
    num_classes = context.num_classes
    if (values.tolist() == [0, 255] and (num_classes or 0) <= 255) or (
        num_classes in {None, 1, 2} and _mixed_0_255(masks)
    ):
        return "mask-0-255"
    spread = "mask-spread" if spread_values(context) is not None else None
    if num_classes is None:
        return spread
    if num_classes > 2 and len(values) > 2 and values.max() >= num_classes:
        steps = stretched(num_classes)
        if np.isin(values, steps).all() and np.isin(steps[1:-1], values).any():
            return "mask-stretched"
    named = values[values != context.ignore_index]
    if named.size and named.min() == 1 and named.max() == num_classes:
        return "mask-off-by-one"
    return spread


def stretched(num_classes: int) -> NDArray[np.int64]:
    """Class numbers spread over 0..255."""
    return np.rint(np.arange(num_classes) * 255 / (num_classes - 1)).astype(np.int64)


def spread_values(context: Context) -> MaskValues | None:
    """What the numbers of all masks stand for, where they are not those of classes, by the rule for unknown masks."""
    masks = [mask for mask, _ in context.indexed_masks()]
    number = context.num_classes
    known = set() if number is None else {*range(number), context.ignore_index}
    if not masks or context.reduces_zero or known.issuperset(_all_values(masks).tolist()):
        return None
    judged = judge_values([(mask.values, mask.counts) for mask in masks])
    return judged if len(judged.keys.get("class_values", ())) > 2 else None


def _check_strays(context: Context, findings: Findings) -> None:
    """Find numbers that none of the config's ``class_values`` is."""
    for split in context.splits:
        values = split.config.class_values
        masks = [mask for _, mask in context.of(MaskFacts, split.name)] if values is not None else []
        known = [*(values or ()), *split.config.ignore_values, context.ignore_index]
        odd = {mask.path: mask for mask in masks if not np.isin(mask.values, known).all()}
        if not odd:
            continue
        numbers = np.setdiff1d(_all_values([*odd.values()]), known)
        pixels = sum(int(mask.counts[~np.isin(mask.values, known)].sum()) for mask in masks)
        code = "mask-strays" if split.config.stray_values == "refuse" else "mask-nearest"
        text = f"masks hold {listed(numbers.tolist(), 8)}, in {pixels} pixels together, which no class has"
        findings.add_share(code, [*odd.values()], len(masks), text, split=split.name)


def _all_values(masks: list[MaskFacts]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([mask.values for mask in masks]))


def _mixed_0_255(masks: list[MaskFacts]) -> bool:
    """Whether some masks have 1 and some 255 but none both: then 255 is another way to write 1, not ignored pixels."""
    kinds = Counter(tuple(np.isin((1, 255), mask.values)) for mask in masks)
    others = np.setdiff1d(_all_values(masks), (0, 1, 255)).size
    return not others and kinds[True, True] == 0 and kinds[True, False] > 0 and kinds[False, True] > 0


def _report_encoding(code: str, context: Context, masks: list[MaskFacts], findings: Findings) -> None:
    values, num_classes = _all_values(masks), context.num_classes
    affected, hint = masks, ""
    if code == "mask-0-255":
        affected = [mask for mask in masks if 255 in mask.values]
        text = "masks hold " + ("only 0 and 255" if len(values) == 2 else "0 and 255 where others hold 0 and 1")
    elif code == "mask-stretched":
        text = f"masks hold {listed(values.tolist(), 6)}, {num_classes} classes spread over 0..255"
    elif code == "mask-spread":
        judged = spread_values(context)
        assert judged is not None
        text, hint = f"masks hold {judged.held}", _spread_hint(judged.keys, num_classes)
        text += " and stray numbers" if "stray_values" in judged.keys else ""
    else:
        text = f"masks hold 1 to {num_classes} and never 0, for {num_classes} classes"
    findings.add_share(code, affected, len(masks), text, hint=hint)


def _spread_hint(keys: Mapping[str, Any], num_classes: int | None) -> str:
    values = [*keys["class_values"]]
    strays = " and stray_values: nearest" if "stray_values" in keys else ""
    if num_classes is not None and num_classes != len(values):
        return f"They look like {len(values)} classes, but {num_classes} are listed; if so, list them."
    return f"They look like {len(values)} classes: set class_values: {values}{strays}."


def _check_range(context: Context, masks: Sequence[tuple[MaskFacts, NDArray[np.int64]]], findings: Findings) -> None:
    """Find numbers without a class."""
    num_classes, ignore = context.num_classes, context.ignore_index
    if num_classes is None:
        return
    blurred: list[MaskFacts] = []
    wrong: list[MaskFacts] = []
    numbers: set[int] = set()
    for mask, labels in masks:
        outside = (labels != ignore) & ((labels < 0) | (labels >= num_classes))
        if not outside.any():
            continue
        share = mask.counts[outside].sum() / mask.counts.sum()
        if outside.sum() + mask.num_values - len(mask.values) >= _BLUR_VALUES and share <= _BLUR_SHARE:
            blurred.append(mask)
        else:
            wrong.append(mask)
            numbers |= set(mask.values[outside].tolist())
    findings.add_share("mask-blurred", blurred, len(masks), "masks hold many rare numbers without a class")
    if wrong:
        accepted = f"{num_classes} classes, 0..{num_classes - 1}, and {ignore} for ignored pixels"
        text = f"masks hold {listed(sorted(numbers), 8)}, but there are {accepted}"
        hint = _range_hint(numbers, [mask for mask, _ in masks], context)
        findings.add_share("mask-range", wrong, len(masks), text, hint=hint)


def _range_hint(numbers: set[int], masks: list[MaskFacts], context: Context) -> str:
    num_classes = context.num_classes or 0
    if numbers == {num_classes} and not context.reduces_zero:
        return f"If 0 means no class, set reduce_zero_label: true; else the name of class {num_classes} is missing."
    if numbers in ({255}, {0, 255}):
        return "If 255 means ignored, set ignore_index: 255 in classes.json."
    if min(numbers) >= 1000:
        return "Numbers over 1000 are often class x 1000 + instance; export masks of classes only."
    if len(_all_values(masks)) > 4 * max(num_classes, 1):
        return "So many numbers are probably instances or the grey values of a photo, not classes."
    return ""


def _check_contents(context: Context, masks: list[Labelled], fault: str | None, findings: Findings) -> None:
    """Find masks with no class or a single one."""
    ignore = context.ignore_index
    ignored_masks: list[MaskFacts | ShapeFacts] = []
    single: list[MaskFacts | ShapeFacts] = []
    ignored = total = 0
    for labels, counts, mask in masks:
        named = labels if fault == "mask-0-255" else labels[labels != ignore]
        ignored += int(counts[labels == ignore].sum())
        total += int(counts.sum())
        if not named.size:
            ignored_masks.append(mask)
        elif len(named) == 1 and len(labels) <= 2:
            single.append(mask)
    findings.add_share("mask-ignored", ignored_masks, len(masks), "masks are ignored everywhere")
    if context.num_classes != 1:
        findings.add_share("mask-one-class", single, len(masks), "masks hold only one class")
    if ignored > total / 2 and fault != "mask-0-255":
        hint = ""
        if is_without_background(context):
            hint = "What no shape covers is ignored: if it has a class, set background to its name."
        findings.add("mask-ignored-share", f"{ignored / total:.0%} of all mask pixels are ignored", hint=hint)


def is_without_background(context: Context) -> bool:
    """Whether masks are drawn from shapes, and what none covers has no class."""
    return any(split.is_drawn and split.config.background is None for split in context.splits)


def _check_palettes(masks: list[MaskFacts], findings: Findings) -> None:
    """Find numbers with several colours: a program made up a palette for each file."""
    palettes = [
        (mask, list(zip(mask.values.tolist(), mask.palette.tolist(), strict=True)))
        for mask in masks
        if mask.palette is not None
    ]
    counts = Counter(entry for _, entries in palettes for entry in entries if entry[0] != 255)
    colours: dict[int, list[int]] = {}  # of each number, the most frequent first
    for (value, colour), _ in counts.most_common():
        colours.setdefault(value, []).append(colour)
    odd = [mask for mask, entries in palettes if any(colours.get(v, [colour])[0] != colour for v, colour in entries)]
    if odd:
        value = min(value for value, several in colours.items() if len(several) > 1)
        shown = " and ".join(f"#{colour:06x}" for colour in colours[value][:2])
        text = f"palette masks have other colours than the rest; {value} is {shown}"
        findings.add_share("mask-palettes", odd, len(palettes), text)


def _check_turned(masks: list[MaskFacts], findings: Findings) -> None:
    masks = [mask for mask in masks if mask.fits is not None]
    if len(masks) < _TURN_MASKS:
        return
    scores = np.array([mask.fits for mask in masks])  # (masks, 8)
    best = int(scores.mean(axis=0).argmax())
    gain = scores[:, best] - scores[:, 0]
    if best and gain.mean() > _TURN_GAIN and (gain > 0).mean() >= _TURN_VOTES:
        before, after = scores[:, 0].mean(), scores[:, best].mean()
        better = [mask for mask, won in zip(masks, gain > 0, strict=True) if won]
        fits = f"correlation {after:.2f}, not {before:.2f}"
        text = f"masks match the outlines of their photos better {_TURNS[best]}: {fits}"
        findings.add_share("mask-turned", better, len(masks), text)
