"""Masks of a data set that are drawn from shapes: COCO's annotations, in one or several files, or labelme's files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from densevit.data.coco import CocoMasks, read_coco
from densevit.data.coco_rows import listed_photos, photo_names
from densevit.data.files import name_key
from densevit.data.labelme import parse_labelme, read_labelme
from densevit.data.polygons import background_index
from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.types import Size


class ShapeReader(Protocol):
    """Draws masks; it is sent to worker processes."""

    def claimed_size(self, photo: Path, file: Path) -> Size | None:
        """The (H, W) of a photo that the file states; None if it does not say."""
        ...

    def draw(self, photo: Path, file: Path, size: Size) -> NDArray[np.int32]:
        """The mask (H, W) of a photo in class numbers."""
        ...


@dataclass(frozen=True)
class LabelmeReader:
    """Draws the masks of labelme's files.

    Attributes:
        classes: their names are the labels of the shapes.
        background: name of the class outside all shapes; None ignores it.
    """

    classes: ClassTable
    background: str | None

    def claimed_size(self, photo: Path, file: Path) -> Size | None:
        """As stated in the file."""
        return parse_labelme(file).size

    def draw(self, photo: Path, file: Path, size: Size) -> NDArray[np.int32]:
        """The mask (H, W) of a photo."""
        return read_labelme(file, self.classes, background_index(self.classes, self.background), size)


@dataclass(frozen=True)
class CocoReader:
    """Draws the masks of COCO's annotations.

    Attributes:
        files: the annotations by their file.
        entries: photo -> its ``file_name``; photos that no file lists are absent.
    """

    files: dict[Path, CocoMasks] = field(default_factory=dict)
    entries: dict[Path, str] = field(default_factory=dict)

    @property
    def classes(self) -> ClassTable:
        """The classes, which all files share."""
        return next(iter(self.files.values())).classes

    def claimed_size(self, photo: Path, file: Path) -> Size | None:
        """As stated in the annotations."""
        return self.files[file].photos[self.entries[photo]].size

    def draw(self, photo: Path, file: Path, size: Size) -> NDArray[np.int32]:
        """The mask (H, W) of a photo."""
        return self.files[file].labels(self.entries[photo], size)


def read_coco_files(photos: Mapping[Path, Path], classes: ClassTable | None, background: str | None) -> CocoReader:
    """Read the annotations of photos, given as photo -> file.

    Raises:
        DataError: as ``read_coco``; files differ in their classes; an entry may be of several photos.
    """
    reader = CocoReader()
    for file in dict.fromkeys(photos.values()):
        coco = read_coco(file, classes, background)
        if reader.files and coco.classes != reader.classes:
            first = next(iter(reader.files))
            raise DataError(
                f"{first} and {file} have different categories, {', '.join(reader.classes.names[:8])} and "
                f"{', '.join(coco.classes.names[:8])}; set classes to the names of all"
            )
        reader.files[file] = coco
        reader.entries.update(coco_entries([photo for photo, own in photos.items() if own == file], file, coco.photos))
    return reader


def coco_splits(images: Sequence[Path], files: Mapping[Path, str]) -> dict[Path, str]:
    """Image -> the split whose annotations list it, given as file -> split; images that none lists are absent.

    Raises:
        DataError: the annotations of two splits list an image, or as ``coco_entries``.
    """
    found: dict[Path, str] = {}
    for file, split in files.items():
        for image in coco_entries(images, file, listed_photos(file)):
            if (other := found.setdefault(image, split)) != split:
                raise DataError(
                    f"{file} lists {image.name}, and so do the annotations of {other}; each photo may be in one split; "
                    "name one file with --masks, or export the data again"
                )
    return found


def coco_entries(images: Sequence[Path], file: Path, listed: Iterable[str]) -> dict[Path, str]:
    """Image -> its ``file_name``, one of those that are listed, which may have folders, also with backslashes.

    Raises:
        DataError: several entries may be of one image, or one entry of several images.
    """
    present = {name_key(path.name) for path in images}
    named: dict[str, list[str]] = {}
    for entry in listed:
        if (name := next((name for name in photo_names(entry) if name in present), None)) is not None:
            named.setdefault(name, []).append(entry)
    entries: dict[Path, str] = {}
    takers: dict[str, list[Path]] = {}
    for path in images:
        matches = named.get(name_key(path.name), [])
        if len(matches) > 1:  # annotations of images in several folders: the entry of this folder is meant
            matches = sorted(filter(lambda entry: _ends(path, entry), matches), key=len)[-1:] or matches
        if len(matches) > 1:
            raise DataError(
                f"{file} lists {path.name} {len(matches)} times ({', '.join(matches[:4])}), and {path.parent} "
                "does not tell which is meant; photos in a folder of one of these names are accepted; move them there"
            )
        if matches:
            entries[path] = matches[0]
            takers.setdefault(matches[0], []).append(path)
    for entry, paths in takers.items():
        if len(paths) > 1:
            for path in _losers(paths, entry, file):
                del entries[path]
    return entries


def _losers(paths: list[Path], entry: str, file: Path) -> Iterable[Path]:
    """The photos of one name whose folder is not that of their entry."""
    fitting = [path for path in paths if _ends(path, entry)]
    if "/" not in PureWindowsPath(entry).as_posix() or len(fitting) != 1:
        raise DataError(
            f"{file} lists {entry} once, and it may be any of {', '.join(map(str, paths[:4]))}; a file_name with "
            "the folder of the photo is accepted; export it again, or leave the other photos out"
        )
    return (path for path in paths if path not in fitting)


def _ends(path: Path, entry: str) -> bool:
    return name_key(path.as_posix()).endswith(f"/{name_key(PureWindowsPath(entry).as_posix())}")
