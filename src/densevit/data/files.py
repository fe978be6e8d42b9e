"""A data set of files: photos and targets by paths, read when asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.labels import LabelRule, read_mask
from densevit.data.sample import ClassTable, Sample, Target
from densevit.errors import DataError
from densevit.io import read_depth, read_image, read_values


@dataclass
class FileDataset:
    """Photos with masks, depth maps and value maps, one of each per photo.

    What reads a file is given as a function of its path, so that it can be sent to worker processes: a plain function,
    a method or a ``functools.partial``.

    Attributes:
        images: the photos.
        masks, depths, values: their targets in the same order, or None. Where one file holds the masks of all photos,
            it is there for each of them.
        rule: what the numbers in masks mean.
        read_image: (H, W, C) of a photo.
        read_mask: stored class numbers (H, W), from the path of the mask and that of the photo.
        read_depth: metres (H, W).
        normals: the values are surface normals.
        names: of the samples; by default the file names without their suffixes.
    """

    images: list[Path]
    masks: list[Path] | None = None
    depths: list[Path] | None = None
    values: list[Path] | None = None
    rule: LabelRule = field(default_factory=lambda: LabelRule(None))
    read_image: Callable[[Path], NDArray[Any]] = read_image
    read_mask: Callable[[Path, Path], NDArray[np.int32]] | None = None
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
        """Number of photos."""
        return len(self.images)

    def __getitem__(self, index: int, /) -> Sample:
        """Read a photo and what belongs to it.

        Raises:
            DataError: if a file is broken, sizes differ, or a mask holds an unknown class.
        """
        path = self.images[index]
        image = self.read_image(path)
        labels = depth = values = None
        if self.masks is not None:
            labels = self.labels(index)
            same_size(image.shape, labels.shape, path, self.masks[index])
        if self.depths is not None:
            depth = self.read_depth(self.depths[index])
            same_size(image.shape, depth.shape, path, self.depths[index])
        if self.values is not None:
            values = read_values(self.values[index])
            same_size(image.shape, values.shape, path, self.values[index])
            if self.normals and values.shape[2] != 3:
                raise DataError(
                    f"{self.values[index]} has {values.shape[2]} values per pixel but surface normals have 3, x, y and "
                    "z; unset normals or mend the file"
                )
        name = path.stem if self.names is None else self.names[index]
        return Sample(name, image, labels, depth, values, self.normals, self.rule.ignore_index)

    def labels(self, index: int) -> NDArray[np.int32]:
        """The mask of a photo in class ids, without reading the photo.

        Raises:
            DataError: if there are no masks, the file is broken, or it holds an unknown class.
        """
        if self.masks is None:
            raise DataError("the data set has no masks; name their folder, or drop the head that needs them")
        mask = self.masks[index]
        stored = read_mask(mask, palette=()) if self.read_mask is None else self.read_mask(mask, self.images[index])
        return self.rule(stored, str(mask))


def match(images: Sequence[Path], folder: Path | None, what: str, suffixes: Sequence[str]) -> list[Path] | None:
    """For every photo the file of the same stem in ``folder``; None without a folder.

    Raises:
        DataError: no such folder, a photo without such a file, or two files of one stem.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise DataError(f"{what} folder {folder} does not exist; give the folder that holds one {what} per photo")
    photos = _by_stem(images)
    targets = _by_stem(
        sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    )
    missing = [path.name for stem, path in photos.items() if stem not in targets]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(images)} photos have no {what} in {folder}, {missing[0]} for one; "
            f"each photo needs a {what} of the same name with one of {', '.join(suffixes)}"
        )
    return [targets[stem] for stem in photos]


def _by_stem(paths: Sequence[Path]) -> dict[str, Path]:
    """The paths by their stems, in their order; a stem of two files is refused, since either could be meant."""
    by_stem: dict[str, Path] = {}
    for path in paths:
        other = by_stem.setdefault(path.stem, path)
        if other is not path:
            raise DataError(
                f"{other} and {path} have the same name up to the suffix, by which photos and targets are brought "
                "together; each name may occur once; rename or remove one"
            )
    return by_stem


def same_size(image: tuple[int, ...], target: tuple[int, ...], image_path: Path, target_path: Path) -> None:
    """Refuse a target of another height or width than its photo.

    Raises:
        DataError: naming both files.
    """
    if image[:2] != target[:2]:
        raise DataError(
            f"{image_path} is {image[0]} x {image[1]} but {target_path} is {target[0]} x {target[1]}; "
            "both must have the same height and width (was one rotated by its EXIF tag, or resized?)"
        )
