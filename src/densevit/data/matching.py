"""Which file belongs to which photo: by the placeholders of templates, or by the stems of plain folders."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from densevit.data.files import as_stored, name_key
from densevit.data.sample import TargetFolder
from densevit.data.splits import split_key
from densevit.data.templates import Template, is_template, split_template
from densevit.errors import DataError
from densevit.io import BAND_SUFFIXES, IMAGE_SUFFIXES, Listing, walk

if TYPE_CHECKING:
    from densevit.data.folder_config import FolderConfig

TARGET_SUFFIXES = (".png", ".tif", ".tiff", ".npy", ".pfm", ".bmp", ".gif")
DEPTH_SUFFIXES = (*TARGET_SUFFIXES, ".exr")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp")

WHAT = {"images": "photo", "masks": "mask", "depth": "depth map", "values": "value map"}
"""What a file of each kind is called in messages."""

NOT_DEEPER = "in a subfolder, while only the files directly in the folder are read"

Values = Mapping[str, str]
"""Placeholders and what they stand for."""


@dataclass(slots=True)
class Column:
    """The files of one kind: those below ``base`` that a template matches.

    Attributes:
        kind: of the files.
        base: folder that the template is relative to.
        template: of their names.
        plain: the folder has files of this kind only, so that all others are passed over.
        shared: each file, such as one of COCO, is of all photos with its placeholders.
        objects: class of all files of a photo, of which each shows an object; "" where a photo has one file, or
            their names say the class.
        found: the files with their placeholders, in order.
    """

    kind: Literal["images"] | TargetFolder
    base: Path
    template: Template
    plain: bool = False
    shared: bool = False
    objects: str = ""
    found: list[tuple[str, Path, Values]] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Where the files are, for messages."""
        return str(self.base) if self.plain else str(self.base / self.template.text)


@dataclass(slots=True)
class Matches:
    """The target of each photo, by its place in the list, and what was left over.

    Attributes:
        files: the target, or several in natural order.
        orphans: targets without a photo.
        twins: two files that claim the same photo; the first has it.
        case: those whose names differ in upper and lower case only.
        copies: JPEGs next to a lossless target of the same name.
    """

    files: dict[int, list[tuple[Path, Values]]] = field(default_factory=dict)
    orphans: list[tuple[Path, Values]] = field(default_factory=list)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    case: list[tuple[int, Path]] = field(default_factory=list)
    copies: list[Path] = field(default_factory=list)


@dataclass(slots=True)
class Leftover:
    """What no column has.

    Attributes:
        passed_over: files, and photos in subfolders of plain folders, with the reason.
        dangling: links to files that do not exist.
        litter: hidden files and the like.
    """

    passed_over: dict[Path, str] = field(default_factory=dict)
    dangling: set[Path] = field(default_factory=set)
    litter: set[Path] = field(default_factory=set)


def column_of(config: "FolderConfig", kind: Literal["images"] | TargetFolder) -> Column | None:
    """Where the files of a kind are; None if the data set has none."""
    suffixes: tuple[str, ...] = tuple(sorted(BAND_SUFFIXES if config.bands is not None else IMAGE_SUFFIXES))
    if kind != "images":
        suffixes = DEPTH_SUFFIXES if kind == "depth" else TARGET_SUFFIXES
    if kind == "masks":
        suffixes += LOSSY_SUFFIXES
    written: Path | None = getattr(config, kind)
    if written is not None and is_template(written):
        base, text = split_template(written)
        base = as_stored(base if config.root is None else config.root / base)
        template = Template(text, suffixes)
        shared = text.lower().endswith(".json") and "name" not in template.fields
        return Column(kind, base, template, shared=shared, objects=_only_class(config, template, kind))
    given = config.folder(kind)
    if given is None:
        return None
    if kind == "masks" and given.suffix.lower() == ".json" and not given.is_dir():
        if not given.is_file():
            raise DataError(f"{given} does not exist; a file of COCO's annotations is accepted; check the path")
        return Column(kind, given, Template("*.json"), plain=True, shared=True, found=[("", given, {})])
    if kind != "images" and not given.is_dir():
        what = WHAT[kind]
        raise DataError(f"{what} folder {given} does not exist; give the folder that holds one {what} per photo")
    images = config.folder("images")
    if kind == "masks" and images is not None and not is_template(config.images) and images.is_dir():
        if not any(path.suffix.lower() == ".json" for path in given.iterdir()):  # a walk of both takes long
            return Column(kind, given, Template("{name}.*", suffixes), plain=True)
        photos = [path for path in walk(images, 0).files.values() if path.suffix.lower() in IMAGE_SUFFIXES]
        if is_labelme(given, images, photos):
            return Column(kind, given, Template("{name}.json"), plain=True)
    return Column(kind, given, Template("{name}.*", suffixes), plain=True)


def _only_class(config: "FolderConfig", template: Template, kind: str) -> str:
    """The class besides the background, for masks with ``*`` in their names, of which a photo may have many."""
    wild = "*" in template.text.rpartition("/")[2].removesuffix(".*") and not template.fields & {"class", "task"}
    if kind != "masks" or not wild or config.background is None or not isinstance(config.classes, tuple):
        return ""
    names = [name for name in config.classes if name != config.background]
    return names[0] if len(names) == 1 else ""


def list_columns(columns: Iterable[Column]) -> Leftover:
    """Fill ``found`` of each column; a file that several match is of the one whose template says most about it."""
    columns = [column for column in columns if not column.found]  # one file that is named needs no list
    depths: dict[Path, int | None] = {}
    for column in columns:
        deep = column.template.depth
        if column.kind == "images" and column.plain and deep is not None:
            deep += 1  # photos in subfolders are not read, but said
        before = depths.get(column.base, 0)
        depths[column.base] = None if deep is None or before is None else max(deep, before)
    left, listings = Leftover(), {base: walk(base, depth) for base, depth in depths.items()}
    claims: dict[Path, list[tuple[Column, str, Values]]] = {}
    for column in columns:
        for relative, path in listings[column.base].files.items():
            if (values := column.template.match(relative)) is not None:
                claims.setdefault(path, []).append((column, relative, values))
    for path, claim in claims.items():
        if len(claim) == 1:
            column, relative, found = claim[0]
            column.found.append((relative, path, found))
            continue
        most = max(column.template.specific for column, _, _ in claim)
        chosen = [item for item in claim if item[0].template.specific == most]
        photo = any(column.kind == "images" for column, _, _ in chosen)
        for column, relative, found in chosen:
            # A JPEG next to the photos is a photo, even where masks are in the same folder.
            if column.kind == "images" or not photo or path.suffix.lower() not in LOSSY_SUFFIXES:
                column.found.append((relative, path, found))
    for base, listing in listings.items():
        _leave(left, listing, claims, [column for column in columns if column.base == base])
    return left


def _leave(left: Leftover, listing: Listing, claimed: Iterable[Path], columns: list[Column]) -> None:
    """Enter what nobody claims of a folder."""
    plain = all(column.plain for column in columns)
    claimed = {*claimed}
    for relative, path in listing.files.items():
        if path in claimed:
            continue
        if plain and "/" in relative:
            photos = [column for column in columns if column.kind == "images"]
            if any(column.template.match(path.name) for column in photos):
                left.passed_over[path] = NOT_DEEPER
        elif plain:
            suffix = path.suffix.lower()
            left.passed_over[path] = f"{suffix}, which is not a format that is read" if suffix else "without a suffix"
        else:
            left.passed_over[path] = "no template matches its name"
    left.passed_over |= dict.fromkeys(listing.devices, "a device or a pipe")
    left.dangling |= {*listing.dangling}
    left.litter |= {*listing.litter}


def match_targets(photos: list[Values], column: Column, places: Mapping[str, int] | None = None) -> Matches:
    """Give each photo its target, or several where the template has ``{class}``.

    Args:
        photos: the placeholders of each photo.
        column: of the targets.
        places: task number -> place of its photo, for ``{task}``.

    Raises:
        DataError: one file would be the target of several photos.
    """
    fields = [field for field in ("split", "folder", "name") if field in column.template.fields]
    fields = [field for field in fields if photos and field in photos[0]]
    index: dict[tuple[str, ...], list[int]] = {}
    for number, values in enumerate(photos):
        index.setdefault(tuple(values[field] for field in fields), []).append(number)
    matches = Matches()
    loose: list[tuple[Path, tuple[str, ...], Values]] = []
    splits = _split_names(photos)
    for relative, path, first in column.found:
        numbers: list[int] = []
        values = first
        if places is not None and "task" in first:
            numbers = [places[first["task"]]] if first["task"] in places else []
        else:
            for values in itertools.chain([first], column.template.readings(relative) if relative else ()):
                if numbers := index.get(tuple(_as_photo(values, field, splits) for field in fields), []):
                    break
        if len(numbers) > 1 and not column.shared:
            others = " and ".join(f"{{{field}}}" for field in sorted({*photos[0]} - {*fields}))
            raise DataError(
                f"{path} fits {len(numbers)} photos, as they differ in {others}, which {column.template.text} lacks; "
                f"each photo needs a {WHAT[column.kind]} of its own"
            )
        if not numbers:
            loose.append((path, tuple(_as_photo(first, field, splits) for field in fields), first))
        for number in numbers:
            _add(matches, number, path, values, column)
    _match_case(matches, loose, index, len(photos))
    return matches


def _add(matches: Matches, number: int, path: Path, values: Values, column: Column) -> None:
    files = matches.files.setdefault(number, [])
    lossy = path.suffix.lower() in LOSSY_SUFFIXES
    if files and "class" not in column.template.fields and not column.objects:
        if lossy != (files[0][0].suffix.lower() in LOSSY_SUFFIXES):
            matches.copies.append(path if lossy else files[0][0])
            matches.files[number] = files if lossy else [(path, values)]
        else:
            matches.twins.append((files[0][0], path))
        return
    files.append((path, values))


def _split_names(photos: Iterable[Values]) -> dict[str, str]:
    """What targets may call a split -> its name in photos: Train is train, and valid is val, unless both are there."""
    names = {values["split"] for values in photos if "split" in values}
    usual = {split_key(name): name for name in names}
    return (usual if len(usual) == len(names) else {}) | {name: name for name in names}


def _as_photo(values: Values, field: str, splits: Mapping[str, str]) -> str:
    """The text of a placeholder, with the split as the photos call it."""
    text = values[field]
    return splits.get(text, splits.get(split_key(text), text)) if field == "split" else text


def _match_case(
    matches: Matches,
    loose: list[tuple[Path, tuple[str, ...], Values]],
    index: Mapping[tuple[str, ...], list[int]],
    count: int,
) -> None:
    """Photos without a target take those whose names differ only in upper and lower case; the rest are orphans."""
    lacking = {number for number in range(count) if number not in matches.files}
    folded: dict[tuple[str, ...], list[int]] = {}
    for key, numbers in index.items() if loose else ():
        folded.setdefault(tuple(map(str.casefold, key)), []).extend(n for n in numbers if n in lacking)
    for path, key, values in loose:
        numbers = folded.get(tuple(map(str.casefold, key)), []) if key else []
        if len(numbers) == 1 and numbers[0] in lacking:
            matches.files[numbers[0]] = [(path, values)]
            matches.case.append((numbers[0], path))
            lacking.discard(numbers[0])
        else:
            matches.orphans.append((path, values))


def is_labelme(masks: Path, photos_folder: Path, photos: Iterable[Path]) -> bool:
    """Whether a folder of masks holds labelme's files: more photos have one than have an image as their mask.

    Other .json files, such as notes, do not count. Where the photos themselves are in the folder, as labelme leaves
    them, they are no masks.
    """
    if not masks.is_dir():
        return False
    stems = {name_key(path.stem) for path in photos}
    files = walk(masks, 0).files.values()
    found = {
        suffix: len(stems & {name_key(path.stem) for path in files if path.suffix.lower() in accepted})
        for suffix, accepted in (("json", {".json"}), ("image", {*TARGET_SUFFIXES}))
    }
    return found["json"] > (0 if masks == photos_folder else found["image"])
