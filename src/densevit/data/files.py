"""A data set of files: images and targets by paths, read on access."""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.labels import LabelRule
from densevit.data.sample import ClassTable, Sample, Target
from densevit.errors import DataError
from densevit.io import BAND_SUFFIXES, read_depth, read_image, read_labels, read_values
from densevit.types import Size


@dataclass
class FileDataset:
    """Images with masks, depth maps and value maps, one of each per image.

    The functions that read files are sent to worker processes, so they must be plain functions, methods or
    ``functools.partial``.

    Attributes:
        images: paths of the images.
        masks, depths, values: paths of their targets in the same order, or None. A file that holds the masks of all
            images is repeated for each of them.
        rule: what the numbers in masks mean.
        read_image: path -> (H, W, C).
        read_mask: path -> stored class numbers (H, W).
        read_depth: path -> metres (H, W).
        normals: the values are surface normals.
        names: of the samples; by default the file names without their suffixes.
    """

    images: list[Path]
    masks: list[Path] | None = None
    depths: list[Path] | None = None
    values: list[Path] | None = None
    rule: LabelRule = field(default_factory=lambda: LabelRule(None))
    read_image: Callable[[Path], NDArray[Any]] = read_image
    read_mask: Callable[[Path], NDArray[np.int32]] = read_labels
    read_depth: Callable[[Path], NDArray[np.float32]] = read_depth
    normals: bool = False
    names: Sequence[str] | None = None

    @property
    def targets(self) -> frozenset[Target]:
        """What is known besides the images."""
        paths: dict[Target, list[Path] | None] = {"labels": self.masks, "depth": self.depths, "values": self.values}
        return frozenset(target for target, files in paths.items() if files is not None)

    @property
    def classes(self) -> ClassTable | None:
        """The classes of the masks; None without masks or names."""
        return self.rule.classes if self.masks is not None else None

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Sample:
        """Read an image and its targets.

        Raises:
            DataError: if a file is broken, sizes differ, or a mask holds an unknown class.
        """
        path = self.images[index]
        image = self.read_image(path)
        labels = None if self.masks is None else self.labels(index, (image.shape[0], image.shape[1]))
        depth = None if self.depths is None else self.read_depth(self.depths[index])
        values = None if self.values is None else read_values(self.values[index])
        for target, paths in ((labels, self.masks), (depth, self.depths), (values, self.values)):
            if target is not None and paths is not None:
                same_size(image.shape, target.shape, path, paths[index])
        if self.normals and self.values is not None and values is not None and values.shape[2] != 3:
            raise DataError(
                f"{self.values[index]} has {values.shape[2]} values per pixel but surface normals have 3, x, y and "
                "z; unset normals or fix the file"
            )
        name = path.stem if self.names is None else self.names[index]
        return Sample(name, image, labels, depth, values, self.normals, self.rule.ignore_index)

    def labels(self, index: int, size: Size | None = None) -> NDArray[np.int32]:
        """The mask of an image in class ids, without reading the image, whose ``size`` may be given.

        Raises:
            DataError: if there are no masks, the file is broken, or it holds an unknown class.
        """
        if self.masks is None:
            raise DataError("the data set has no masks; name their folder, or drop the head that needs them")
        mask = self.masks[index]
        return self.rule(self.read_mask(mask), str(mask))


def find_bands(folder: Path) -> list[Path]:
    """The images of a folder that may have any number of bands.

    Raises:
        DataError: if there are none.
    """
    paths = _visible_files(folder, BAND_SUFFIXES)
    if not paths:
        raise DataError(
            f"{folder} is a folder without an image of bands; {', '.join(sorted(BAND_SUFFIXES))} are accepted; check it"
        )
    return paths


def match(images: Sequence[Path], folder: Path | None, kind: str, suffixes: Sequence[str]) -> list[Path] | None:
    """The file of the same stem in ``folder`` for every image; None without a folder.

    Raises:
        DataError: if there is no such folder, an image lacks its file, or two files have the same stem.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise DataError(f"{kind} folder {folder} does not exist; give the folder that holds one {kind} per photo")
    photos = _by_stem(images)
    targets = _by_stem(_visible_files(folder, suffixes))
    missing = [path.name for stem, path in photos.items() if stem not in targets]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} photos have no {kind} in {folder}, for example {missing[0]}; "
            f"each photo needs a {kind} of the same name with one of {', '.join(suffixes)}"
        )
    return [targets[stem] for stem in photos]


def _visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))


def as_stored(path: Path) -> Path:
    """A path that exists, with each part in composed or decomposed Unicode as the file system has it."""
    if path.exists() or path.parent == path:
        return path
    parent = as_stored(path.parent)
    forms = (parent / unicodedata.normalize(form, path.name) for form in ("NFC", "NFD"))
    return next((form for form in forms if form.exists()), parent / path.name)


def above_twins(root: Path, base: Path, text: str) -> tuple[Path, str]:
    """A folder below a root and what is relative to it, from above the first folder that is there in both forms.

    Two folders of one name, one of which a Mac wrote, are one in templates.
    """
    folder = root
    for place, part in enumerate(base.parts):
        forms = {unicodedata.normalize(form, part) for form in ("NFC", "NFD")}
        if len(forms) == 2 and all((folder / form).is_dir() for form in forms):
            return folder, "/".join((*base.parts[place:], text))
        folder = as_stored(folder / part)
    return folder, text


def check_forms(files: Mapping[str, Path]) -> None:
    """Refuse two files of a listing whose paths differ only in how accents are stored.

    Raises:
        DataError: naming both.
    """
    for written, path in files.items():
        if not written.isascii() and (other := files.get(name_key(written))) not in (None, path):
            raise DataError(
                f"{other} and {path} have the same name with accents in different Unicode forms (NFC and NFD), which "
                "are not told apart; rename one of them or its folder, or remove it if it is a copy"
            )


def name_key(name: str) -> str:
    """A name in the form by which files are matched: Macs store accents apart from their letters, others together."""
    return unicodedata.normalize("NFC", name)


def without_upload_prefix(name: str) -> str:
    """The name of a photo without what Label Studio puts before those of uploads, such as 0a1b2c3d-."""
    return re.sub(r"\A[0-9a-f]{4,8}-(?=.)", "", name)


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """The paths by their stems, in order; two files of one stem are refused, since either could be meant."""
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(name_key(path.stem), path)
        if other is not path:
            raise DataError(
                f"{other} and {path} have the same name up to the suffix, by which photos and targets are matched; "
                "each name may occur once; rename or remove one"
            )
    return by_stem


def same_size(image: tuple[int, ...], target: tuple[int, ...], image_path: Path, target_path: Path) -> None:
    """Refuse a target whose height or width differs from that of its image.

    Raises:
        DataError: naming both files.
    """
    if image[:2] != target[:2]:
        raise DataError(
            f"{image_path} is {image[0]} x {image[1]} but {target_path} is {target[0]} x {target[1]}; "
            "both must have the same height and width (was one rotated by its EXIF tag, or resized?)"
        )
