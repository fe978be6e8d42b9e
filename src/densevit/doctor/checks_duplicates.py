"""Photos that occur twice, in one split or two: equal pixels, equal files, or nearly equal by a perceptual hash."""

import hashlib
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Context
from densevit.doctor.facts import THUMB_SIZE, MaskFacts, PhotoFacts, SampleFacts
from densevit.doctor.layout import Split
from densevit.doctor.rules import Findings

MAX_BITS = 3
"""Bits of 64 in which the hashes of near-duplicates may differ; of four bands of 16 bits, one is then equal."""

MIN_CORRELATION = 0.99
"""Least correlation of their grey thumbnails, which brightness and contrast do not change."""

MIN_CONTRAST = 8.0
"""Standard deviation of a thumbnail below which a hash says nothing: fog, night, a wall."""

MOST_FILES = 400
"""Files that are hashed if photos are not read; a real leak shows in the first few."""

_HEAD_BYTES = 1 << 20
"""Bytes of each file that are hashed; photos of equal size that agree so far are the same."""

_MAX_NEIGHBOURS = 64
"""Photos with which one is compared in a band, so that the cost does not grow with the square."""

Photos = list[tuple[SampleFacts, PhotoFacts]]


def check_duplicates(context: Context, findings: Findings) -> None:
    """Find copies and near-copies among photos that were read."""
    photos = context.of(PhotoFacts)
    by_digest: dict[bytes, Photos] = {}
    for sample, photo in photos:
        if not photo.blank:
            by_digest.setdefault(photo.digest, []).append((sample, photo))
    groups = [group for group in by_digest.values() if len(group) > 1]
    totals = {split.name: len(context.of(PhotoFacts, split.name)) for split in context.splits}

    within, across = _by_split(groups)
    for split, twins in within.items():
        copies = sum(len(twin) - 1 for twin in twins)
        what = f"{copies} of {totals[split]} photos are copies of others, with equal pixels"
        findings.add("photo-twice", what, _paths(twins), split=split)
    differ = [group for group in groups if _masks_differ(group)]
    masks = [sample.masks for group in differ for sample, _ in group if isinstance(sample.masks, MaskFacts)]
    if differ:
        findings.add("photo-twice-masks-differ", f"{len(masks)} masks belong to equal photos, but differ", masks)
    for (first, second), pairs in across.items():
        what = f"{len(pairs)} of {totals[second]} photos in {second} are also in {first}, with equal pixels"
        findings.add("leak-exact", what, _paths(pairs))

    copied = {id(sample) for group in groups for sample, _ in group[1:]}
    single = [(sample, photo) for sample, photo in photos if id(sample) not in copied]
    near = near_pairs([photo for _, photo in single])
    within, across = _by_split([[single[a], single[b]] for a, b in near])
    for split, pairs in within.items():
        files = _paths(pairs)
        findings.add_share("photo-near", files, totals[split], "photos are nearly equal to another", split=split)
    for (first, second), pairs in across.items():
        number = len({photo.path for pair in pairs for sample, photo in pair if sample.split == second})
        what = f"{number} of {totals[second]} photos in {second} are nearly equal to one in {first}, perhaps mirrored"
        findings.add("leak-near", what, _paths(pairs))


def _by_split(groups: list[Photos]) -> tuple[dict[str, list[Photos]], dict[tuple[str, str], list[Photos]]]:
    """Equal photos within each split, and one pair of them for every two splits."""
    within: dict[str, list[Photos]] = {}
    across: dict[tuple[str, str], list[Photos]] = {}
    for group in groups:
        members: dict[str, Photos] = {}
        for sample, photo in group:
            members.setdefault(sample.split, []).append((sample, photo))
        for split, photos in members.items():
            if len(photos) > 1:
                within.setdefault(split, []).append(photos)
        for first, second in combinations(sorted(members), 2):
            across.setdefault((first, second), []).append([members[first][0], members[second][0]])
    return within, across


def _masks_differ(group: Photos) -> bool:
    """Compare the masks by their histograms."""
    masks = [sample.masks for sample, _ in group if isinstance(sample.masks, MaskFacts)]
    return any(
        not (np.array_equal(a.values, b.values) and np.array_equal(a.counts, b.counts)) for a, b in pairwise(masks)
    )


def _paths(groups: list[Photos]) -> list[str]:
    """Each file once, copies side by side."""
    return list(dict.fromkeys(photo.path for group in groups for _, photo in group))


def check_equal_files(splits: list[Split], findings: Findings) -> None:
    """Find photos with equal files in two splits without decoding them."""
    for first, second in combinations(splits, 2):
        pairs = _equal_files(list(first.photos.values()), list(second.photos.values()))
        if pairs:
            total = len(second.photos)
            what = f"{len(pairs)} of {total} photos in {second.name} are also in {first.name}, with equal files"
            findings.add("leak-exact", what, [path for pair in pairs for path in pair])


def _equal_files(first: list[Path], second: list[Path]) -> list[tuple[Path, Path]]:
    by_size: dict[int, list[Path]] = {}
    for path in first:
        by_size.setdefault(_num_bytes(path), []).append(path)
    pairs: list[tuple[Path, Path]] = []
    digests: dict[Path, bytes] = {}
    num_hashed = 0
    for path in second:
        same_size = by_size.get(_num_bytes(path), []) if _num_bytes(path) > 0 else []
        if not same_size or num_hashed >= MOST_FILES:
            continue
        num_hashed += 1 + len(same_size)
        digest = _digest(path)
        for other in same_size:
            digests[other] = digests.get(other) or _digest(other)
            if digests[other] == digest != b"":
                pairs.append((other, path))
                break
    return pairs


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> bytes:
    """Hash of the first megabyte; empty if the file cannot be read, which other checks report."""
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(file.read(_HEAD_BYTES), digest_size=16).digest()
    except OSError:
        return b""


def near_pairs(photos: list[PhotoFacts]) -> list[tuple[int, int]]:
    """Pairs of photos that look alike, mirrored or not, by difference hash (dHash) and then by thumbnail.

    Cost: sorting, and at most ``_MAX_NEIGHBOURS`` comparisons per photo, band and mirror image.
    """
    if len(photos) < 2:
        return []
    thumbs = np.frombuffer(b"".join(p.thumb for p in photos), np.uint8).reshape(-1, *THUMB_SIZE).astype(np.float32)
    rich = np.flatnonzero(thumbs.std(axis=(1, 2)) >= MIN_CONTRAST)
    thumbs = thumbs[rich]
    mirrored = thumbs[:, :, ::-1]
    units, mirrored_units = _units(thumbs), _units(mirrored)
    pairs = np.zeros(0, np.int64)  # each pair as first * len(rich) + second
    recent: list[NDArray[np.int64]] = []
    for a, b, is_mirrored in _candidates(_hashes(thumbs), _hashes(mirrored)):
        alike = (units[a] * (mirrored_units if is_mirrored else units)[b]).sum(axis=1) >= MIN_CORRELATION
        low, high = np.minimum(a, b)[alike], np.maximum(a, b)[alike]
        recent.append((low * len(rich) + high)[low < high])
        if len(recent) >= _MAX_NEIGHBOURS:  # bands repeat pairs, so they are dropped from time to time
            pairs, recent = np.unique(np.concatenate([pairs, *recent])), []
    pairs = np.unique(np.concatenate([pairs, *recent]))
    return [(int(rich[pair // len(rich)]), int(rich[pair % len(rich)])) for pair in pairs.tolist()]


def _hashes(thumbs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """64 bits per thumbnail: whether it gets brighter from one place to the next."""
    coarse = thumbs.reshape(len(thumbs), 8, 2, 9, 2).mean(axis=(2, 4))
    bits = np.diff(coarse, axis=2) > 0
    return np.packbits(bits.reshape(len(thumbs), 64), axis=1).view(np.uint64)[:, 0]


def _candidates(
    straight: NDArray[np.uint64], mirrored: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], bool]]:
    """(a, b, whether one of them is mirrored): pairs with similar hashes; may repeat."""
    number = len(straight)
    for hashes, is_mirrored in ((straight, False), (np.concatenate([straight, mirrored]), True)):
        bands = hashes.view(np.uint16).reshape(-1, 4)
        for band in range(4):
            # Photos whose hashes agree in this band become neighbours.
            order = np.lexsort((hashes, bands[:, band]))
            sorted_bands = bands[order, band]
            for step in range(1, min(_MAX_NEIGHBOURS, len(order) - 1) + 1):
                same = np.flatnonzero(sorted_bands[step:] == sorted_bands[:-step])
                if not same.size:
                    break
                a, b = order[same], order[same + step]
                differing = np.unpackbits((hashes[a] ^ hashes[b]).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
                close = differing <= MAX_BITS
                if is_mirrored:
                    close &= (a < number) != (b < number)
                if close.any():
                    yield a[close] % number, b[close] % number, is_mirrored


def _units(thumbs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Thumbnails as vectors of mean 0 and length 1, whose product is their correlation."""
    flat = thumbs.reshape(len(thumbs), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.sqrt((flat**2).sum(axis=1, keepdims=True)).clip(1e-6)
