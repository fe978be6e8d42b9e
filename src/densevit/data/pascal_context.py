"""Pascal Context: 59 classes of whole scenes in photos of VOC 2010 (Mottaghi et al., CVPR 2014)."""

from typing import ClassVar, Literal

from densevit.data.base import PublicConfig
from densevit.data.class_names import PASCAL_CONTEXT
from densevit.data.files import FileDataset
from densevit.data.pascal_voc import listed
from densevit.data.sample import ALL_TARGETS, ClassTable, Target

_BELOW = ("", "VOC2010/", "VOCdevkit/VOC2010/")


class PascalContextConfig(PublicConfig):
    """Pascal Context.

    Attributes:
        split: 4998 and 5105 images.
        background: with the class "background", 60 in all, as for the published results of SETR and Segmenter;
            otherwise it is ignored and there are 59.
    """

    layout: ClassVar[str] = (
        "JPEGImages/*.jpg, SegmentationClassContext/*.png and ImageSets/SegmentationContext/<split>.txt, below "
        "VOCdevkit/VOC2010 or in the root; the masks are made from the download's trainval_merged.json by "
        "mmsegmentation's conversion for Pascal Context"
    )
    kind: Literal["pascal_context"] = "pascal_context"
    split: Literal["train", "val"] = "train"
    background: bool = True

    @property
    def table(self) -> ClassTable:
        """60 classes, or 59."""
        return ClassTable(PASCAL_CONTEXT if self.background else PASCAL_CONTEXT[1:])


def open_pascal_context(config: PascalContextConfig, *, targets: frozenset[Target] = ALL_TARGETS) -> FileDataset:
    """Images and masks of a split.

    Raises:
        DataError: if the layout differs, or an image or mask is missing.
    """
    names = config.find([f"{top}ImageSets/SegmentationContext/{config.split}.txt" for top in _BELOW])
    images, masks = listed(config, names, ["SegmentationClassContext"], _BELOW)
    rule = config.rule(config.table, reduce_zero=not config.background)
    return FileDataset(images, masks if "labels" in targets else None, rule=rule)
