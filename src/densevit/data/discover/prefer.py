"""Which of several ways to read a data set is meant, where the others are versions of it or show no classes."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit.data.discover.candidates import KINDS, Candidate
from densevit.data.discover.contents import SAMPLES, packed, read_masks
from densevit.data.discover.groups import Group
from densevit.data.discover.pairing import file_pairs
from densevit.data.discover.roles import role_of, words_of
from densevit.data.discover.tree import File, Tree
from densevit.errors import DataError
from densevit.io.stored import read_numbers

Kind = Literal["images", "masks", "depth", "values"]

_KINDS: tuple[Kind, ...] = ("images", *KINDS)
_WORD = re.compile(r"\d+(?:st|nd|rd|th)(?![a-z])|\d+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_ORDINAL = re.compile(r"\d+(?:st|nd|rd|th)?|first|second|third|fourth")
_PEOPLE = re.compile("ho|human|manual|doctor|gt|(annotation|annotator|observer|expert|rater|reader|grader)s?")
"""Words next to which a number counts those who drew the masks."""

_IMPROVED = frozenset(("filt", "filtered", "refined", "corrected", "fixed", "clean", "cleaned", "final"))
"""Words of versions that replace the plain one; others, such as eroded, are made from it for a purpose."""

_FIELD = frozenset(("mask", "masks", "fov", "roi"))
_FIELD_SHARE, _FIELD_FIT = 0.25, 0.98
"""A field of view covers that share of each photo at least; so much of its rows and columns are in one piece."""

_AGREE = 0.4
"""Of the pixels that either of two masks gives a class, those with the same one; two people have 0.5 on vessels."""


def preferred(tree: Tree, found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates without fields of view, second annotators and other versions of what another one has.

    The remarks of those that are left say what is passed over, and the option that takes it.
    """
    left, said = [*found], dict[str, None]()
    for rule in _RULES:
        for one, other in permutations(found, 2):
            kind = _difference(one, other)
            if kind is not None and one in left and other in left and (reason := rule(tree, one, other, kind)):
                left.remove(other)
                path = other.config_keys()[kind]
                said[f"{path} is passed over, as it {reason}; --{kind} '{path}' takes it instead"] = None
    for one in left:
        one.remarks += said
    return left


def _difference(one: Candidate, other: Candidate) -> Kind | None:
    """The one kind of files that two candidates have from different places; None if they differ in more."""
    if one.targets.keys() != other.targets.keys() or one.keys or other.keys:
        return None
    files = {kind: (_files(one, kind), _files(other, kind)) for kind in _KINDS}
    kinds = [kind for kind, (mine, theirs) in files.items() if mine | theirs and not mine & theirs]
    return kinds[0] if len(kinds) == 1 else None


def _group(one: Candidate, kind: Kind) -> Group | None:
    return one.photos if kind == "images" else one.targets.get(kind)


def _files(one: Candidate, kind: Kind) -> set[str]:
    group = _group(one, kind)
    return set() if group is None else {file.inside for file in group.files.values()}


def _is_field_of_view(tree: Tree, one: Candidate, other: Candidate, kind: Kind) -> str:
    """Whether masks only say where a camera sees anything: one large piece without gaps in each, by their name too."""
    if kind != "masks" or not {*words_of(other.targets["masks"].place), *words_of(_example(other))} & _FIELD:
        return ""
    if not _all_large(tree, other.targets["masks"]) or _all_large(tree, one.targets["masks"]):
        return ""
    return "is one large area in each photo, such as the field of view of a camera"


def _example(one: Candidate) -> str:
    return next(iter(one.targets["masks"].files.values())).stem


def _all_large(tree: Tree, masks: Group) -> bool:
    shapes = [pixels != 0 for file in masks.sample(4 * SAMPLES) if (pixels := _numbers(tree, file)) is not None]
    return bool(shapes) and all(map(_is_large, shapes)) and _binary(tree, masks)


def _is_large(shape: NDArray[np.bool_]) -> bool:
    """Whether an area is large, and nearly all rows and columns that it has are in one piece."""
    if shape.mean() < _FIELD_SHARE or shape.all():
        return False
    for lines in (shape, shape.T):
        starts = np.count_nonzero(lines[:, 1:] & ~lines[:, :-1], axis=1) + lines[:, 0]
        if np.mean(starts[starts > 0] == 1) < _FIELD_FIT:
            return False
    return True


def _is_further_annotator(tree: Tree, one: Candidate, other: Candidate, kind: Kind) -> str:
    """Whether names of masks differ in a number or name of who drew them, and the first is in ``one``."""
    if kind != "masks" or (found := _common_target(one, other, kind)) is None:
        return ""
    mine, theirs = map(_words, found)
    ours, others = [*(mine - theirs).elements()], [*(theirs - mine).elements()]
    if not ours or len(ours) != len(others) or ours > others or not _alike(tree, one, other):
        return ""
    counted = all(map(_ORDINAL.fullmatch, [*ours, *others]))
    if counted and (any(word[-1].isalpha() for word in ours) or any(map(_PEOPLE.fullmatch, mine))):
        return "is by another annotator"
    if len({*ours}) > 1 or any(role_of((word,)) for word in (*ours, *others)) or not _agree(tree, one, other):
        return ""
    return "differs little, as masks of another annotator or version do"


def _is_version(tree: Tree, one: Candidate, other: Candidate, kind: Kind) -> str:
    """Whether names have a word more on one side, and the files are of the same photos."""
    if kind == "images":
        if not (_places(one.targets) == _places(other.targets) and len(other.pairs) <= len(one.pairs)):
            return ""
        plain, more = (min(_files(each, kind)) for each in (one, other))
    elif (found := _common_target(one, other, kind)) is not None:
        plain, more = found
    else:
        return ""
    mine, theirs = _words(plain), _words(more)
    added, taken = {*(theirs - mine)}, {*(mine - theirs)}
    better = bool(taken & _IMPROVED) or len(one.pairs) > len(other.pairs)
    worse = bool(added & _IMPROVED) or len(other.pairs) > len(one.pairs)
    if bool(added) == bool(taken) or (added and worse) or (taken and not better):
        return ""
    if kind == "masks" and not (_alike(tree, one, other) and _agree(tree, one, other)):
        return ""
    return f"is another version of {_path(one, kind)}"


_RULES: tuple[Callable[[Tree, Candidate, Candidate, Kind], str], ...] = (
    _is_field_of_view,
    _is_further_annotator,
    _is_version,
)
"""Each says why the second of two candidates is passed over for the first; "" if it is not."""


def _path(one: Candidate, kind: Kind) -> str:
    return str(one.config_keys()[kind])


def _places(targets: Mapping[Any, Group]) -> set[str]:
    return {file.inside for group in targets.values() for file in group.files.values()}


def _words(path: str) -> Counter[str]:
    """The words and numbers of a path without its extension, in lower case."""
    return Counter(word.lower() for word in _WORD.findall(path.rpartition(".")[0]))


def _common_target(one: Candidate, other: Candidate, kind: Kind) -> tuple[str, str] | None:
    """The targets of a photo that both have."""
    pairs = _targets(one, other, kind, 1)
    return (pairs[0][0].inside, pairs[0][1].inside) if pairs else None


def _targets(one: Candidate, other: Candidate, kind: Kind, number: int) -> list[tuple[File, File]]:
    """Both targets of some photos that both have."""
    mine, theirs = _target_of(one, kind), _target_of(other, kind)
    common = sorted(mine.keys() & theirs.keys())
    chosen = common[:: max(len(common) // number, 1)][:number]
    return [(mine[photo], theirs[photo]) for photo in chosen]


def _target_of(one: Candidate, kind: Kind) -> dict[str, File]:
    """The targets of a kind by the paths of their photos."""
    group = _group(one, kind)
    return {} if group is None else {photo.inside: target for photo, target in file_pairs(one.photos, group)}


def _alike(tree: Tree, one: Candidate, other: Candidate) -> bool:
    """Whether masks have the same classes, as far as their values say."""
    return _classes(tree, one.targets["masks"]) == _classes(tree, other.targets["masks"])


def _classes(tree: Tree, masks: Group) -> Any:
    judged = read_masks(tree, masks, 4 * SAMPLES).judge()
    return judged.keys.get("classes", judged.held)


def _binary(tree: Tree, masks: Group) -> bool:
    return bool(_classes(tree, masks) == ("background", "foreground"))


def _agree(tree: Tree, one: Candidate, other: Candidate) -> bool:
    """Whether the masks of some photos give most pixels that are not background the same class."""
    same = drawn = 0
    binary = _binary(tree, one.targets["masks"])
    for files in _targets(one, other, "masks", SAMPLES):
        ours, theirs = (_numbers(tree, file) for file in files)
        if ours is None or theirs is None or ours.shape != theirs.shape:
            continue
        if binary:
            ours, theirs = ours != 0, theirs != 0
        either = (ours != 0) | (theirs != 0)
        drawn += int(either.sum())
        same += int((either & (ours == theirs)).sum())
    return same > _AGREE * drawn


def _numbers(tree: Tree, file: File) -> NDArray[Any] | None:
    """The numbers of a mask, or its colours as 0xRRGGBB; None if it cannot be read."""
    try:
        pixels = read_numbers(tree.path(file)).pixels
    except DataError:
        return None
    if pixels.ndim == 2:
        return pixels
    return packed(pixels) if pixels.shape[2] >= 3 else pixels[..., 0]
