"""Depth: metres (metric), or disparity (relative inverse depth). The two are never mixed."""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.data.sample import ClassTable
from densevit.data.transforms import Example
from densevit.layers import resize
from densevit.tasks.base import Task
from densevit.tasks.colour import colourise_depth
from densevit.tasks.losses import gradient_matching, l1, remove_scale_shift, scale_shift_invariant, silog
from densevit.tasks.metrics import DepthMetrics
from densevit.types import DenseOutput, Size
from densevit.upsampling import upsample_values

Quantity = Literal["depth", "disparity"]


class Depth(Task):
    """What the values mean and how they are learnt.

    Attributes:
        quantity: "depth" in metres, larger is farther; "disparity" without unit, larger is nearer.
        min_depth_m, max_depth_m: range of valid targets; predictions are clipped to it in metrics.
        variance_focus: of SILog: 0.85 forgives most of a wrong scale of the whole map, 0 forgives nothing.
        l1_weight: weight of the mean absolute error in metres beside SILog (metric depth).
        gradient_weight: weight of multi-scale gradient matching, on log depth or on disparity.
    """

    kind: Literal["depth"] = "depth"
    quantity: Quantity = "depth"
    min_depth_m: float = Field(default=1e-3, gt=0)
    max_depth_m: float = Field(default=10.0, gt=0)
    variance_focus: float = Field(default=0.85, ge=0, le=1)
    l1_weight: float = Field(default=0.0, ge=0)
    gradient_weight: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError(f"min_depth_m {self.min_depth_m} must be below max_depth_m {self.max_depth_m}")
        return self

    @property
    def unit(self) -> str:
        """Metres, "m", or "" for disparity."""
        return "m" if self.quantity == "depth" else ""

    @property
    def out_channels(self) -> int:
        """One value per pixel."""
        return 1

    @property
    def headline(self) -> tuple[str, bool]:
        """delta1, higher is better."""
        return "delta1", True

    def read_target(self, example: Example, classes: ClassTable | None) -> Tensor | None:
        """float32 (H, W) metres, 0 where unknown or out of range."""
        if example.depth is None:
            return None
        valid = (example.depth > self.min_depth_m) & (example.depth < self.max_depth_m)
        return example.depth * valid

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """SILog on metres, or the scale- and shift-invariant loss on disparity, plus the weighted terms."""
        size = (target.shape[-2], target.shape[-1])
        values = resize(output.logits, size, align_corners=align_corners).float()[:, 0]  # (B, H, W)
        mask = target > 0
        if self.quantity == "disparity":
            inverse = mask / target.clamp(min=self.min_depth_m)
            total = scale_shift_invariant(values, inverse, mask)
            values, compared = remove_scale_shift(values, mask), remove_scale_shift(inverse, mask)
        else:
            values = values.clamp(min=self.min_depth_m)
            total = silog(values, target, variance_focus=self.variance_focus)
            if self.l1_weight:
                total = total + self.l1_weight * l1(values, target, mask)
            values, compared = values.log(), target.clamp(min=self.min_depth_m).log()
        if self.gradient_weight:
            total = total + self.gradient_weight * gradient_matching(values, compared, mask)
        return total

    def count(self, target: Tensor) -> Tensor:
        """Valid pixels; of disparity, where each image has a loss of its own, the images with any."""
        valid = target > 0
        return (valid.sum() if self.quantity == "depth" else valid.flatten(1).any(dim=1).sum()).float()

    def new_metrics(self) -> DepthMetrics:
        """AbsRel, RMSE, delta1 and the others; disparity is first aligned by scale and shift, image by image."""
        align: Literal["none", "scale_shift"] = "none" if self.quantity == "depth" else "scale_shift"
        return DepthMetrics(min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m, align=align)

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Depth or disparity (H, W)."""
        return upsample_values(logits, size, align_corners=align_corners)[0]

    def colourise(self, prediction: NDArray[Any]) -> NDArray[np.uint8]:
        """Near is bright."""
        return colourise_depth(prediction, near="small" if self.quantity == "depth" else "large")
