"""Which files belong together, by name alone: photos, their targets, and what is left over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from densevit.data import FolderConfig
from densevit.data.folder import TARGET_SUFFIXES
from densevit.errors import DataError
from densevit.io import IMAGE_SUFFIXES

Kind = Literal["masks", "depth", "values"]
KINDS: tuple[Kind, ...] = ("masks", "depth", "values")
ALL_KINDS: tuple[Literal["images", "masks", "depth", "values"], ...] = ("images", *KINDS)
WORDS = {"images": "photo", "masks": "mask", "depth": "depth map", "values": "value map"}

_LOSSY = {".jpg", ".jpeg", ".jpe", ".webp"}

# What file managers and archivers leave behind; of no use to anyone and no reason to be told.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(slots=True)
class Split:
    """The files of a split.

    Attributes:
        name: of its folder; "" where a data set has no splits.
        config: where it lies and how it is read.
        photos: by stem, in order.
        targets: per kind, by stem; only those that belong to a photo.
        missing: per kind, stems of photos without one.
        orphans: targets without a photo.
        case: (photo, target) pairs whose stems differ in upper and lower case alone.
        twins: files of one folder that have the same stem.
        strays: files that no reader looks at.
        dangling: links to files that are not there.
        deeper: photos in folders below, which no reader looks at either.
        polygons: masks are outlines in .json files, which are not looked at.
    """

    name: str
    config: FolderConfig
    photos: dict[str, Path] = field(default_factory=dict)
    targets: dict[Kind, dict[str, Path]] = field(default_factory=dict)
    missing: dict[Kind, list[str]] = field(default_factory=dict)
    orphans: dict[Kind, list[Path]] = field(default_factory=dict)
    case: list[tuple[Path, Path]] = field(default_factory=list)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    deeper: int = 0
    polygons: bool = False

    def files(self, stem: str) -> dict[str, Path]:
        """The files of a sample by kind."""
        own: dict[str, Path] = {"images": self.photos[stem]}
        return own | {kind: paths[stem] for kind, paths in self.targets.items() if stem in paths}


def splits_of(config: FolderConfig, only: Sequence[str] = ()) -> list[FolderConfig]:
    """A config for each split of a data set: those that were named, else all that ``images/`` has.

    Raises:
        DataError: if there is no folder with photos, or no split of that name.
    """
    if config.images is not None or config.root is None:
        folder = config.images
        if folder is None or not folder.is_dir():
            raise DataError(f"there is no folder {folder}; a folder of photos is needed; check --images")
        return [config]
    images = config.root / "images"
    if not images.is_dir():
        raise DataError(_no_images(config.root))
    found = sorted(path.name for path in _entries(images) if path.is_dir() and not _is_litter(path))
    if unknown := [name for name in only if name not in found]:
        raise DataError(
            f"{config.root} has no split {unknown[0]!r}; splits found: {', '.join(found) or 'none'}; name one of them"
        )
    if not found:
        return [config]
    # train before val before the others, as one thinks of them.
    order = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1}
    chosen = sorted(only or found, key=lambda name: (order.get(name, 2), name))
    return [config.model_copy(update={"split": name}) for name in chosen]


def read_split(config: FolderConfig, kinds: Iterable[Kind] = KINDS) -> Split:
    """List a split's files and bring them together by stem."""
    split = Split(config.split or "", config)
    folder = config.folder("images")
    for path in _entries(folder) if folder is not None and folder.is_dir() else ():
        if path.is_dir():
            split.deeper += 0 if _is_litter(path) else sum(_is_photo(p) for p in _entries(path))
        elif not _is_photo(path):
            split.strays += [] if _is_litter(path) else [path]
        else:
            _add(split, split.photos, path)
    for kind in kinds:
        place = config.folder(kind)
        if kind == "masks" and place is not None and _has_polygons(place):
            split.polygons = True
        elif place is not None and place.is_dir():
            _match(split, kind, place)
    return split


def _has_polygons(place: Path) -> bool:
    """A file of COCO annotations, or a folder of labelme's files."""
    suffixes = {path.suffix.lower() for path in _entries(place)} if place.is_dir() else {place.suffix.lower()}
    return ".json" in suffixes and not suffixes & {*TARGET_SUFFIXES}


def _match(split: Split, kind: Kind, folder: Path) -> None:
    found: dict[str, Path] = {}
    files = [path for path in _entries(folder) if not path.is_dir() and not _is_litter(path)]
    suffixes = {*TARGET_SUFFIXES, ".exr"} if kind == "depth" else {*TARGET_SUFFIXES}
    good = [path for path in files if path.suffix.lower() in suffixes]
    for path in good:
        _add(split, found, path)
    stems = {path.stem for path in good}
    for path in files:
        if path.suffix.lower() in suffixes:
            continue
        if kind == "masks" and path.suffix.lower() in _LOSSY and path.stem not in stems:
            _add(split, found, path)  # passed over by the reader of folders, and to be named as what it is
        else:
            split.strays.append(path)
    split.targets[kind] = {stem: found.pop(stem) for stem in split.photos if stem in found}
    missing = [stem for stem in split.photos if stem not in split.targets[kind]]
    folded = {stem.casefold(): path for stem, path in found.items()}
    for stem in missing:
        other = folded.get(stem.casefold())
        if other is not None and other.stem in found:
            split.case.append((split.photos[stem], found.pop(other.stem)))
            split.targets[kind][stem] = other
    split.missing[kind] = [stem for stem in missing if stem not in split.targets[kind]]
    split.orphans[kind] = list(found.values())


def _add(split: Split, files: dict[str, Path], path: Path) -> None:
    if not path.exists():
        split.dangling.append(path)
    elif path.stem in files:
        split.twins.append((files[path.stem], path))
    else:
        files[path.stem] = path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{folder} cannot be listed ({error.strerror}); a readable folder is needed; mend the permissions"
        ) from None


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _is_litter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LITTER


def _no_images(root: Path) -> str:
    if not root.is_dir():
        return f"{root} is not a folder; the root of a data set, with images/ in it, is accepted; check the path"
    folders = ", ".join(p.name + "/" for p in _entries(root) if p.is_dir() and not _is_litter(p)) or "no folder"
    return (
        f"{root} has no folder images/ (it has {folders}); photos belong in images/<split>/ and their targets in"
        " masks/<split>/ or depth/<split>/; rename the folders, or name them by --images and --masks"
    )
