"""Match photos and targets by file name, and collect what is left over."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densevit.data import FolderConfig
from densevit.data.files import name_key
from densevit.data.matching import DEPTH_SUFFIXES, TARGET_SUFFIXES, is_labelme
from densevit.data.sample import TARGET_FOLDERS, TargetFolder
from densevit.errors import DataError
from densevit.io import IMAGE_SUFFIXES

KINDS = tuple(TARGET_FOLDERS.values())

_LOSSY_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".webp"}

# Files that file managers and archivers leave behind; nobody needs to hear of them.
_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(slots=True)
class Split:
    """The files of a split.

    Attributes:
        name: name of its folder; "" where a data set has no splits.
        config: where it is and how it is read.
        photos: by stem, in order.
        targets: per kind, by stem; only those that belong to a photo.
        orphans: per kind, targets without a photo.
        case: (photo, target) pairs whose stems differ only in upper and lower case.
        twins: pairs of files in one folder with the same stem.
        strays: files that no reader reads.
        dangling: links to files that do not exist.
        deeper: number of photos in subfolders, which no reader reads either.
        coco: the file of COCO's annotations, from which masks are drawn; ``targets`` has them once it was read.
        labelme: masks are drawn from labelme's files, which are the targets.
    """

    name: str
    config: FolderConfig
    photos: dict[str, Path] = field(default_factory=dict)
    targets: dict[TargetFolder, dict[str, Path]] = field(default_factory=dict)
    orphans: dict[TargetFolder, list[Path]] = field(default_factory=dict)
    case: list[tuple[Path, Path]] = field(default_factory=list)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    strays: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    deeper: int = 0
    coco: Path | None = None
    labelme: bool = False

    def files(self, stem: str) -> dict[str, Path]:
        """The files of a sample by kind."""
        targets: dict[str, Path] = {kind: paths[stem] for kind, paths in self.targets.items() if stem in paths}
        return {"images": self.photos[stem], **targets}


def splits_of(config: FolderConfig, only: Sequence[str] = ()) -> list[FolderConfig]:
    """A config for each split of a data set: those in ``only``, else all in ``images/``.

    Raises:
        DataError: there is no folder of photos, or no split of that name.
    """
    if config.images is not None or config.root is None:
        if config.images is None or not config.images.is_dir():
            raise DataError(f"there is no folder {config.images}; a folder of photos is needed; check --images")
        return [config]
    images = config.root / "images"
    if not images.is_dir():
        raise DataError(_no_images(config.root))
    names = sorted(path.name for path in _entries(images) if path.is_dir() and not _is_litter(path))
    if unknown := [name for name in only if name not in names]:
        raise DataError(
            f"{config.root} has no split {unknown[0]!r}; splits found: {', '.join(names) or 'none'}; name one of them"
        )
    if not names:
        return [config]
    order = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1}
    chosen = sorted(only or names, key=lambda name: (order.get(name, 2), name))
    return [config.model_copy(update={"split": name}) for name in chosen]


def read_split(config: FolderConfig, kinds: Iterable[TargetFolder] = KINDS) -> Split:
    """List the files of a split and match them by stem."""
    split = Split(config.split or "", config)
    folder = config.folder("images")
    for path in _entries(folder) if folder is not None and folder.is_dir() else ():
        if _is_litter(path):
            continue
        if path.is_dir():
            split.deeper += sum(_is_photo(p) for p in _entries(path))
        elif _is_photo(path):
            _add(split, split.photos, path)
        else:
            split.strays.append(path)
    for kind in kinds:
        place = config.folder(kind)
        if kind == "masks" and place is not None and place.suffix.lower() == ".json" and not place.is_dir():
            split.coco = place
        elif place is not None and place.is_dir():
            split.labelme |= kind == "masks" and folder is not None and is_labelme(place, folder, split.photos.values())
            _match(split, kind, place, in_photos=place == folder)
    return split


def _match(split: Split, kind: TargetFolder, folder: Path, *, in_photos: bool) -> None:
    """Sort the files of a target folder into those with a photo and those without."""
    readable: tuple[str, ...] = DEPTH_SUFFIXES if kind == "depth" else TARGET_SUFFIXES
    if kind == "masks" and split.labelme:
        readable = (".json",)
    files = [path for path in _entries(folder) if not path.is_dir() and not _is_litter(path)]
    if in_photos:  # the other files are photos, and what is no photo may be a target
        files = [path for path in files if path.suffix.lower() in readable]
        split.strays = [path for path in split.strays if path not in files]
    stems = {name_key(path.stem) for path in files if path.suffix.lower() in readable}
    by_stem: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: path.suffix.lower() not in readable):
        # The reader of folders skips a JPEG mask; here it is a mask, to be reported as a JPEG.
        is_jpeg = kind == "masks" and path.suffix.lower() in _LOSSY_SUFFIXES and name_key(path.stem) not in stems
        if path.suffix.lower() in readable or is_jpeg:
            _add(split, by_stem, path)
        else:
            split.strays.append(path)

    targets = {stem: by_stem.pop(stem) for stem in split.photos if stem in by_stem}
    folded = {stem.casefold(): stem for stem in by_stem}
    for stem, photo in split.photos.items():
        other = folded.get(stem.casefold())
        if stem not in targets and other is not None and other in by_stem:
            targets[stem] = by_stem.pop(other)
            split.case.append((photo, targets[stem]))
    split.targets[kind] = targets
    split.orphans[kind] = list(by_stem.values())


def _add(split: Split, files: dict[str, Path], path: Path) -> None:
    if not path.exists():
        split.dangling.append(path)
    elif (stem := name_key(path.stem)) in files:
        split.twins.append((files[stem], path))
    else:
        files[stem] = path


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}); check the permissions") from None


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _is_litter(path: Path) -> bool:
    return path.name.startswith(".") or path.name.lower() in _LITTER


def _no_images(root: Path) -> str:
    if not root.is_dir():
        return f"{root} is not a folder; the root of a data set, with images/ in it, is accepted; check the path"
    folders = ", ".join(p.name + "/" for p in _entries(root) if p.is_dir() and not _is_litter(p)) or "no folder"
    return (
        f"{root} has no folder images/ (it has {folders}); put photos in images/<split>/ and their targets in "
        "masks/<split>/ or depth/<split>/, or name the folders by --images and --masks"
    )
