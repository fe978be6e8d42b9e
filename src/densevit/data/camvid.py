"""CamVid: street scenes from a car, 11 classes (Brostow, Fauqueur and Cipolla, 2009)."""

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from densevit.data.base import PublicConfig
from densevit.data.class_names import CAMVID, CAMVID_COLOURS
from densevit.data.files import FileDataset
from densevit.data.mask_files import read_mask
from densevit.data.sample import ALL_TARGETS, ClassTable, Target
from densevit.errors import DataError
from densevit.io import find_images, read_labels

_VOID = 11
"""Void in SegNet's masks; black, which is void in colour masks, is mapped to it."""


class CamvidConfig(PublicConfig):
    """CamVid.

    Attributes:
        split: the usual 367, 101 and 233 images.
    """

    layout: ClassVar[str] = (
        "train/ and trainannot/ with class numbers (as in SegNet's copy), or train/ and train_labels/ with the "
        "original colours in *_L.png; val and test alike"
    )
    table: ClassVar[ClassTable] = ClassTable(CAMVID)
    kind: Literal["camvid"] = "camvid"
    split: Literal["train", "val", "test"] = "train"


def open_camvid(config: CamvidConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split.

    Raises:
        DataError: if the layout differs, or an image has no mask.
    """
    split = config.split
    images = find_images([config.find([split])])
    rule = config.rule(config.table, ignored=(_VOID,))
    if "labels" not in targets:
        return FileDataset(images, rule=rule)
    folder = config.find([f"{split}annot", f"{split}_labels", f"{split}_annot"])
    masks = [_mask_of(image, folder) for image in images]
    reader = _read_colours if folder.name.endswith("_labels") else read_labels
    return FileDataset(images, masks, rule=rule, read_mask=reader)


def _mask_of(image: Path, folder: Path) -> Path:
    names = [f"{image.stem}.png", f"{image.stem}_L.png"]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{image} has no mask in {folder}; {' or '.join(names)} is needed; unpack the whole download")


def _read_colours(mask: Path) -> NDArray[np.int32]:
    palette = (*(colour for _, colour, _ in CAMVID_COLOURS), (0, 0, 0))
    stored = read_mask(mask, palette=palette, mode="colour")
    final = np.array([*(CAMVID.index(name) for _, _, name in CAMVID_COLOURS), _VOID], np.int32)
    return final[stored]
