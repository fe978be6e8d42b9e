"""Cityscapes: street scenes of 50 cities, 19 classes (Cordts et al., CVPR 2016)."""

from typing import ClassVar, Literal

from densevit.data.base import PublicConfig
from densevit.data.class_names import CITYSCAPES, CITYSCAPES_COLOURS, CITYSCAPES_IDS
from densevit.data.files import FileDataset
from densevit.data.sample import ALL_TARGETS, ClassTable, Target
from densevit.io import find_images

_PHOTO = "_leftImg8bit"


class CityscapesConfig(PublicConfig):
    """Cityscapes.

    Attributes:
        split: 2975 and 500 images, and 19998 of train_extra, which has only coarse masks.
        annotation: the fine masks, or the coarse ones.
    """

    layout: ClassVar[str] = (
        "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png or "
        "*_gtFine_labelTrainIds.png"
    )
    table: ClassVar[ClassTable] = ClassTable(CITYSCAPES, palette=CITYSCAPES_COLOURS)
    kind: Literal["cityscapes"] = "cityscapes"
    split: Literal["train", "val", "train_extra"] = "train"
    annotation: Literal["fine", "coarse"] = "fine"


def open_cityscapes(config: CityscapesConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split; ``labelTrainIds`` where all images have them, otherwise ``labelIds``.

    Raises:
        DataError: if the layout differs, or an image has no mask.
    """
    cities = config.find([f"leftImg8bit/{config.split}"])
    folders = sorted(path for path in cities.iterdir() if path.is_dir())
    images = [path for path in find_images(folders) if path.stem.endswith(_PHOTO)] if folders else []
    if not images:
        raise config.incomplete(f"{cities} has no */*{_PHOTO}.png")
    if "labels" not in targets:
        return FileDataset(images, rule=config.rule(config.table))
    kind = {"fine": "gtFine", "coarse": "gtCoarse"}[config.annotation]
    truth = config.find([f"{kind}/{config.split}"])
    stems = [truth / image.parent.name / image.stem.removesuffix(_PHOTO) for image in images]
    train_ids = [stem.with_name(f"{stem.name}_{kind}_labelTrainIds.png") for stem in stems]
    label_ids = [stem.with_name(f"{stem.name}_{kind}_labelIds.png") for stem in stems]
    ids = {stored: index for index, stored in enumerate(CITYSCAPES_IDS)}
    masks, rule = config.choose_masks(train_ids, label_ids, ids=ids, ignored=[n for n in range(34) if n not in ids])
    return FileDataset(images, masks, rule=rule)
