"""NYU Depth v2: rooms, 40 classes and depth (Silberman, Hoiem, Kohli and Fergus, ECCV 2012)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from densevit.data.base import PublicConfig
from densevit.data.class_names import NYUV2, NYUV2_13, NYUV2_TO_13
from densevit.data.files import FileDataset, match, same_size
from densevit.data.kitti import find_pairs
from densevit.data.labels import LabelRule
from densevit.data.sample import ALL_TARGETS, ClassTable, Sample, Target
from densevit.errors import DataError
from densevit.io import find_images, mat_length, read_lines, read_mat_item, read_small_mat

_MAT = "nyu_depth_v2_labeled.mat"


class Nyuv2Config(PublicConfig):
    """NYU Depth v2.

    Attributes:
        split: the official 795 and 654 images; val is the official test split, or what a folder val/ holds.
    """

    layout: ClassVar[str] = (
        "images/<split>, and masks/<split> (0 to 39, 255 ignored) or depth/<split> (16-bit PNG, millimetres) or both; "
        "or the official nyu_depth_v2_labeled.mat with splits.mat, and classMapping40.mat for masks; or a list "
        "nyudepthv2_<train|test>_files_with_gt.txt with its folders"
    )
    table: ClassVar[ClassTable] = ClassTable(NYUV2, views={"classes13": (NYUV2_13, NYUV2_TO_13)})
    kind: Literal["nyuv2"] = "nyuv2"
    split: Literal["train", "val"] = "train"


def open_nyuv2(config: Nyuv2Config, *, targets: frozenset[Target] = ALL_TARGETS) -> "FileDataset | MatDataset":
    """Images with masks and depth of a split, in any of the three layouts.

    Raises:
        DataError: if the layout differs, or a file is missing.
    """
    part = {"train": "train", "val": "test"}[config.split]
    lists = config.root / f"nyudepthv2_{part}_files_with_gt.txt"
    if (config.root / _MAT).is_file():
        return MatDataset(config, targets)
    if lists.is_file():
        pairs = [
            (words[0], words[1]) for line in read_lines(lists, "photo and depth map") if len(words := line.split()) > 1
        ]
        folders = ("", "sync", "official_splits/test", part)
        images, depths = find_pairs(config, pairs, lists, folders, folders)
        names = [f"{image.parent.name}_{image.stem}" for image in images]
        return FileDataset(images, depths=depths if "depth" in targets else None, names=names)
    splits = tuple(dict.fromkeys((config.split, part)))
    images = find_images([config.find([f"images/{split}" for split in splits])])
    dataset = FileDataset(images, rule=config.rule(config.table))
    if "labels" in targets:
        dataset.masks = match(images, _first_folder(config.root / "masks", splits), "mask", (".png",))
    if "depth" in targets:
        dataset.depths = match(images, _first_folder(config.root / "depth", splits), "depth map", (".png",))
    return dataset


def _first_folder(parent: Path, names: Sequence[str]) -> Path | None:
    return next((parent / name for name in names if (parent / name).is_dir()), None)


class MatDataset:
    """The images of the official file, read from it one by one."""

    def __init__(self, config: Nyuv2Config, targets: frozenset[Target]) -> None:
        self.path = config.find([_MAT])
        key = {"train": "trainNdxs", "val": "testNdxs"}[config.split]
        self.numbers = read_small_mat(config.find(["splits.mat"]), key).ravel().astype(np.int64) - 1
        if not len(self.numbers) or int(self.numbers.max()) >= mat_length(self.path, "images"):
            raise DataError(f"{self.path} has fewer photos than splits.mat names; both of the same source are needed")
        self.with_depth = "depth" in targets
        self.rule: LabelRule | None = None
        if "labels" in targets:
            to_40 = read_small_mat(config.find(["classMapping40.mat"]), "mapClass").ravel()
            ids = {number: int(place) - 1 for number, place in enumerate(to_40.tolist(), start=1) if 1 <= place <= 40}
            self.rule = config.rule(config.table, ids=ids, ignored=(0,))

    @property
    def classes(self) -> ClassTable | None:
        """The 40 classes."""
        return None if self.rule is None else self.rule.classes

    def __len__(self) -> int:
        """Number of images."""
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Sample:
        """Read an image with its mask and depth.

        Raises:
            DataError: if the file is damaged, or lacks one of them.
        """
        number = int(self.numbers[index])
        read = partial(read_mat_item, self.path, index=number)
        name = f"{number + 1:04d}"
        labels = depth = None
        if self.rule is not None:
            labels = self.rule(read("labels").astype(np.int32), f"{self.path}: labels of photo {name}")
        if self.with_depth:
            depth = np.nan_to_num(read("depths").astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        image = np.ascontiguousarray(read("images"))
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise DataError(
                f"{self.path} has images of {image.dtype} {image.shape}; RGB of 8 bits is needed; copy it again"
            )
        for target in (labels, depth):
            if target is not None:
                same_size(image.shape, target.shape, self.path, self.path)
        return Sample(name, image, labels, depth)
