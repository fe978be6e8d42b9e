"""COCO-Stuff 164k: 80 classes of things and 91 of stuff (Caesar, Uijlings and Ferrari, CVPR 2018)."""

from typing import ClassVar, Literal

from densevit.data.base import PublicConfig
from densevit.data.class_names import COCO_STUFF, COCO_STUFF_GAPS
from densevit.data.files import FileDataset
from densevit.data.sample import ALL_TARGETS, ClassTable, Target
from densevit.io import find_images


class CocoStuffConfig(PublicConfig):
    """COCO-Stuff 164k.

    Attributes:
        split: 118287 and 5000 images.
    """

    layout: ClassVar[str] = (
        "images/train2017, images/val2017, and annotations/train2017, annotations/val2017 with the masks of "
        "stuffthingmaps_trainval2017, or with *_labelTrainIds.png made of them"
    )
    table: ClassVar[ClassTable] = ClassTable(COCO_STUFF)
    kind: Literal["coco_stuff"] = "coco_stuff"
    split: Literal["train", "val"] = "train"


def open_coco_stuff(config: CocoStuffConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split; ``labelTrainIds`` where all images have them, otherwise the raw numbers.

    Raises:
        DataError: if the layout differs, or an image has no mask.
    """
    split = f"{config.split}2017"
    images = find_images([config.find([f"images/{split}", split])])
    if "labels" not in targets:
        return FileDataset(images, rule=config.rule(config.table))
    places = ("annotations", "stuffthingmaps_trainval2017", "stuffthingmaps")
    folder = config.find([f"{place}/{split}" for place in places])
    train_ids = [folder / f"{image.stem}_labelTrainIds.png" for image in images]
    plain = [folder / f"{image.stem}.png" for image in images]
    raw = [number for number in range(len(COCO_STUFF) + len(COCO_STUFF_GAPS)) if number not in COCO_STUFF_GAPS]
    masks, rule = config.choose_masks(train_ids, plain, ids={stored: index for index, stored in enumerate(raw)})
    return FileDataset(images, masks, rule=rule)
