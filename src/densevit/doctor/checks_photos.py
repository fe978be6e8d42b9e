"""Photos by themselves, and the size of what belongs to them."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from densevit.doctor.context import Material
from densevit.doctor.facts import DepthFacts, MaskFacts, PhotoFacts, SampleFacts, ValueFacts
from densevit.doctor.rules import Findings
from densevit.types import Size

EXTREME_ASPECT = 4.0
ENLARGED = 1.5
"""A photo that must be enlarged by more to cover the crop is called small."""

SMALLEST_SIDE = 32
"""Without a crop to compare with: below, a photo has hardly any patches."""


def check_photos(material: Material, found: Findings) -> None:
    """Size, colours and content of the photos, split by split."""
    for split in material.splits:
        photos = [photo for sample, photo in material.photos() if sample.split == split.name]
        if photos:
            _check_sizes(photos, material.crop, split.name, found)
            _check_pixels(photos, split.name, found)


def _check_sizes(photos: list[PhotoFacts], crop: Size | None, split: str, found: Findings) -> None:
    sizes = Counter(photo.upright_size for photo in photos)
    (usual, number), *_ = sizes.most_common(1)
    odd = [photo for photo in photos if photo.upright_size not in {usual, usual[::-1]}]
    if odd and number >= 0.9 * len(photos):
        first = odd[0].upright_size
        what = f"{len(odd)} of {len(photos)} photos are not {_size(usual)} as the others, {_size(first)} for one"
        found.add("photo-sizes", what, [photo.path for photo in odd], split=split)
    _check_small(photos, crop, split, found)
    long = [p for p in photos if max(p.upright_size) > EXTREME_ASPECT * min(p.upright_size)]
    if long:
        worst = max(long, key=lambda p: max(p.upright_size) / min(p.upright_size)).upright_size
        what = f"{len(long)} of {len(photos)} photos are over {EXTREME_ASPECT:g} times as long as wide: {_size(worst)}"
        found.add("photo-aspect", what, [photo.path for photo in long], split=split)


def _check_small(photos: list[PhotoFacts], crop: Size | None, split: str, found: Findings) -> None:
    least = crop or (SMALLEST_SIDE, SMALLEST_SIDE)
    factor = ENLARGED if crop else 1.0
    small = [p for p in photos if p.upright_size[0] * factor < least[0] or p.upright_size[1] * factor < least[1]]
    if small:
        smallest = min((photo.upright_size for photo in small), key=min)
        goal = f"enlarged over {factor:g} times to cover the crop of" if crop else "smaller than"
        what = f"{len(small)} of {len(photos)} photos are {goal} {_size(least)}, the smallest {_size(smallest)}"
        found.add("photo-small", what, [photo.path for photo in small], split=split)


def _check_pixels(photos: list[PhotoFacts], split: str, found: Findings) -> None:
    tests: tuple[tuple[str, Callable[[PhotoFacts], bool], str], ...] = (
        ("photo-grey", lambda p: p.grey and not p.blank, "are grey"),
        ("photo-transparent", lambda p: p.transparent, "have transparent parts"),
        ("photo-dark", lambda p: p.peak is not None and 255 < p.peak < 16384, "hold 16-bit values that stay low"),
        ("photo-blank", lambda p: p.blank, "have one colour everywhere"),
        ("photo-frames", lambda p: p.frames > 1 and p.format != "MPO", "hold several pictures"),
    )
    for code, test, what in tests:
        chosen = [photo for photo in photos if test(photo)]
        if chosen:
            peak = max((p.peak or 0 for p in chosen), default=0)
            more = f", {peak} at most" if code == "photo-dark" else ""
            files = [photo.path for photo in chosen]
            found.add(code, f"{len(chosen)} of {len(photos)} photos {what}{more}", files, split=split)


def check_target_sizes(material: Material, found: Findings) -> None:
    """Whether each target covers its photo, and what EXIF orientation has to do with it."""
    for split in material.splits:
        by_code: dict[str, list[tuple[SampleFacts, str]]] = {}
        for sample in material.samples:
            if sample.split == split.name:
                for code, path in size_faults(sample):
                    by_code.setdefault(code, []).append((sample, path))
        for code, faults in by_code.items():
            what, hint = _words(code, faults)
            found.add(code, what, [path for _, path in faults], split=split.name, hint=hint)


def size_faults(sample: SampleFacts) -> Iterator[tuple[str, str]]:
    """(code, file) of every target of a sample whose size or orientation is not that of the photo."""
    photo = sample.photo
    if not isinstance(photo, PhotoFacts):
        return
    for prefix, target in (("mask", sample.masks), ("depth", sample.depth), ("values", sample.values)):
        if not isinstance(target, MaskFacts | DepthFacts | ValueFacts):
            continue
        turned = photo.orientation != 1
        if target.size == photo.upright_size:
            if turned and (photo.orientation < 5 or photo.size[0] == photo.size[1]):
                yield "exif-unclear", target.path
        elif photo.orientation >= 5 and target.size == photo.size:
            yield "exif-mask-unturned", target.path
        elif target.size == photo.upright_size[::-1] and prefix != "values":
            yield f"{prefix}-transposed", target.path
        else:
            yield f"{prefix}-size", target.path


def _words(code: str, faults: list[tuple[SampleFacts, str]]) -> tuple[str, str]:
    sample, path = faults[0]
    photo = sample.photo
    assert isinstance(photo, PhotoFacts)
    target = next(f for f in (sample.masks, sample.depth, sample.values) if f is not None and f.path == path)
    assert isinstance(target, MaskFacts | DepthFacts | ValueFacts)
    number = len(faults)
    if code == "exif-unclear":
        return f"{number} photos with targets have an EXIF orientation that keeps the size", _exif_hint(faults)
    if code == "exif-mask-unturned":
        turned = f"which EXIF turns to {_size(photo.upright_size)}"
        return f"{number} targets are {_size(target.size)} like the file of their photo, {turned}", ""
    pair = f"{_size(target.size)} for a photo of {_size(photo.upright_size)}"
    if code.endswith("transposed"):
        return f"{number} targets have height and width swapped, {pair} for one", ""
    alike = sum(same_aspect(s) for s, _ in faults)
    hint = (
        f"{alike} of them have the aspect of their photo and can be resized." if code == "mask-size" and alike else ""
    )
    return f"{number} targets have another size than their photo, {pair} for one", hint


def same_aspect(sample: SampleFacts) -> bool:
    """Mask and photo differ in scale alone, up to a pixel's rounding."""
    if not isinstance(sample.photo, PhotoFacts) or not isinstance(sample.masks, MaskFacts):
        return False
    (h, w), (mask_h, mask_w) = sample.photo.upright_size, sample.masks.size
    return abs(h * mask_w - w * mask_h) <= max(h, w, mask_h, mask_w)


def _exif_hint(faults: list[tuple[SampleFacts, str]]) -> str:
    """What the outlines of masks say about it."""
    votes = []
    for sample, _ in faults:
        photo, mask = sample.photo, sample.masks
        if isinstance(photo, PhotoFacts) and isinstance(mask, MaskFacts) and mask.fits is not None:
            votes.append(mask.fits[photo.orientation - 1] - mask.fits[0])
    if not votes or abs(float(np.mean(votes))) < 0.03:
        return ""
    if np.mean(votes) > 0:
        return (
            "The outlines of the masks fit the photos better when turned as the tag says, so they are probably wrong."
        )
    return "The outlines of the masks fit the turned photos, so they are probably right."


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
