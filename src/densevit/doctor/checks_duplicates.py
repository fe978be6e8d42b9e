"""Photos that occur twice, in one split or two: equal pixels, equal files, or nearly equal by a perceptual hash."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.context import Context
from densevit.doctor.facts import THUMB_SIZE, MaskFacts, PhotoFacts, SampleFacts
from densevit.doctor.layout import Split
from densevit.doctor.probe import unit_vectors
from densevit.doctor.rules import Findings

MAX_BITS = 3
"""Bits of 64 in which the hashes of near-duplicates may differ; of four bands of 16 bits, one is then equal."""

MIN_CORRELATION = 0.99
"""Least correlation of their grey thumbnails, which brightness and contrast do not change."""

MIN_CONTRAST = 8.0
"""Standard deviation of a thumbnail below which a hash says nothing: fog, night, a wall."""

MOST_FILES = 400
"""Files that are hashed if not all photos are read; a real leak shows in the first few."""

_HEAD_BYTES = 1 << 20
"""Bytes of each file that are hashed; photos of equal size that agree so far are the same."""

_MAX_NEIGHBOURS = 64
"""Photos with which one is compared in a band, so that the cost does not grow with the square."""

Group = list[tuple[str, str]]
"""(split, path) of photos that are equal."""

Leaks = dict[tuple[str, str], list[list[str]]]
"""For every two splits, a path in the first and an equal one in the second."""


def check_duplicates(context: Context, findings: Findings) -> None:
    """Find copies and near-copies, or only equal files in two splits if only a part of the photos was read."""
    if context.sampled:
        _check_equal_files(context.splits, findings)
        return
    photos = context.of(PhotoFacts)
    totals = {split.name: len(context.of(PhotoFacts, split.name)) for split in context.splits}
    by_digest: dict[bytes, list[tuple[SampleFacts, PhotoFacts]]] = {}
    for sample, photo in photos:
        if not photo.blank:
            by_digest.setdefault(photo.digest, []).append((sample, photo))
    groups = [group for group in by_digest.values() if len(group) > 1]

    within, across = _by_split([[(sample.split, photo.path) for sample, photo in group] for group in groups])
    for split, copies in within.items():
        number = sum(len(group) - 1 for group in copies)
        text = f"{number} of {totals[split]} photos are copies of others, with equal pixels"
        findings.add("photo-twice", text, _paths(copies), split=split)
    masks = [[sample.masks for sample, _ in group if isinstance(sample.masks, MaskFacts)] for group in groups]
    different = [mask for group in masks if _differ(group) for mask in group]
    if different:
        text = f"{len(different)} masks belong to equal photos, but differ"
        findings.add("photo-twice-masks-differ", text, different)
    _report_leaks("leak-exact", across, totals, "also in {}, with equal pixels", findings)

    copied = {id(sample) for group in groups for sample, _ in group[1:]}
    single = [(sample, photo) for sample, photo in photos if id(sample) not in copied]
    names = [(sample.split, photo.path) for sample, photo in single]
    within, across = _by_split([[names[a], names[b]] for a, b in near_pairs([photo for _, photo in single])])
    for split, pairs in within.items():
        text = "photos are nearly equal to another"
        findings.add_share("photo-near", _paths(pairs), totals[split], text, split=split)
    _report_leaks("leak-near", across, totals, "nearly equal to one in {}, perhaps mirrored", findings)


def _check_equal_files(splits: list[Split], findings: Findings) -> None:
    """Find photos with equal files in two splits without decoding them."""
    by_size: dict[int, dict[str, list[Path]]] = {}
    for split in splits:
        for path in split.photos.values():
            size = path.stat().st_size if path.exists() else 0
            by_size.setdefault(size, {}).setdefault(split.name, []).append(path)
    by_content: dict[tuple[int, bytes], Group] = {}
    num_hashed = 0
    for size, of_size in by_size.items():
        if size == 0 or len(of_size) == 1 or num_hashed >= MOST_FILES:
            continue
        for name, paths in of_size.items():
            num_hashed += len(paths)
            for path in paths[:MOST_FILES]:
                with suppress(OSError), path.open("rb") as file:  # other checks report what cannot be read
                    digest = hashlib.blake2b(file.read(_HEAD_BYTES), digest_size=16).digest()
                    by_content.setdefault((size, digest), []).append((name, str(path)))
    _, across = _by_split(list(by_content.values()))
    totals = {split.name: len(split.photos) for split in splits}
    _report_leaks("leak-exact", across, totals, "also in {}, with equal files", findings)


def _by_split(groups: list[Group]) -> tuple[dict[str, list[list[str]]], Leaks]:
    """Paths of equal photos within each split, and a pair of them for every two splits."""
    within: dict[str, list[list[str]]] = {}
    across: Leaks = {}
    for group in groups:
        members: dict[str, list[str]] = {}
        for split, path in group:
            members.setdefault(split, []).append(path)
        for split, paths in members.items():
            if len(paths) > 1:
                within.setdefault(split, []).append(paths)
        for first, second in combinations(sorted(members), 2):
            across.setdefault((first, second), []).append([members[first][0], members[second][0]])
    return within, across


def _report_leaks(code: str, across: Leaks, totals: dict[str, int], text: str, findings: Findings) -> None:
    for (first, second), pairs in across.items():
        number = len({path for _, path in pairs})
        findings.add(code, f"{number} of {totals[second]} photos in {second} are {text.format(first)}", _paths(pairs))


def _paths(groups: list[list[str]]) -> list[str]:
    """Each file once, equal ones side by side."""
    return list(dict.fromkeys(path for group in groups for path in group))


def _differ(masks: list[MaskFacts]) -> bool:
    """Compare masks by their histograms."""
    return len({(mask.values.tobytes(), mask.counts.tobytes()) for mask in masks}) > 1


def near_pairs(photos: list[PhotoFacts]) -> list[tuple[int, int]]:
    """Pairs of photos that look alike, mirrored or not, by difference hash (dHash) and then by thumbnail.

    Cost: sorting, and at most ``_MAX_NEIGHBOURS`` comparisons per photo, band and mirror image.
    """
    if not photos:
        return []
    thumbs = np.frombuffer(b"".join(p.thumb for p in photos), np.uint8).reshape(-1, *THUMB_SIZE).astype(np.float32)
    rich = np.flatnonzero(thumbs.std(axis=(1, 2)) >= MIN_CONTRAST)
    if len(rich) < 2:
        return []
    thumbs = thumbs[rich]
    mirrored = thumbs[:, :, ::-1]
    units, mirrored_units = unit_vectors(thumbs), unit_vectors(mirrored)
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
