"""Semantic segmentation: a class for every pixel."""

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor

from densevit.data.class_list import default_ignore
from densevit.data.sample import ClassTable, Rgb
from densevit.data.transforms import Targets
from densevit.layers import resize
from densevit.limits import limits, too_much
from densevit.tasks.base import Metrics, Task
from densevit.tasks.losses import cross_entropy, dice, divergence, lovasz_softmax, ohem, valid_count
from densevit.tasks.metrics import SegmentationMetrics
from densevit.tasks.palettes import palette_for
from densevit.types import DenseOutput, Size
from densevit.upsampling import upsample_labels
from densevit_runtime.colour import Picture, colourise_labels

WRONG = (230, 40, 40)
"""Colour of wrong pixels in pictures of the error."""

RIGHT_SHADE = 0.45
"""What is left of the brightness of the image where it is right."""


class Segmentation(Task):
    """The classes, and how they are learnt.

    Attributes:
        classes: names by index.
        palette: colours by index; chosen from the names if not given.
        ignore_index: value of target pixels that count in neither loss nor metrics; 255 becomes 65535 where it is a
            class.
        background: the class that was learnt where no shape of COCO or labelme is; None if there is none.
        cross_entropy_weight, ohem_weight, dice_weight, lovasz_weight: weights of the losses; 0 leaves one out.
        aux_weight: weight of each auxiliary head's loss, which is cross entropy.
        class_weights: factor of each class on cross entropy and OHEM; all 1 if not given.
        denominator: of cross entropy: the "valid" pixels, or "all" as in mmsegmentation.
        ohem_threshold: a pixel is hard while its true class has a smaller probability.
        ohem_min_kept: least number of pixels per image that OHEM takes, the hardest first.
        typical_entropy: mean of ``mean_entropy`` over images of the domain of the head. The heads of a model are
            compared by their excess over it, since some are less sure than others even of what they know.
    """

    target = "labels"
    averages_probabilities = True
    error_key = "Error: red where the class is wrong; black in the target is ignored."
    headline = ("mIoU", True)
    kind: Literal["segmentation"] = "segmentation"
    classes: tuple[str, ...] = Field(min_length=1)
    palette: tuple[Rgb, ...] = ()
    ignore_index: int = 255
    background: str | None = None
    cross_entropy_weight: float = Field(default=1.0, ge=0)
    ohem_weight: float = Field(default=0.0, ge=0)
    dice_weight: float = Field(default=0.0, ge=0)
    lovasz_weight: float = Field(default=0.0, ge=0)
    aux_weight: float = Field(default=0.4, ge=0)
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    denominator: Literal["valid", "all"] = "valid"
    ohem_threshold: float = Field(default=0.7, gt=0, le=1)
    ohem_min_kept: int = Field(default=100_000, gt=0)
    typical_entropy: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes holds a name twice: {self.classes}")
        if len(self.classes) > limits().classes:
            raise ValueError(too_much(f"there are {len(self.classes)} classes", "classes"))
        if self.ignore_index == 255 < len(self.classes):
            object.__setattr__(self, "ignore_index", default_ignore(len(self.classes)))
        if self.background is not None and self.background not in self.classes:
            raise ValueError(f"background is {self.background!r}, which is no class; name one of them, or none")
        if 0 <= self.ignore_index < len(self.classes):
            raise ValueError(
                f"ignore_index {self.ignore_index} is also the id of class {self.classes[self.ignore_index]!r}"
            )
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise ValueError(f"class_weights has {len(self.class_weights)} factors for {len(self.classes)} classes")
        if not (self.cross_entropy_weight or self.ohem_weight or self.dice_weight or self.lovasz_weight):
            raise ValueError(
                "cross_entropy_weight, ohem_weight, dice_weight and lovasz_weight are all 0, but a head needs a loss; "
                "set one of them"
            )
        if not self.palette:
            object.__setattr__(self, "palette", palette_for(self.classes))
        if len(self.palette) != len(self.classes):
            raise ValueError(f"palette has {len(self.palette)} colours for {len(self.classes)} classes")
        return self

    @model_serializer(mode="wrap")
    def _serialise(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without ``background`` if there is none, so that other models are stored as before."""
        return {key: value for key, value in inner(self).items() if key != "background" or value is not None}

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One channel per class."""
        return self.classes

    @property
    def class_table(self) -> ClassTable:
        """The classes with their colours."""
        return ClassTable(self.classes, self.ignore_index, palette=self.palette)

    def describe(self) -> dict[str, Any]:
        """With the class names."""
        return {**super().describe(), "classes": list(self.classes)}

    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        """int64 (H, W) in this task's ids, from the data set's view with the same class names."""
        if targets.labels is None:
            return None
        table = None if classes is None else classes.lookup(self.classes, ignore_index=self.ignore_index)
        if table is None:
            return targets.labels if classes is None else None
        return torch.from_numpy(table)[targets.labels.clamp(min=-1)]  # -1 is the last entry: no class

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """The weighted losses at the target's size, plus cross entropy of the auxiliary heads."""
        total = target.new_zeros((), dtype=torch.float32)
        if self.cross_entropy_weight:
            pixelwise = self._cross_entropy(output.logits, target, align_corners=align_corners)
            total = total + self.cross_entropy_weight * pixelwise
        if self.ohem_weight or self.dice_weight or self.lovasz_weight:
            logits = resize(output.logits, (target.shape[-2], target.shape[-1]), align_corners=align_corners)
            total = total + self._other_losses(logits, target)
        for aux in output.aux:
            total = total + self.aux_weight * self._cross_entropy(aux, target, align_corners=align_corners)
        return total

    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the teacher's probabilities, also where the target is unknown."""
        return divergence(student, teacher)

    def count(self, target: Tensor) -> Tensor:
        """Valid pixels, or the sum of their class weights; all pixels if ``denominator`` is "all"."""
        if self.denominator == "all":
            return torch.tensor(float(target.numel()), device=target.device)
        return valid_count(target, ignore_index=self.ignore_index, class_weights=self._class_weights(target))

    def knows(self, target: Tensor) -> bool:
        """Whether a pixel has a class; unlike the count, whatever the denominator."""
        return bool((target != self.ignore_index).any())

    def _cross_entropy(self, logits: Tensor, target: Tensor, *, align_corners: bool) -> Tensor:
        return cross_entropy(
            logits,
            target,
            align_corners=align_corners,
            ignore_index=self.ignore_index,
            denominator=self.denominator,
            class_weights=self._class_weights(target),
        )

    def _other_losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """OHEM, Dice and Lovasz of logits at the target's size, weighted and added."""
        total, ignored = logits.new_zeros((), dtype=torch.float32), self.ignore_index
        if self.ohem_weight:
            hard = ohem(
                logits,
                target,
                ignore_index=ignored,
                threshold=self.ohem_threshold,
                min_kept=self.ohem_min_kept,
                class_weights=self._class_weights(target),
            )
            total = total + self.ohem_weight * hard
        if self.dice_weight:
            total = total + self.dice_weight * dice(logits, target, ignore_index=ignored)
        if self.lovasz_weight:
            total = total + self.lovasz_weight * lovasz_softmax(logits, target, ignore_index=ignored)
        return total

    def _class_weights(self, like: Tensor) -> Tensor | None:
        if self.class_weights is None:
            return None
        return torch.tensor(self.class_weights, dtype=torch.float32, device=like.device)

    def new_metrics(self) -> SegmentationMetrics:
        """mIoU, aAcc, mAcc and the metrics of each class."""
        return SegmentationMetrics(len(self.classes), ignore_index=self.ignore_index, class_names=self.classes)

    def compare(self, image: Picture, target: Tensor, prediction: Tensor) -> tuple[Picture, Picture, Picture]:
        """Error: the image in dark grey, wrong pixels in red, pixels without a class unchanged."""
        true, predicted = target.numpy(), prediction.numpy()
        grey = image.mean(axis=2, keepdims=True) * RIGHT_SHADE
        error = np.repeat(grey, 3, axis=2).astype(np.uint8)
        known = true != self.ignore_index
        error[known & (true != predicted)] = WRONG
        error[~known] = image[~known]
        return self.colourise(true), self.colourise(predicted), error

    def joint_counts(self, metrics: Metrics, target: Tensor, prediction: Tensor) -> Tensor:
        """The confusion matrix."""
        return metrics.state["confusion"]

    def report_details(self, counts: Tensor | None) -> dict[str, Any]:
        """Classes, palette and confusion matrix."""
        confusion = None if counts is None else counts.tolist()
        return {"classes": self.classes, "palette": self.palette, "confusion": confusion}

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Labels (H, W): fused upsampling and arg max."""
        return upsample_labels(logits, size, align_corners=align_corners)

    def colourise(self, prediction: NDArray[Any]) -> Picture:
        """Labels in the palette's colours."""
        return colourise_labels(prediction, self.palette, ignore_index=self.ignore_index)
