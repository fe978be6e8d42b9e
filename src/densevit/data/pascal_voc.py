"""Pascal VOC 2012 and its layout: lists of names in ``ImageSets``, images in ``JPEGImages``."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from densevit.data.base import PublicConfig
from densevit.data.class_names import PASCAL_VOC
from densevit.data.files import FileDataset
from densevit.data.sample import ALL_TARGETS, ClassTable, Target
from densevit.io import read_lines

_BELOW = ("", "VOC2012/", "VOCdevkit/VOC2012/")


class PascalVocConfig(PublicConfig):
    """Pascal VOC 2012.

    Attributes:
        split: 1464, 1449 and 2913 images; trainaug is the usual union with the masks of SBD, 10582. 255 in the
            masks, the borders of objects, is ignored.
    """

    layout: ClassVar[str] = (
        "JPEGImages/*.jpg, SegmentationClass/*.png and ImageSets/Segmentation/<split>.txt, below VOCdevkit/VOC2012 or "
        "in the root; trainaug also needs SegmentationClassAug/"
    )
    table: ClassVar[ClassTable] = ClassTable(PASCAL_VOC)
    kind: Literal["pascal_voc"] = "pascal_voc"
    split: Literal["train", "val", "trainval", "trainaug"] = "train"


def open_pascal_voc(config: PascalVocConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split.

    Raises:
        DataError: if the layout differs, or an image or mask is missing.
    """
    folders = ["SegmentationClassAug", "SegmentationClass"] if config.split == "trainaug" else ["SegmentationClass"]
    lists = config.find([f"{top}ImageSets/Segmentation/{config.split}.txt" for top in _BELOW])
    images, masks = listed(config, lists, folders, _BELOW)
    return FileDataset(images, masks if "labels" in targets else None, rule=config.rule(config.table))


def listed(
    config: PublicConfig, names: Path, folders: Sequence[str], below: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Images and masks of the names in a list; each mask is in the first of ``folders`` that has it.

    Raises:
        DataError: if an image or mask is missing.
    """
    photos = config.find([f"{top}JPEGImages" for top in below])
    config.find([f"{top}{folders[0]}" for top in below])
    places = [photos.parent / folder for folder in folders]
    images, masks = [], []
    for line in read_lines(names, "names of photos"):
        name = line.split()[-1].rpartition("/")[2].removesuffix(".png")  # SBD's lists have both paths on a line
        image = photos / f"{name}.jpg"
        candidates = [place / f"{name}.png" for place in places]
        mask = next((path for path in candidates if path.is_file()), None)
        if not image.is_file() or mask is None:
            missing = candidates[0] if image.is_file() else image
            raise config.incomplete(f"{names} lists {name!r} but {missing} does not exist")
        images.append(image)
        masks.append(mask)
    return images, masks
