"""From a folder or archive to the config of a data set, or to the choice that only its owner can make."""

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densevit.data.discover.candidates import KINDS, Candidate, by_folders, by_names, folder_of, sets_of
from densevit.data.discover.classes import classes_of_masks
from densevit.data.discover.coco_layout import coco
from densevit.data.discover.contents import SAMPLES, read_masks
from densevit.data.discover.depth import coarse_depth, unit_of_depth
from densevit.data.discover.given import is_annotations, labelme_groups
from densevit.data.discover.groups import Group
from densevit.data.discover.lists import splits_of_photos
from densevit.data.discover.partners import by_middle, by_place, by_table
from densevit.data.discover.prefer import preferred
from densevit.data.discover.public import public
from densevit.data.discover.several import brushes, further_masks, given_regions, masks_by_class, masks_by_object
from densevit.data.discover.times import by_times
from densevit.data.discover.tree import PIXEL_SUFFIXES, File, Tree, counted, tree_of, walk_tree
from densevit.data.discover.unrecognised import pair_lists, unrecognised
from densevit.data.folder import FolderConfig
from densevit.data.pairs import Pairs, find_pairs
from densevit.errors import DataError
from densevit.io import place

if TYPE_CHECKING:
    from densevit.data.description import Described

RECOGNISERS: tuple[tuple[Callable[[Tree, Mapping[str, Any]], list[Candidate]], str], ...] = (
    (brushes, ""),
    (given_regions, ""),
    (by_place, ""),
    (by_names, ""),
    (by_times, ""),
    (by_middle, ""),
    (coco, "masks"),
    (masks_by_class, "depth"),
    (masks_by_object, "depth"),
    (by_folders, ""),
)
"""Each finds the ways in which a tree can be read, next to what those before it may have found: masks, which makes it
ambiguous, only depth, or nothing. Brush masks settle it."""


def discover(root: Path, **given: Any) -> "Described":
    """Recognise the layout of a folder or zip archive; keys of ``given`` (of ``FolderConfig``) are taken as they are.

    A given plain folder of masks or the like is completed to the template of its files.

    Raises:
        DataError: nothing is recognised, or several layouts are possible; the message lists them with their options.
    """
    return _discover(walk_tree(place(root)), given)


def discover_in(images: Path, masks: Path, given: Mapping[str, Any]) -> "Described":
    """Recognise photos and masks in two folders, or a file of annotations; the rest is as in ``discover``."""
    tree = tree_of(images, masks)
    return _discover(tree, {**given, "images": images.absolute(), "masks": masks.absolute()})


def classes_of_pairs(pairs: Pairs, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Keys for the classes that the masks of listed pairs hold, and sentences on them; none without masks."""
    masked = [(pair.image, pair.targets["masks"][0]) for pair in pairs.pairs if "masks" in pair.targets]
    if not masked or pairs.shapes == "coco":
        return {}, []
    tree = Tree(masked[0][1].parent)
    groups = []
    for kind, column in zip(("image", "mask"), zip(*masked, strict=True), strict=True):
        own = {("", "", str(number)): File((), f"{kind}{number}", path.suffix) for number, path in enumerate(column)}
        tree.paths |= {file.inside: path for file, path in zip(own.values(), column, strict=True)}
        groups.append(Group((), files=own, endings={file.suffix.lower() for file in own.values()}))
    one = Candidate(groups[0], {"masks": groups[1]}, frozenset(groups[0].files))
    return classes_of_masks(tree, one, given)


def has_shapes(masks: Path) -> bool:
    """Whether this is a file of COCO's annotations, or a folder with files of labelme."""
    return is_annotations(masks) if masks.is_file() else bool(labelme_groups(tree_of(masks)))


def _discover(tree: Tree, given: Mapping[str, Any]) -> "Described":
    from densevit.data.description import Described

    given = {key: value for key, value in given.items() if value is not None}
    if (known := public(tree, given)) is not None:
        return known
    candidates = _candidates(tree, given)
    if not candidates and (listed := by_table(tree, given)) is not None:
        return listed
    one = _only(tree, candidates)
    keys, remarks = one.config_keys(), [*one.remarks]
    if "masks" in keys:
        found, said = classes_of_masks(tree, one, given)
        more, merged = further_masks(tree, one, found)
        keys, remarks = keys | found | more, remarks + said + merged
    if "depth" in one.targets:
        try:
            found, said = unit_of_depth(tree, one, given)
        except DataError as error:
            if "masks" not in keys:
                raise
            found, said = {}, [f"depth is passed over: {error}"]
            del keys["depth"]
        keys, remarks = keys | found, remarks + said
    if "values" in one.targets and "normal" in one.targets["values"].template().lower():
        keys["normals"] = True
        remarks.append("values are surface normals, by their name; set normals: false to change it")
    found, said = splits_of_photos(tree, one, given)
    keys, remarks = keys | found, [*remarks, *said]
    kept = {key: value for key, value in given.items() if key not in ("images", "masks", "depth", "values", "root")}
    config = FolderConfig.parse({"root": tree.root, **keys, **kept}, source=str(tree.root))
    pairs = find_pairs(config.model_copy(update={"splits": None}))
    found, said, number = _left_over(tree, config, pairs)
    number = len(one.pairs) if pairs.shapes == "coco" else number
    remarks = [_what(one, number), *remarks, *_passed_over(tree, one, pairs, " ".join(remarks)), *said]
    return Described(config.model_copy(update=found), tuple(remarks))


def _left_over(tree: Tree, config: FolderConfig, pairs: Pairs) -> tuple[dict[str, Any], list[str], int]:
    """What the config's templates leave over, photos or targets without the other, and the number of photos with both.

    Photos of a split that has no target at all count as unused.
    """
    keys: dict[str, Any] = {}
    remarks: list[str] = []
    targeted = {pair.split for pair in pairs.pairs if pair.targets}
    lacking = [pair for pair in pairs.pairs if pair.split in targeted and pairs.missing.keys() - pair.targets.keys()]
    if lacking and config.missing_targets == "refuse" and pairs.shapes != "coco":
        keys["missing_targets"] = "leave_out"
        text = f"left out: {counted(len(lacking), 'photo')} without a target, such as {_inside(tree, lacking[0].image)}"
        remarks.append(f"{text} (missing_targets: refuse to stop at them)")
    for kind, orphans in pairs.orphans.items():
        if orphans:
            text = f"{counted(len(orphans), 'file')} of {kind} without a photo, such as {_inside(tree, orphans[0])}"
            remarks.append(f"not used: {text}")
    for first, second in pairs.twins[:1]:
        text = f"{_inside(tree, second)} is passed over, since {first.name} has the same name"
        remarks.append(f"{text}{f', and {len(pairs.twins) - 1} more' if len(pairs.twins) > 1 else ''}")
    return keys, remarks, sum(pair.split in targeted for pair in pairs.pairs) - len(lacking)


def _inside(tree: Tree, path: Path) -> str:
    return path.as_posix().removeprefix(f"{tree.root.as_posix()}/")


def _candidates(tree: Tree, given: Mapping[str, Any]) -> list[Candidate]:
    """The ways in which a tree can be read."""
    found: list[Candidate] = []
    for recognise, beside in RECOGNISERS:
        drawn = any("masks" in one.config_keys() for one in found)
        if not found or beside == "masks" or (beside == "depth" and not drawn):
            found += recognise(tree, given)
        if recognise in (brushes, given_regions) and found:
            break
    with_masks = [one for one in found if "masks" in one.config_keys()]
    if given.get("masks") is not None:
        return with_masks
    if not with_masks:
        return found
    photos = {key for one in with_masks for key in one.photos.files}  # their depth is theirs
    return [one for one in found if one in with_masks or one.photos.files.keys() - photos]


def _only(tree: Tree, found: list[Candidate]) -> Candidate:
    """The candidate, if it is the only one.

    Raises:
        DataError: there is none, or there are several.
    """
    if not found:
        raise DataError(unrecognised(tree))
    plausible = found if len(found) == 1 else [one for one in found if not _problem(tree, one)] or found
    others = [other for other in found if other not in plausible]
    if len(plausible) > 1:
        plausible = preferred(tree, plausible)
    if len(plausible) > 1:
        places = {folder_of(one): len(one.pairs) for one in plausible}
        if len(places) == len(plausible) and "." not in places and not _nested(places):
            raise _several_sets(tree, places)
        raise DataError(_choice(tree, plausible))
    (one,) = plausible
    if sets := sets_of(one):
        place = folder_of(one)
        raise _several_sets(tree, {name if place == "." else f"{place}/{name}": n for name, n in sets.items()})
    if others:
        what = "classes" if "masks" in one.config_keys() else "measurement"
        text = ", ".join(map(_where, others))
        one.remarks.append(f"{text} holds no {what}, as far as can be seen, and is passed over")
    return one


def _nested(places: Mapping[str, int]) -> bool:
    return any(one != other and f"{one}/".startswith(f"{other}/") for one in places for other in places)


def _several_sets(tree: Tree, places: Mapping[str, int]) -> DataError:
    listed = ", ".join(f"{place} ({counted(number, 'photo')})" for place, number in sorted(places.items())[:8])
    return DataError(
        f"{tree.root} has several data sets: {listed}; one is accepted; name its folder, such as "
        f"'{tree.root / min(places)}'"
    )


def _choice(tree: Tree, found: Sequence[Candidate]) -> str:
    """The message that lists the ways to read a data set, with what to write for each."""
    kind = next((k for k in (*KINDS, "images") if _differ(found, k)), "images")
    shown = [f"{_path(one, kind)} ({counted(len(one.pairs), 'photo')}{_holds(tree, one, kind)})" for one in found[:6]]
    options = " or ".join(f"--{kind} '{_path(one, kind)}'" for one in found[:6])
    what = {"masks": "masks", "depth": "depth maps", "values": "value maps", "images": "photos"}[kind]
    return f"{tree.root} can be read in several ways, with different {what}: {', '.join(shown)}; choose with {options}"


def _differ(found: Sequence[Candidate], kind: str) -> bool:
    """Whether candidates have other files of a kind, and not only other templates for them."""
    groups = [one.photos if kind == "images" else one.targets.get(kind) for one in found]  # type: ignore[call-overload]
    if None in groups:
        return len({_path(one, kind) for one in found}) > 1
    return len({frozenset(id(file) for file in group.files.values()) for group in groups}) > 1


def _path(one: Candidate, kind: str) -> str:
    return str(one.config_keys().get(kind, "none"))


def _where(one: Candidate) -> str:
    return next(str(path) for kind in ("masks", "depth", "values") if (path := one.config_keys().get(kind)) is not None)


def _holds(tree: Tree, one: Candidate, kind: str) -> str:
    if kind != "masks":
        return ""
    if "masks" in one.targets and ".json" not in one.targets["masks"].endings:
        judged = read_masks(tree, one.targets["masks"], SAMPLES).judge()
        return f", which hold {judged.held}" if judged.held else ""
    return f", with the classes {', '.join(one.keys['classes'][:8])}" if "classes" in one.keys else ""


def _problem(tree: Tree, one: Candidate) -> str:
    """Why masks are no classes, or depth no measurement; "" if they are."""
    if "masks" not in one.targets and "depth" in one.targets:
        return coarse_depth(tree, one)
    if "masks" not in one.targets or ".json" in one.targets["masks"].endings:
        return ""
    return read_masks(tree, one.targets["masks"], 4 * SAMPLES).judge().problem


def _what(one: Candidate, number: int) -> str:
    keys = one.config_keys()
    targets = [f"{kind} {keys[kind]}" for kind in ("masks", "depth", "values") if kind in keys]
    return f"{counted(number, 'photo')} {keys['images']} with {' and '.join(targets)}"


def _passed_over(tree: Tree, one: Candidate, pairs: Pairs, said: str) -> list[str]:
    """What of a tree is not used, and not named in what is said of it."""
    remarks = []
    for split, number in sorted(one.unused.items()):
        remarks.append(f"not used: {counted(number, 'photo')} of {split or 'no split'} without a target")
    used = {path for pair in pairs.pairs for path in (pair.image, *itertools.chain(*pair.targets.values()))}
    used |= {*itertools.chain(*pairs.orphans.values())} | {path for twins in pairs.twins for path in twins}
    other = [file for file in tree.files if tree.path(file) not in used and file.inside not in one.files]
    images = [file for file in other if file.suffix.lower() in PIXEL_SUFFIXES]
    if images:
        remarks.append(f"passed over: {counted(len(images), 'other image')}, such as {images[0].inside}")
    for file in pair_lists(tree):
        if file.inside not in said:
            remarks.append(f"passed over: {file.inside}, which lists pairs; --pairs '{tree.path(file)}' reads them")
    notes = [file for file in other if file.suffix.lower() in _NOTES]
    if len(notes) < _FEW_NOTES:
        notes = [file for file in notes if file.inside not in said]
    kinds = Counter(file.suffix.lower() for file in notes)
    if kinds:
        remarks.append(f"passed over: {', '.join(f'{number} {kind}' for kind, number in sorted(kinds.items()))}")
    if tree.litter:
        text = "that file managers leave, such as ._* and Thumbs.db"
        remarks.append(f"passed over: {counted(tree.litter, 'file')} {text}")
    return remarks


_FEW_NOTES = 1_000
_NOTES = (".json", ".txt", ".csv", ".yaml", ".yml", ".xml")
