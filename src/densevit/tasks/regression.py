"""Dense regression: any number of values for every pixel (surface normals, albedo, height)."""

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.data.sample import ClassTable
from densevit.data.transforms import Targets
from densevit.layers import resize
from densevit.tasks.base import Task, ValueFormat
from densevit.tasks.losses import berhu, cosine, l1
from densevit.tasks.metrics import RegressionMetrics
from densevit.types import DenseOutput, Size
from densevit.upsampling import upsample_values
from densevit_runtime.colour import Picture, colourise_values


class Regression(Task):
    """Any number of values for every pixel, and how they are learnt.

    Attributes:
        channels: names of the channels.
        unit: of all channels, for the reader; empty if they have none.
        unit_vectors: the channels are the components of a direction: predictions are normalised, the default loss is
            that of the cosine, and the mean angle is measured. A target of zeros is unknown.
        l1_weight: weight of the mean absolute error; by default 1, or 0 for unit vectors.
        berhu_weight: weight of reverse Huber, which weighs large errors more.
        cosine_weight: weight of one minus the cosine between the vectors of all channels; by default 0, or 1 for unit
            vectors.
    """

    target = "values"
    headline = ("MAE", False)
    kind: Literal["regression"] = "regression"
    channels: tuple[str, ...] = Field(min_length=1)
    unit: str = ""
    unit_vectors: bool = False
    l1_weight: float | None = Field(default=None, ge=0)
    berhu_weight: float = Field(default=0.0, ge=0)
    cosine_weight: float | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.unit_vectors and len(self.channels) != 3:
            raise ValueError(
                f"unit_vectors needs 3 channels, the components x, y and z, but channels has {self.channels}"
            )
        if not any(self._weights):
            raise ValueError(
                "l1_weight, berhu_weight and cosine_weight are all 0, but a head needs a loss; set one of them"
            )
        if self.cosine_weight and len(self.channels) == 1:
            raise ValueError("cosine_weight compares directions, but one channel has none; set it to 0")
        return self

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One channel per name."""
        return self.channels

    @property
    def mirrored_channels(self) -> tuple[int, ...]:
        """The x of a direction."""
        return (0,) if self.unit_vectors else ()

    @property
    def value_format(self) -> ValueFormat:
        """Values in their unit."""
        return ValueFormat(unit=self.unit)

    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        """float32 (K, H, W), NaN where unknown."""
        return targets.values

    @property
    def _weights(self) -> tuple[float, float, float]:
        """The weights of L1, berHu and cosine, with the defaults filled in."""
        l1_weight = float(not self.unit_vectors) if self.l1_weight is None else self.l1_weight
        cosine_weight = float(self.unit_vectors) if self.cosine_weight is None else self.cosine_weight
        return l1_weight, self.berhu_weight, cosine_weight

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """The weighted losses over the known pixels; unit vectors are compared at length 1."""
        values = resize(output.logits, (target.shape[-2], target.shape[-1]), align_corners=align_corners).float()
        known, total = self._known(target), values.new_zeros(())
        l1_weight, berhu_weight, cosine_weight = self._weights
        if cosine_weight:
            total = total + cosine_weight * cosine(values, target)
        if self.unit_vectors:
            values = F.normalize(torch.where(known.unsqueeze(1), values, 1.0), dim=1)
        if l1_weight:
            total = total + l1_weight * l1(values, target, known)
        if berhu_weight:
            total = total + berhu_weight * berhu(values, target, known)
        return total

    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The losses of training, with the teacher's values as the target."""
        return self.loss(DenseOutput(student), teacher, align_corners=False)

    def count(self, target: Tensor) -> Tensor:
        """Pixels whose values are known."""
        return self._known(target).sum().float()

    def _known(self, target: Tensor) -> Tensor:
        """Mask (B, H, W): all values are finite, and not all of a direction are zero."""
        known = target.isfinite().all(dim=1)
        return known & target.ne(0).any(dim=1) if self.unit_vectors else known

    def new_metrics(self) -> RegressionMetrics:
        """MAE, RMSE, and the mean angle for unit vectors."""
        return RegressionMetrics(len(self.channels), unit_vectors=self.unit_vectors)

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Values (K, H, W)."""
        values = upsample_values(logits, size, align_corners=align_corners)
        return F.normalize(values, dim=0) if self.unit_vectors else values

    def colourise(self, prediction: NDArray[Any]) -> Picture:
        """The first three channels as red, green and blue: -1..1 for unit vectors, otherwise each over its range."""
        return colourise_values(prediction, unit_vectors=self.unit_vectors)
