"""Photos and their targets, found by one rule for training, evaluation and the doctor."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from densevit.data.base import contents
from densevit.data.columns import WHAT, Column, Values, column_of, list_columns
from densevit.data.files import name_key
from densevit.data.matching import Matches, match_targets
from densevit.data.pair_list import read_pair_list
from densevit.data.regions import task_places
from densevit.data.sample import TargetFolder
from densevit.data.shapes import coco_splits
from densevit.data.splits import divide, find_split, no_split, sorted_splits
from densevit.errors import DataError
from densevit.io import BAND_SUFFIXES, IMAGE_SUFFIXES, natural_key, walk

if TYPE_CHECKING:
    from densevit.data.folder_config import FolderConfig

KINDS: tuple[TargetFolder, ...] = get_args(TargetFolder)
_ALL: tuple[Literal["images"] | TargetFolder, ...] = ("images", *KINDS)


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo and its targets.

    Attributes:
        name: unique in its data set, such as "kitchen/0012"; the same for all commands, and in lists of splits.
        image: its file.
        targets: file or files of each kind; several where each shows one class or region.
        split: "" where the data set has none.
        regions: what ``{class}`` stands for in each of the masks, in their order; empty without it.
    """

    name: str
    image: Path
    targets: dict[TargetFolder, tuple[Path, ...]]
    split: str = ""
    regions: tuple[str, ...] = ()


@dataclass(slots=True)
class Pairs:
    """The pairs of a data set, and what was left over.

    Attributes:
        pairs: in natural order of their photos' paths.
        missing: photos that lack a target, by kind; the keys are the kinds that the data set has.
        orphans: targets without a photo, by kind.
        twins: files that claim the same place.
        case: (photo, target) whose names differ only in upper and lower case.
        dangling: links to files that do not exist.
        passed_over: the other files, with the reason.
        litter: number of files that file managers and archivers leave, such as ``._*`` and Thumbs.db.
        places: where the files of each kind are, for messages.
        shapes: whether masks are drawn from COCO's annotations, of which one file is of many photos, or from
            labelme's files; None where they are images.
        regions: all that ``{class}`` stands for, also in other splits; empty without it.
        split_of: the split of each orphan.
    """

    pairs: list[Pair] = field(default_factory=list)
    missing: dict[TargetFolder, list[Path]] = field(default_factory=dict)
    orphans: dict[TargetFolder, list[Path]] = field(default_factory=dict)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    case: list[tuple[Path, Path]] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    litter: int = 0
    places: dict[str, str] = field(default_factory=dict)
    shapes: Literal["coco", "labelme"] | None = None
    regions: tuple[str, ...] = ()
    split_of: dict[Path, str] = field(default_factory=dict, repr=False)

    def splits(self) -> list[str]:
        """Names of the splits, train first, then val and its other names, then the rest."""
        return sorted_splits(pair.split for pair in self.pairs if pair.split)


def find_pairs(config: "FolderConfig") -> Pairs:
    """List the files of a data set, of one split if the config names it, and pair them; nothing is opened.

    Of masks that are drawn, only the file is listed: whether COCO's annotations have a photo is seen on reading them.

    Raises:
        DataError: there is no such folder, file or split; one file would be the target of several photos; a name is
            no Unicode.
    """
    if config.pairs is not None:
        found = _from_list(config)
    elif config.images is None and config.root is not None:
        found = _from_layout(config, config.root)
    else:
        found = _from_columns(config)
    found.pairs = _unique(found.pairs)
    _check_names(found.pairs)
    if config.splits is not None:
        splits = divide([p.name for p in found.pairs], [p.split for p in found.pairs], config.splits)
        found.pairs = [replace(pair, split=split) for pair, split in zip(found.pairs, splits, strict=True)]
    if config.split is not None and found.pairs:
        _select(found, config.split, str(config.pairs or config.root or config.images))
    return found


def _check_names(pairs: list[Pair]) -> None:
    """Refuse names that no description, checkpoint or report could hold."""
    for pair in pairs:
        regions = zip(pair.regions, pair.targets["masks"], strict=True) if pair.regions else ()
        for name, path in ((pair.name, pair.image), *regions):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise DataError(f"the name of {path} is not Unicode text; rename it") from None


def _select(found: Pairs, split: str, place: str) -> None:
    """Keep the pairs of a split."""
    if not found.splits():
        raise DataError(
            f"{place} has no splits, and {split!r} was named; leave the split out, set splits (shares that are drawn), "
            "or write {split} where the names of its files have it"
        )
    name = find_split(split, found.splits())
    if name is None:
        raise no_split(split, found.splits(), place)
    found.pairs = [pair for pair in found.pairs if pair.split == name]
    photos = {pair.image for pair in found.pairs}
    files = {path for pair in found.pairs for paths in pair.targets.values() for path in paths} | photos
    found.twins = [pair for pair in found.twins if pair[0] in files]
    found.missing = {kind: [path for path in paths if path in photos] for kind, paths in found.missing.items()}
    found.case = [pair for pair in found.case if pair[0] in photos]
    for kind, paths in found.orphans.items():
        found.orphans[kind] = [path for path in paths if found.split_of.get(path, "") in {"", name}]


def _unique(pairs: list[Pair]) -> list[Pair]:
    """Names that several splits have get that of their split before them."""
    counts: dict[str, int] = {}
    for pair in pairs:
        counts[pair.name] = counts.get(pair.name, 0) + 1
    if len(counts) == len(pairs):
        return pairs
    return [replace(p, name=f"{p.split}/{p.name}") if counts[p.name] > 1 and p.split else p for p in pairs]


def _from_list(config: "FolderConfig") -> Pairs:
    assert config.pairs is not None
    rows, kinds = read_pair_list(config.pairs, config.root)
    found = Pairs(places=dict.fromkeys(("images", *kinds), str(config.pairs)))
    for row in rows:
        targets: dict[TargetFolder, tuple[Path, ...]] = {kind: (path,) for kind, path in row.targets.items()}
        found.pairs.append(Pair(row.name, row.image, targets, row.split))
    found.pairs.sort(key=lambda pair: natural_key(Path(pair.name)))
    found.missing = {kind: [pair.image for pair in found.pairs if kind not in pair.targets] for kind in kinds}
    masks = {path.suffix.lower() for pair in found.pairs for path in pair.targets.get("masks", ())}
    if ".json" in masks and len(masks) > 1:
        raise DataError(f"{config.pairs} mixes .json and images as masks; one kind is accepted; make two tables")
    if masks == {".json"}:
        files = [pair.targets["masks"][0] for pair in found.pairs if "masks" in pair.targets]
        found.shapes = "coco" if len({*files}) < len(files) else "labelme"
    return found


def _from_layout(config: "FolderConfig", root: Path) -> Pairs:
    """Pairs of ``root/images/<split>``, or ``root/images``."""
    images = root / "images"
    if config.split is not None and config.splits is None:
        folder = config.folder("images")
        if folder is None or not folder.is_dir():
            raise missing_folder(config)
        return _from_columns(config, folder.name)
    if not images.is_dir():
        raise missing_folder(config)
    listing = walk(images, 0)
    suffixes = BAND_SUFFIXES if config.bands is not None else IMAGE_SUFFIXES
    if not listing.folders or any(path.suffix.lower() in suffixes for path in listing.files.values()):
        return _from_columns(config.model_copy(update={"split": None}))
    found = Pairs()
    for split in sorted_splits(listing.folders):
        _extend(found, _from_columns(config.model_copy(update={"split": split}), split))
    found.litter += len(listing.litter)
    found.passed_over |= dict.fromkeys(listing.files.values(), "next to the folders of the splits")
    return found


def _extend(found: Pairs, more: Pairs) -> None:
    found.pairs += more.pairs
    for kind, photos in more.missing.items():
        found.missing.setdefault(kind, []).extend(photos)
        found.orphans.setdefault(kind, []).extend(more.orphans.get(kind, []))
    found.twins += more.twins
    found.case += more.case
    found.dangling += more.dangling
    found.passed_over |= more.passed_over
    found.litter += more.litter
    found.places |= more.places
    found.shapes = found.shapes or more.shapes
    found.regions = tuple(sorted({*found.regions, *more.regions}))
    found.split_of |= more.split_of


def _from_columns(config: "FolderConfig", split: str = "") -> Pairs:
    """Pairs of plain folders and templates; ``split`` is that of all photos."""
    photos, *targets = (column for kind in _ALL if (column := column_of(config, kind)) is not None)
    if config.images is not None and photos.plain and not photos.base.is_dir():
        raise missing_folder(config)
    for column in (photos, *targets):
        if not column.found and not column.base.is_dir():
            raise DataError(
                f"there is no folder {column.base}, in which {column.template.text} should find a {WHAT[column.kind]}; "
                "check the path"
            )
    left = list_columns([photos, *targets])
    found = Pairs(places={column.kind: column.place for column in (photos, *targets)})
    found.litter, found.dangling, found.passed_over = len(left.litter), sorted(left.dangling), left.passed_over
    taken: dict[str, tuple[Path, Values]] = {}
    for _, path, values in photos.found:
        values = {"split": split, **values} if split else values
        key = "/".join((values.get("split", ""), _name_of(values)))
        if key in taken:
            found.twins.append((taken[key][0], path))
        else:
            taken[key] = (path, values)
    ordered = sorted(taken.values(), key=lambda item: natural_key(item[0]))
    ordered = _split_by_annotations(ordered, targets)
    found.pairs = [_pair(path, values) for path, values in ordered]
    for column in targets:
        places = None
        if column.kind == "masks" and config.tasks is not None:
            places = task_places(config.below_root(config.tasks), [path for path, _ in ordered])
        matches = match_targets([values for _, values in ordered], column, places, config.nearest)
        _add_targets(found, column, matches, split)
    return found


def _split_by_annotations(photos: list[tuple[Path, Values]], targets: list[Column]) -> list[tuple[Path, Values]]:
    """Photos in one folder with the split of the annotations that list them, such as train.json; others have none."""
    for column in targets:
        if column.shared and "split" in column.template.fields and photos and "split" not in photos[0][1]:
            files = {file: values["split"] for _, file, values in column.found}
            splits = coco_splits([path for path, _ in photos], files)
            return [(path, {**values, "split": splits.get(path, "")}) for path, values in photos]
    return photos


def _pair(path: Path, values: Values) -> Pair:
    return Pair(_name_of(values) or name_key(path.stem), path, {}, values.get("split", ""))


def _name_of(values: Values) -> str:
    return "/".join(filter(None, (values.get(field, "") for field in ("folder", "name", "rest"))))


def _add_targets(found: Pairs, column: Column, matches: Matches, split: str) -> None:
    """Give the pairs, all of one ``split`` if it is named, their targets of one kind."""
    kind = column.kind
    assert kind != "images"
    for number, files in matches.files.items():
        files = sorted(files, key=lambda item: natural_key(item[0]))
        found.pairs[number].targets[kind] = tuple(path for path, _ in files)
        if "class" in column.template.fields or column.objects:
            regions = tuple(values.get("class", column.objects) for _, values in files)
            found.pairs[number] = replace(found.pairs[number], regions=regions)
            found.regions = tuple(sorted({*found.regions, *regions}))
    found.missing[kind] = [pair.image for pair in found.pairs if kind not in pair.targets]
    orphans = [(path, values.get("split", split)) for path, values in matches.orphans]
    found.orphans[kind] = [path for path, own in orphans if own == split or not split]
    found.split_of |= dict(orphans)
    found.twins += matches.twins
    found.case += [(found.pairs[number].image, path) for number, path in matches.case]
    found.passed_over |= dict.fromkeys(matches.copies, "a lossy copy of the file next to it")
    if kind == "masks" and column.template.text.lower().endswith(".json"):
        found.shapes = "coco" if column.shared else "labelme"


def missing_folder(config: "FolderConfig") -> DataError:
    """The error for a data set without its folder of photos."""
    root, images = config.root, config.folder("images")
    if root is not None and root.is_dir() and (root / "images").is_dir() and config.images is None:
        names = walk(root / "images", 0).folders
        return no_split(str(config.split), names, str(root))
    held = f" (it has {contents(root)})" if root is not None and root.is_dir() else ""
    return DataError(
        f"there is no folder {images}; a data set needs images/<split> and masks/<split> or depth/<split> in its "
        f"root{held}"
    )
