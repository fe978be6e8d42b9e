"""Photos, and the sizes of their targets."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from densevit.doctor.context import Context
from densevit.doctor.facts import MaskFacts, PhotoFacts, SampleFacts, TargetFacts, size_text
from densevit.doctor.rules import Findings
from densevit.types import Size

EXTREME_ASPECT = 4.0
ENLARGED = 1.5
"""A photo that must be enlarged by a larger factor to cover the crop is called small."""

SMALLEST_SIDE = 32
"""Without a known crop, a photo with a shorter side is called small: it has hardly any patches."""


def check_photos(context: Context, findings: Findings) -> None:
    """Check size, colours and content of the photos, split by split."""
    for split in context.splits:
        photos = [photo for _, photo in context.of(PhotoFacts, split.name)]
        if photos:
            _check_sizes(photos, context.crop, split.name, findings)
            _check_pixels(photos, split.name, findings)


def _check_sizes(photos: list[PhotoFacts], crop: Size | None, split: str, findings: Findings) -> None:
    total = len(photos)
    (usual, number), *_ = Counter(photo.upright_size for photo in photos).most_common(1)
    odd = [photo for photo in photos if photo.upright_size not in {usual, usual[::-1]}]
    if odd and number >= 0.9 * total:
        text = f"photos are not {size_text(usual)} like the others, but for example {size_text(odd[0].upright_size)}"
        findings.add_share("photo-sizes", odd, total, text, split=split)

    least, factor = (crop, ENLARGED) if crop else ((SMALLEST_SIDE, SMALLEST_SIDE), 1.0)
    small = [p for p in photos if p.upright_size[0] * factor < least[0] or p.upright_size[1] * factor < least[1]]
    if small:
        goal = f"enlarged over {factor:g} times to cover the crop of" if crop else "smaller than"
        smallest = min((photo.upright_size for photo in small), key=min)
        text = f"photos are {goal} {size_text(least)}, the smallest {size_text(smallest)}"
        findings.add_share("photo-small", small, total, text, split=split)

    long = [photo for photo in photos if _aspect(photo) > EXTREME_ASPECT]
    if long:
        longest = size_text(max(long, key=_aspect).upright_size)
        text = f"photos are over {EXTREME_ASPECT:g} times as long as wide: {longest}"
        findings.add_share("photo-aspect", long, total, text, split=split)


def _aspect(photo: PhotoFacts) -> float:
    return max(photo.upright_size) / min(photo.upright_size)


def _check_pixels(photos: list[PhotoFacts], split: str, findings: Findings) -> None:
    peak = max((p.peak for p in photos if p.is_dark), default=0)
    tests: tuple[tuple[str, Callable[[PhotoFacts], bool], str], ...] = (
        ("photo-grey", lambda p: p.grey and not p.blank, "are grey"),
        ("photo-transparent", lambda p: p.transparent, "have transparent parts"),
        ("photo-dark", lambda p: p.is_dark, f"hold 16-bit values that stay low, at most {peak}"),
        ("photo-blank", lambda p: p.blank, "have one colour everywhere"),
        ("photo-frames", lambda p: p.frames > 1 and p.format != "MPO", "hold several frames"),
    )
    for code, test, text in tests:
        findings.add_share(code, [p for p in photos if test(p)], len(photos), f"photos {text}", split=split)


Fault = tuple[SampleFacts, PhotoFacts, TargetFacts]


def check_target_sizes(context: Context, findings: Findings) -> None:
    """Check that each target covers its photo, also with EXIF orientation."""
    for split in context.splits:
        total = 0
        by_code: dict[str, list[Fault]] = {}
        for sample, photo in context.of(PhotoFacts, split.name):
            total += len(sample.files()) - 1
            for code, target in size_faults(sample):
                by_code.setdefault(code, []).append((sample, photo, target))
        for code, faults in by_code.items():
            text, hint = _words(code, faults)
            files = [target for _, _, target in faults]
            findings.add_share(code, files, total, f"targets {text}", split=split.name, hint=hint)


def size_faults(sample: SampleFacts) -> Iterator[tuple[str, TargetFacts]]:
    """(code, target) of every target of a sample whose size or orientation is not that of the photo."""
    photo = sample.photo
    if not isinstance(photo, PhotoFacts):
        return
    for prefix, target in (("mask", sample.masks), ("depth", sample.depth), ("values", sample.values)):
        if not isinstance(target, TargetFacts):
            continue
        if target.size == photo.upright_size:
            # A half turn or a mirror image keeps the size, so the size cannot prove the mask right.
            if photo.orientation != 1 and (photo.orientation < 5 or photo.size[0] == photo.size[1]):
                yield "exif-unclear", target
        elif photo.orientation >= 5 and target.size == photo.size:
            yield "exif-mask-unturned", target
        elif target.size == photo.upright_size[::-1] and prefix != "values":
            yield f"{prefix}-transposed", target
        else:
            yield f"{prefix}-size", target


def _words(code: str, faults: list[Fault]) -> tuple[str, str]:
    _, photo, target = faults[0]
    if code == "exif-unclear":
        return "belong to photos with an EXIF orientation that keeps the size", _exif_hint(faults)
    if code == "exif-mask-unturned":
        size = size_text(photo.upright_size)
        return f"are {size_text(target.size)} like the file of their photo, which EXIF turns to {size}", ""
    pair = f"for example {size_text(target.size)} for a photo of {size_text(photo.upright_size)}"
    if code.endswith("transposed"):
        return f"have height and width swapped, {pair}", ""
    same = sum(same_aspect(sample) for sample, _, _ in faults) if code == "mask-size" else 0
    hint = f"{same} of them have the aspect of their photo and can be resized." if same else ""
    return f"differ in size from their photo, {pair}", hint


def same_aspect(sample: SampleFacts) -> bool:
    """Whether mask and photo differ only in scale, up to a pixel's rounding."""
    if not isinstance(sample.photo, PhotoFacts) or not isinstance(sample.masks, TargetFacts):
        return False
    (h, w), (mask_h, mask_w) = sample.photo.upright_size, sample.masks.size
    return abs(h * mask_w - w * mask_h) <= max(h, w, mask_h, mask_w)


def _exif_hint(faults: list[Fault]) -> str:
    gains = [
        sample.masks.fits[photo.orientation - 1] - sample.masks.fits[0]
        for sample, photo, _ in faults
        if isinstance(sample.masks, MaskFacts) and sample.masks.fits is not None
    ]
    gain = float(np.mean(gains)) if gains else 0.0
    if abs(gain) < 0.03:
        return ""
    if gain > 0:
        return "The outlines of the masks match better when turned like the photo, so the masks are probably wrong."
    return "The outlines of the masks match the turned photos, so the masks are probably right."
