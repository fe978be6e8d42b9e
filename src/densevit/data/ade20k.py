"""ADE20K as in the scene parsing challenge: 150 classes (Zhou et al., CVPR 2017)."""

from typing import ClassVar, Literal

from densevit.data.base import PublicConfig
from densevit.data.class_names import ADE20K
from densevit.data.files import FileDataset, match
from densevit.data.sample import ALL_TARGETS, ClassTable, Target
from densevit.io import find_images

_FOLDERS = {"train": "training", "val": "validation"}


class Ade20kConfig(PublicConfig):
    """ADE20K, the archive ADEChallengeData2016.

    Attributes:
        split: 20210 and 2000 images. In the masks, 0 is no class and classes count from 1.
    """

    layout: ClassVar[str] = "images/training, images/validation, annotations/training and annotations/validation"
    table: ClassVar[ClassTable] = ClassTable(ADE20K)
    kind: Literal["ade20k"] = "ade20k"
    split: Literal["train", "val"] = "train"


def open_ade20k(config: Ade20kConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split.

    Raises:
        DataError: if the layout differs, or an image has no mask.
    """
    split = _FOLDERS[config.split]
    below = ("", "ADEChallengeData2016/")
    images = find_images([config.find([f"{top}images/{split}" for top in below])])
    rule = config.rule(config.table, reduce_zero=True)
    if "labels" not in targets:
        return FileDataset(images, rule=rule)
    folder = config.find([f"{top}annotations/{split}" for top in below])
    return FileDataset(images, match(images, folder, "mask", (".png",)), rule=rule)
