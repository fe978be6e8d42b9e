"""The files of each kind: those that templates match, or all of a plain folder."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from densevit.data.files import above_twins, as_stored, check_forms, name_key
from densevit.data.sample import TargetFolder
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
        if config.root is None or base.is_absolute():
            base = as_stored(base)
        else:
            base, text = above_twins(config.root, base, text)
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
    for listing in listings.values():
        check_forms(listing.files)
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
