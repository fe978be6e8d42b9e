"""Masks: how they were encoded, and whether the numbers in them are the classes that are meant."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import LOSSY, Material, is_indexed
from densevit.doctor.facts import MaskFacts, SampleFacts
from densevit.doctor.rules import Findings
from densevit.doctor.semantics import class_ids

Pairs = list[tuple[SampleFacts, MaskFacts]]

_BLUR_VALUES, _BLUR_SHARE = 8, 0.25
"""A mask with at least so many numbers without a class, which cover at most this share of it, was smoothed."""

_TURN_GAIN, _TURN_VOTES, _TURN_MASKS = 0.05, 0.75, 8
"""Masks are said to be turned if that fits better by this correlation on average, in this share of so many masks."""

_WAYS = (
    "as they are",
    "mirrored left to right",
    "turned upside down",
    "mirrored top to bottom",
    "transposed",
    "turned right",
    "transposed and turned upside down",
    "turned left",
)


def check_masks(material: Material, found: Findings) -> None:
    """Encodings, numbers and contents of the masks; each mask is counted by the first that explains it."""
    _check_encodings(material, found)
    plain = [(sample, mask) for sample, mask in material.masks() if is_indexed(mask)]
    if plain:
        wrong = encoding_fault(material)
        if wrong is not None:
            found.add(wrong, *_encoding_words(wrong, material, plain))
        else:
            _check_range(material, plain, found)
        _check_contents(material, plain, found)
        _check_palettes(plain, found)
        _check_turned(plain, found)


def _check_encodings(material: Material, found: Findings) -> None:
    masks = [mask for _, mask in material.masks()]
    if jpeg := [mask.path for mask in masks if mask.format in LOSSY]:
        found.add("mask-jpeg", f"{len(jpeg)} of {len(masks)} masks are JPEG files, whatever their suffix", jpeg)
    if floats := [mask.path for mask in masks if has_floats(mask)]:
        found.add("mask-floats", f"{len(floats)} of {len(masks)} masks hold floats", floats)
    coloured = [mask for mask in masks if mask.format not in LOSSY and has_channels(mask)]
    if not coloured:
        return
    equal = sum(not mask.colours for mask in coloured)
    known = sum(mask.colours and not unknown_colours(mask, material.colours).size for mask in coloured)
    number = max(mask.num_values for mask in coloured)
    what = f"{len(coloured)} of {len(masks)} masks have mode {_modes(coloured)}, with up to {number} colours"
    hint = ""
    if equal:
        hint = f"In {equal} of them the channels are equal, so any of them is the number, and --write-fixed takes it."
    elif known:
        hint = f"The colours of {known} are in the colour map."
    elif material.colours:
        odd = np.unique(np.concatenate([unknown_colours(mask, material.colours)[:64] for mask in coloured]))
        shown = ", ".join(f"#{int(colour):06x}" for colour in odd[:4])
        hint = f"The colour map lacks {shown}{' and others' if len(odd) > 4 else ''}."
    found.add("mask-colours", what, [mask.path for mask in coloured], hint=hint)


def has_channels(mask: MaskFacts) -> bool:
    """The reader refuses it for its channels."""
    return mask.colours or mask.mode in {"RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB"}


def has_floats(mask: MaskFacts) -> bool:
    """The reader refuses it for holding floats, although they are whole numbers."""
    return mask.mode == "F" or mask.mode.startswith("float")


def unknown_colours(mask: MaskFacts, colours: Iterable[int]) -> NDArray[np.int64]:
    """The colours of a mask that a colour map lacks."""
    return np.setdiff1d(mask.values, np.fromiter(colours, np.int64))


def encoding_fault(material: Material) -> str | None:
    """Which way of writing class numbers explains all masks together, if it is another than ours."""
    masks = [mask for _, mask in material.masks() if is_indexed(mask)]
    if not masks or any(split.config.reduce_zero_label for split in material.splits):
        return None
    values = np.unique(np.concatenate([mask.values for mask in masks]))
    count, ignore = material.num_classes, material.ignore_index
    if values.tolist() == [0, 255] or (count in {None, 1, 2} and _mixed_0_255(masks)):
        return "mask-0-255"
    if count is None:
        return None
    named = values[values != ignore]
    if count > 2 and len(values) > 2 and values.max() >= count:
        steps = stretched(count)
        if np.isin(values, steps).all() and np.isin(steps[1:-1], values).any():
            return "mask-stretched"
    if named.size and named.min() == 1 and named.max() == count:
        return "mask-off-by-one"
    return None


def stretched(num_classes: int) -> NDArray[np.int64]:
    """Class numbers spread over 0..255."""
    return np.rint(np.arange(num_classes) * 255 / (num_classes - 1)).astype(np.int64)


def _mixed_0_255(masks: list[MaskFacts]) -> bool:
    """Some masks say 1 and some 255, and none says both: then 255 is another way to write 1, and not ignored pixels."""
    kinds = Counter(tuple(np.isin((1, 255), mask.values)) for mask in masks)
    others = any(np.setdiff1d(mask.values, (0, 1, 255)).size for mask in masks)
    return not others and kinds[True, True] == 0 and kinds[True, False] > 0 and kinds[False, True] > 0


def _encoding_words(code: str, material: Material, masks: Pairs) -> tuple[str, list[str]]:
    values = np.unique(np.concatenate([mask.values for _, mask in masks]))
    if code == "mask-0-255":
        files = [mask.path for _, mask in masks if 255 in mask.values]
        other = "0 and 255 alone" if len(values) == 2 else "0 and 255 where others hold 0 and 1"
        return f"{len(files)} of {len(masks)} masks hold {other}", files
    files = [mask.path for _, mask in masks]
    if code == "mask-stretched":
        shown = ", ".join(str(value) for value in values[:6])
        more = ", ..." if len(values) > 6 else ""
        return f"{len(files)} masks hold {shown}{more}, {material.num_classes} classes spread over 0..255", files
    return f"{len(files)} masks hold 1 to {material.num_classes} and never 0, for {material.num_classes} classes", files


def _check_range(material: Material, masks: Pairs, found: Findings) -> None:
    """Numbers without a class."""
    count, ignore = material.num_classes, material.ignore_index
    if count is None:
        return
    blurred: list[str] = []
    files: list[str] = []
    totals: Counter[int] = Counter()
    for sample, mask in masks:
        labels = class_ids(mask, material.config(sample.split), ignore)
        wrong = (labels != ignore) & ((labels < 0) | (labels >= count))
        if not wrong.any():
            continue
        share = mask.counts[wrong].sum() / mask.counts.sum()
        if wrong.sum() + mask.num_values - len(mask.values) >= _BLUR_VALUES and share <= _BLUR_SHARE:
            blurred.append(mask.path)
            continue
        files.append(mask.path)
        totals.update(dict(zip(mask.values[wrong].tolist(), mask.counts[wrong].tolist(), strict=True)))
    if blurred:
        found.add(
            "mask-blurred", f"{len(blurred)} of {len(masks)} masks hold many rare numbers without a class", blurred
        )
    if not files:
        return
    worst = ", ".join(str(value) for value in sorted(totals)[:8]) + (", ..." if len(totals) > 8 else "")
    what = (
        f"{len(files)} of {len(masks)} masks hold {worst}, but there are {count} classes, 0..{count - 1}, "
        f"and {ignore} for ignored pixels"
    )
    found.add("mask-range", what, files, hint=_range_hint(totals, masks, material))


def _range_hint(totals: Counter[int], masks: Pairs, material: Material) -> str:
    count = material.num_classes
    reduced = any(split.config.reduce_zero_label for split in material.splits)
    if set(totals) == {count} and not reduced:
        return f"If 0 means no class, set reduce_zero_label: true; if not, the name of class {count} is missing."
    if set(totals) == {255} or set(totals) == {0, 255}:
        return "If 255 means ignored, set ignore_index: 255 in classes.json."
    if min(totals) >= 1000:
        return "Numbers over 1000 are often class x 1000 + instance; masks of classes alone are needed."
    known = {v for _, mask in masks for v in mask.values.tolist()}
    if len(known) > 4 * (count or 1):
        return "So many numbers are rather instances, or grey values of a photo, than classes."
    return ""


def _check_contents(material: Material, masks: Pairs, found: Findings) -> None:
    """Masks with nothing in them, or with one thing."""
    ignore, fault = material.ignore_index, encoding_fault(material)
    nothing, single = [], []
    ignored = total = 0
    for sample, mask in masks:
        labels = class_ids(mask, material.config(sample.split), ignore)
        rest = labels[labels != ignore] if fault != "mask-0-255" else labels
        ignored += int(mask.counts[labels == ignore].sum())
        total += int(mask.counts.sum())
        if not rest.size:
            nothing.append(mask.path)
        elif len(rest) == 1 and mask.num_values <= 2:
            single.append(mask.path)
    if nothing:
        found.add("mask-ignored", f"{len(nothing)} of {len(masks)} masks are ignored everywhere", nothing)
    if single and material.num_classes != 1:
        found.add("mask-one-class", f"{len(single)} of {len(masks)} masks hold one class alone", single)
    if ignored > total / 2 and fault != "mask-0-255":
        found.add("mask-ignored-share", f"{ignored / total:.0%} of all mask pixels are ignored")


def _check_palettes(masks: Pairs, found: Findings) -> None:
    """One number, different colours: the sign of palettes that a program made up for each file."""
    colours: dict[int, Counter[int]] = {}
    with_palette = [(mask, mask.palette) for _, mask in masks if mask.palette is not None]
    for mask, palette in with_palette:
        for value, colour in zip(mask.values.tolist(), palette.tolist(), strict=True):
            colours.setdefault(value, Counter())[colour] += 1
    usual = {value: counts.most_common(1)[0][0] for value, counts in colours.items()}
    odd = [
        mask.path
        for mask, palette in with_palette
        if any(usual[v] != c for v, c in zip(mask.values.tolist(), palette.tolist(), strict=True) if v != 255)
    ]
    if odd:
        value = next(v for v, counts in sorted(colours.items()) if len(counts) > 1 and v != 255)
        shown = " and ".join(f"#{c:06x}" for c, _ in colours[value].most_common(2))
        what = f"{len(odd)} of {len(with_palette)} palette masks have other colours than the rest; {value} is {shown}"
        found.add("mask-palettes", what, odd)


def _check_turned(masks: Pairs, found: Findings) -> None:
    fits = [(mask.path, mask.fits) for _, mask in masks if mask.fits is not None]
    if len(fits) < _TURN_MASKS:
        return
    scores = np.array([fit for _, fit in fits])  # (masks, 8)
    best = int(scores.mean(axis=0).argmax())
    gain = scores[:, best] - scores[:, 0]
    if best and gain.mean() > _TURN_GAIN and (gain > 0).mean() >= _TURN_VOTES:
        what = (
            f"outlines of {len(fits)} masks fit their photos better {_WAYS[best]}: correlation "
            f"{scores[:, best].mean():.2f} instead of {scores[:, 0].mean():.2f}"
        )
        found.add("mask-turned", what, [path for (path, _), won in zip(fits, gain > 0, strict=True) if won])


def _modes(masks: list[MaskFacts]) -> str:
    return " or ".join(sorted({mask.mode for mask in masks}))
