"""Depth: metres (metric), disparity (relative inverse depth), or relative depth. They are never mixed."""

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from densevit.data.sample import ClassTable
from densevit.data.transforms import Targets
from densevit.layers import resize
from densevit.tasks.base import Metrics, Task, ValueFormat
from densevit.tasks.losses import berhu, gradient_matching, l1, remove_scale_shift, scale_shift_invariant, silog
from densevit.tasks.metrics import Align, DepthMetrics
from densevit.types import DenseOutput, Size
from densevit.upsampling import upsample_values
from densevit_runtime.colour import Picture, colourise_depth, heat
from densevit_runtime.metadata import Quantity

DEPTH_BINS = 64
"""Rows and columns of the counts of true against predicted depth."""

ALIGN: dict[Quantity, Align] = {"depth": "none", "disparity": "scale_shift", "relative_depth": "scale_shift_of_depth"}
"""How metrics bring each quantity to metres."""

WORST_RATIO = 0.5
"""The relative error from which on a picture of the error is at its brightest."""


class Depth(Task):
    """The meaning of the values, and how they are learnt.

    Attributes:
        quantity: "depth" in metres, larger is farther; "disparity" without unit, larger is nearer; "relative_depth"
            without unit, larger is farther. The latter two are known up to a factor and an offset.
        min_depth_m, max_depth_m: range of valid targets; metrics clip predictions to it.
        silog_weight: weight of SILog (depth); 0 leaves a loss out.
        l1_weight, berhu_weight: weights of the mean absolute error and of reverse Huber, in metres (depth).
        canonical_focal_px: focal length, in pixels of the image at the encoder, for which values are in metres; those
            of another camera are multiplied by its focal length over this one (Depth Anything 3). None for models that
            take no camera into account.
        scale_shift_weight: weight of the absolute error after scale and shift are removed (relative values).
        gradient_weight: weight of multi-scale gradient matching, on log depth or on relative values without scale and
            shift.
        variance_focus: of SILog: 0.85 forgives most of a wrong scale of the whole map, 0 nothing.
        trim: share of each image's largest errors that the scale- and shift-invariant error leaves out.
        gradient_scales: number of resolutions at which gradients are matched, each half of the one before.
    """

    target = "depth"
    error_key = (
        "Near is bright; target and prediction have the same scale. Error: relative, from black for none to yellow for "
        f"{WORST_RATIO:.0%} and more."
    )
    headline = ("delta1", True)
    kind: Literal["depth"] = "depth"
    quantity: Quantity = "depth"
    min_depth_m: float = Field(default=1e-3, gt=0)
    max_depth_m: float = Field(default=10.0, gt=0)
    canonical_focal_px: float | None = Field(default=None, gt=0)
    silog_weight: float = Field(default=1.0, ge=0)
    l1_weight: float = Field(default=0.0, ge=0)
    berhu_weight: float = Field(default=0.0, ge=0)
    scale_shift_weight: float = Field(default=1.0, ge=0)
    gradient_weight: float = Field(default=0.0, ge=0)
    variance_focus: float = Field(default=0.85, ge=0, le=1)
    trim: float = Field(default=0.0, ge=0, lt=1)
    gradient_scales: int = Field(default=4, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_depth_m >= self.max_depth_m:
            raise ValueError(f"min_depth_m {self.min_depth_m} must be below max_depth_m {self.max_depth_m}")
        relative = self.quantity != "depth"
        if relative and (self.l1_weight or self.berhu_weight):
            raise ValueError(
                f"l1_weight and berhu_weight compare metres, but {self.quantity} has none; set them to 0, or quantity "
                "to 'depth'"
            )
        if relative and self.canonical_focal_px is not None:
            raise ValueError(f"canonical_focal_px is of metres, but {self.quantity} has none; leave it out")
        names = ("scale_shift_weight",) if relative else ("silog_weight", "l1_weight", "berhu_weight")
        if not any(getattr(self, name) for name in (*names, "gradient_weight")):
            raise ValueError(
                f"{', '.join(names)} and gradient_weight are all 0, but a head needs a loss; set one of them"
            )
        return self

    @property
    def unit(self) -> str:
        """Metres, "m", or "" for relative values."""
        return "m" if self.quantity == "depth" else ""

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One value per pixel."""
        return (self.quantity,)

    @property
    def value_format(self) -> ValueFormat:
        """Depth may be stored as millimetres; relative values have no unit."""
        return ValueFormat(self.quantity, self.unit, millimetres=self.quantity == "depth")

    def describe(self) -> dict[str, Any]:
        """With quantity and unit, and the focal length that metres are for."""
        focal = {} if self.canonical_focal_px is None else {"canonical_focal_px": self.canonical_focal_px}
        return {**super().describe(), "quantity": self.quantity, "unit": self.unit, **focal}

    @property
    def image_headline(self) -> tuple[str, bool]:
        """AbsRel, lower is better: it tells bad images from very bad ones."""
        return "AbsRel", False

    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        """float32 (H, W) metres, 0 where unknown or out of range."""
        if targets.depth is None:
            return None
        valid = (targets.depth > self.min_depth_m) & (targets.depth < self.max_depth_m)
        return targets.depth * valid

    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """The weighted losses over the pixels whose depth is known, which may be as few as those of a laser scanner."""
        size = (target.shape[-2], target.shape[-1])
        values = resize(output.logits, size, align_corners=align_corners).float()[:, 0]  # (B, H, W)
        return self._depth_loss(values, target) if self.quantity == "depth" else self._relative_loss(values, target)

    def _depth_loss(self, values: Tensor, target: Tensor) -> Tensor:
        mask, total = target > 0, values.new_zeros(())
        values = values.clamp(min=self.min_depth_m)
        if self.silog_weight:
            total = total + self.silog_weight * silog(values, target, variance_focus=self.variance_focus)
        if self.l1_weight:
            total = total + self.l1_weight * l1(values, target, mask)
        if self.berhu_weight:
            total = total + self.berhu_weight * berhu(values, target, mask)
        if self.gradient_weight:
            logs = values.log(), target.clamp(min=self.min_depth_m).log()
            total = total + self.gradient_weight * gradient_matching(*logs, mask, scales=self.gradient_scales)
        return total

    def _relative_loss(self, values: Tensor, target: Tensor) -> Tensor:
        mask, total = target > 0, values.new_zeros(())
        true = mask / target.clamp(min=self.min_depth_m) if self.quantity == "disparity" else target
        if self.scale_shift_weight:
            total = total + self.scale_shift_weight * scale_shift_invariant(values, true, mask, trim=self.trim)
        if self.gradient_weight:
            aligned = remove_scale_shift(values, mask), remove_scale_shift(true, mask)
            total = total + self.gradient_weight * gradient_matching(*aligned, mask, scales=self.gradient_scales)
        return total

    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The losses of training, with the teacher's map as the target."""
        target = teacher[:, 0]  # (B, h', w')
        if self.quantity == "depth":
            target = target.clamp(self.min_depth_m, self.max_depth_m)
        elif self.quantity == "disparity":
            target = torch.where(target > 0, 1 / target, 0.0)  # targets are depths, and 0 is unknown
        return self.loss(DenseOutput(student), target, align_corners=False)

    def count(self, target: Tensor) -> Tensor:
        """Valid pixels; for relative values, whose loss is a mean over images, the images with any."""
        valid = target > 0
        return (valid.sum() if self.quantity == "depth" else valid.flatten(1).any(dim=1).sum()).float()

    def new_metrics(self) -> DepthMetrics:
        """AbsRel, RMSE, delta1 and the others; relative values are first aligned by scale and shift, image by image."""
        return DepthMetrics(min_depth_m=self.min_depth_m, max_depth_m=self.max_depth_m, align=ALIGN[self.quantity])

    def compare(self, image: Picture, target: Tensor, prediction: Tensor) -> tuple[Picture, Picture, Picture]:
        """Target and prediction in metres; error: relative, black for none, yellow from ``WORST_RATIO`` on."""
        metres, valid = self.new_metrics().in_metres(prediction, target)
        true, predicted, known = target.numpy(), metres.numpy(), valid.numpy()
        low, high = np.percentile(true[known], (2, 98)).tolist() if known.any() else (0.0, 0.0)
        ratio = np.where(known, np.abs(predicted - true) / np.where(known, true, 1), 0) / WORST_RATIO
        return (
            colourise_depth(true, limits=(low, high), invalid=~known),
            colourise_depth(predicted, limits=(low, high)),
            heat(ratio),
        )

    def joint_counts(self, metrics: Metrics, target: Tensor, prediction: Tensor) -> Tensor:
        """Valid pixels by true and predicted depth, ``DEPTH_BINS`` of each from 0 m to ``max_depth_m``."""
        metres, valid = self.new_metrics().in_metres(prediction, target)
        rows = self._depth_bin(target.cpu().double()[valid])
        columns = self._depth_bin(metres[valid])
        return torch.bincount(rows * DEPTH_BINS + columns, minlength=DEPTH_BINS**2).view(DEPTH_BINS, DEPTH_BINS)

    def _depth_bin(self, metres: Tensor) -> Tensor:
        return (metres / self.max_depth_m * DEPTH_BINS).long().clamp(0, DEPTH_BINS - 1)

    def report_details(self, counts: Tensor | None) -> dict[str, Any]:
        """Range, quantity, and true against predicted depth."""
        depths = None if counts is None else counts.tolist()
        return {"max_depth_m": self.max_depth_m, "quantity": self.quantity, "depths": depths}

    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Depth, disparity or relative depth (H, W)."""
        return upsample_values(logits, size, align_corners=align_corners)[0]

    def colourise(self, prediction: NDArray[Any]) -> Picture:
        """Near is bright."""
        return colourise_depth(prediction, near="large" if self.quantity == "disparity" else "small")
