"""Photos that occur twice, within a split and across splits: equal pixels, or nearly equal by a perceptual hash."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Material
from densevit.doctor.facts import THUMB_SIZE, MaskFacts, PhotoFacts, SampleFacts
from densevit.doctor.rules import Findings

MAX_BITS = 3
"""Bits of 64 in which the hashes of near-duplicates may differ; four bands of 16 bits then have one that is equal."""

MIN_CORRELATION = 0.99
"""Of their grey thumbnails, which brightness and contrast don't change."""

MIN_CONTRAST = 8.0
"""Standard deviation of a thumbnail below which a hash says nothing: fog, night, a wall."""

_LONGEST = 64
"""Neighbours that a photo is compared with in one band, so that thousands of like photos cost no square."""

Pair = tuple[int, int]


def check_copies(material: Material, found: Findings) -> None:
    """Copies and near-copies."""
    seen = list(material.photos())
    exact = _groups(seen)
    _report_exact(exact, found)
    copies = {id(sample) for group in exact for sample, _ in group[1:]}
    single = [(sample, photo) for sample, photo in seen if id(sample) not in copies]
    _report_near(single, near_pairs([photo for _, photo in single]), found)


Photos = list[tuple[SampleFacts, PhotoFacts]]


def _groups(seen: Photos) -> list[Photos]:
    by_digest: dict[bytes, Photos] = {}
    for sample, photo in seen:
        if not photo.blank:
            by_digest.setdefault(photo.digest, []).append((sample, photo))
    return [group for group in by_digest.values() if len(group) > 1]


def _report_exact(groups: list[Photos], found: Findings) -> None:
    within: dict[str, list[Photos]] = {}
    across: dict[tuple[str, str], list[Photos]] = {}
    for group in groups:
        splits = sorted({sample.split for sample, _ in group})
        for split in splits:
            own = [pair for pair in group if pair[0].split == split]
            if len(own) > 1:
                within.setdefault(split, []).append(own)
        for first in splits:
            for second in splits[splits.index(first) + 1 :]:
                across.setdefault((first, second), []).append(
                    [next(p for p in group if p[0].split == split) for split in (first, second)]
                )
    for split, twins in within.items():
        photos = sum(len(group) for group in twins)
        what = f"{photos} photos are {len(twins)} photos in truth: the others are copies with equal pixels"
        found.add("photo-twice", what, _paths(twins), split=split)
    differ = [group for group in groups if _masks_differ(group)]
    if differ:
        what = f"{len(differ)} photos occur more than once, with masks that differ"
        files = [mask.path for group in differ for s, _ in group if isinstance(mask := s.masks, MaskFacts)]
        found.add("photo-twice-masks-differ", what, files)
    for (first, second), pairs in across.items():
        what = f"{len(pairs)} photos are in {first} and in {second}, with equal pixels"
        found.add("leak-exact", what, _paths(pairs))


def _masks_differ(group: Photos) -> bool:
    """By their histograms, which a copy of the mask shares."""
    masks = [sample.masks for sample, _ in group if isinstance(sample.masks, MaskFacts)]
    return any(
        not (np.array_equal(a.values, b.values) and np.array_equal(a.counts, b.counts)) for a, b in pairwise(masks)
    )


def _report_near(photos: Photos, pairs: list[Pair], found: Findings) -> None:
    within: dict[str, list[Photos]] = {}
    across: dict[tuple[str, str], list[Photos]] = {}
    for a, b in pairs:
        pair = [photos[a], photos[b]]
        first, second = (sample.split for sample, _ in pair)
        if first == second:
            within.setdefault(first, []).append(pair)
        else:
            across.setdefault((min(first, second), max(first, second)), []).append(pair)
    for split, twins in within.items():
        number = len({photo.path for pair in twins for _, photo in pair})
        found.add("photo-near", f"{number} photos are nearly equal to another", _paths(twins), split=split)
    for (one, two), twins in across.items():
        number = len({photo.path for pair in twins for sample, photo in pair if sample.split == two})
        found.add(
            "leak-near",
            f"{number} photos of {two} are nearly equal to one of {one}, or to its mirror image",
            _paths(twins),
        )


def _paths(groups: list[Photos]) -> list[str]:
    """Each file once, copies side by side."""
    return list(dict.fromkeys(photo.path for group in groups for _, photo in group))


def near_pairs(photos: list[PhotoFacts]) -> list[Pair]:
    """Pairs of photos that look alike, mirrored or not, by difference hash (dHash) and then by thumbnail.

    Cost: sorting, and at most ``_LONGEST`` comparisons for each photo, band and mirror image.
    """
    if len(photos) < 2:
        return []
    thumbs = np.frombuffer(b"".join(p.thumb for p in photos), np.uint8).reshape(-1, *THUMB_SIZE).astype(np.float32)
    rich = np.flatnonzero(thumbs.std(axis=(1, 2)) >= MIN_CONTRAST)
    thumbs = thumbs[rich]
    mirrored = thumbs[:, :, ::-1]
    straight, turned = _hashes(thumbs), _hashes(mirrored)
    units, mirrored_units = _units(thumbs), _units(mirrored)
    found = np.zeros(0, np.int64)  # a * number + b
    recent: list[NDArray[np.int64]] = []
    for a, b, mirror in _candidates(straight, turned):
        alike = (units[a] * (mirrored_units if mirror else units)[b]).sum(axis=1) >= MIN_CORRELATION
        low, high = np.minimum(a, b)[alike], np.maximum(a, b)[alike]
        recent.append((low * len(rich) + high)[low < high])
        if len(recent) >= _LONGEST:  # the same pair comes again with every band
            found, recent = np.unique(np.concatenate([found, *recent])), []
    found = np.unique(np.concatenate([found, *recent]))
    return [(int(rich[code // len(rich)]), int(rich[code % len(rich)])) for code in found.tolist()]


def _hashes(thumbs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits for each thumbnail: whether it gets brighter from one place to the next."""
    coarse = thumbs.reshape(len(thumbs), 8, 2, 9, 2).mean(axis=(2, 4))
    bits = np.diff(coarse, axis=2) > 0
    return np.packbits(bits.reshape(len(thumbs), 64), axis=1).view(np.uint64)[:, 0]


def _candidates(
    straight: NDArray[np.uint64], turned: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
    """(a, b, whether one of them is mirrored): pairs with hashes close to each other; may repeat."""
    number = len(straight)
    for hashes, mirror in ((straight, False), (np.concatenate([straight, turned]), True)):
        bands = hashes.view(np.uint16).reshape(-1, 4)
        for band in range(4):
            order = np.lexsort((hashes, bands[:, band]))
            sorted_bands = bands[order, band]
            for step in range(1, min(_LONGEST, len(order) - 1) + 1):
                same = np.flatnonzero(sorted_bands[step:] == sorted_bands[:-step])
                if not same.size:
                    break
                a, b = order[same], order[same + step]
                close = _bits(hashes[a] ^ hashes[b]) <= MAX_BITS
                if mirror:  # one of them straight, one mirrored
                    close &= (a < number) != (b < number)
                if close.any():
                    yield a[close] % number, b[close] % number, mirror


def _units(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thumbnails as vectors of mean 0 and length 1, whose product is their correlation."""
    flat = thumbs.reshape(len(thumbs), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)).clip(1e-6)


def _bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many bits of each word are set."""
    return np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64)
