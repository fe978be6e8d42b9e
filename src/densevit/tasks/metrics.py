"""The metrics of the tasks: streaming sums of constant size, so an evaluation of any length keeps memory flat.

All three count into the tensors of ``state``. For several processes, ``all_reduce`` (sum) those tensors in place, or
``merge`` the objects; both give the metrics of one process over all images. ``compute`` returns plain Python
numbers, fractions and not percent, NaN where nothing was measured.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.errors import ConfigError, DataError, ShapeError

Pixels = Tensor | NDArray[Any]
"""A torch tensor on any device, or a numpy array."""


class _Sums:
    """Named sums that can be added to those of another process; ``settings`` must agree for that."""

    def __init__(self, settings: tuple[object, ...], **state: Tensor) -> None:
        self.settings, self.state = settings, state

    def merge(self, other: Self) -> None:
        """Add the sums of ``other``, measured on other images.

        Raises:
            ConfigError: ``other`` was built with other settings.
        """
        if self.settings != other.settings:
            raise ConfigError(
                f"metrics with settings {self.settings} and {other.settings} cannot be merged; build both from one task"
            )
        for name, total in self.state.items():
            total.add_(other.state[name])


class SegmentationMetrics(_Sums):
    """Confusion matrix of labels, and from it IoU and accuracy.

    Source: Everingham et al. (Pascal VOC), 2010, for IoU; Long et al., "Fully Convolutional Networks", 2015, for
    aAcc and mAcc; names as in mmsegmentation.

    Args:
        num_classes: K, at least 1.
        ignore_index: target id that is left out, None for none; must not be a class id.
        class_names: K different names for the report, default "0", "1", ...

    Attributes:
        state: ``confusion`` (K, K) int64, row = true class, column = predicted; ``images`` () int64.

    Raises:
        ConfigError: the arguments contradict each other.
    """

    def __init__(
        self, num_classes: int, ignore_index: int | None = 255, class_names: Sequence[str] | None = None
    ) -> None:
        names = tuple(str(i) for i in range(num_classes)) if class_names is None else tuple(class_names)
        if ignore_index is not None and 0 <= ignore_index < num_classes:
            raise ConfigError(
                f"ignore_index {ignore_index} is also one of the class ids 0..{num_classes - 1}; use 255, or -1 for "
                "256 and more classes"
            )
        if num_classes < 1 or len(names) != num_classes or len(set(names)) != len(names):
            raise ConfigError(
                f"{len(names)} class names, {len(set(names))} of them different, were given for {num_classes} classes, "
                "but each class needs a different name; correct class_names or num_classes"
            )
        settings = (num_classes, ignore_index, names)
        super().__init__(settings, confusion=_zeros(num_classes, num_classes).long(), images=_zeros().long())
        self.num_classes, self.ignore_index, self.class_names = num_classes, ignore_index, names

    def update(self, labels: Pixels, target: Pixels) -> None:
        """Count one image (H, W) or a batch (B, H, W).

        Args:
            labels: predicted class ids, integer.
            target: true class ids, integer, the same shape.

        Raises:
            ShapeError: the shapes differ or are not (H, W) or (B, H, W).
            DataError: not integer, or a class id out of range.
        """
        predicted, true = _integers(labels, "labels"), _integers(target, "target")
        predicted, true = _batched(predicted, true, ndim=2)
        valid = torch.ones_like(true, dtype=torch.bool) if self.ignore_index is None else true != self.ignore_index
        true, predicted = true[valid], predicted[valid]
        self._check_range(true, "target", "" if self.ignore_index is None else f" and ignore_index {self.ignore_index}")
        self._check_range(predicted, "labels", "")
        counts = torch.bincount(true * self.num_classes + predicted, minlength=self.num_classes**2).cpu()
        self.state["confusion"] += counts.view(self.num_classes, self.num_classes)
        self.state["images"] += len(valid)

    def compute(self) -> dict[str, Any]:
        """The metrics of the images so far.

        Returns:
            ``mIoU``: mean over the classes that occur in target or prediction; ``aAcc``: share of right pixels;
            ``mAcc``: mean over the classes that occur in the target; ``per_class``: name -> ``IoU``, ``Acc``,
            ``pixels`` (in the target); ``num_images``; ``num_pixels`` (valid).
        """
        confusion = self.state["confusion"].numpy().astype(np.float64)
        right, true, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
        iou = [_ratio(r, u) for r, u in zip(right, true + predicted - right, strict=True)]
        acc = [_ratio(r, t) for r, t in zip(right, true, strict=True)]
        return {
            "mIoU": _nan_mean(iou),
            "aAcc": _ratio(right.sum(), true.sum()),
            "mAcc": _nan_mean(acc),
            "per_class": {
                name: {"IoU": i, "Acc": a, "pixels": int(t)}
                for name, i, a, t in zip(self.class_names, iou, acc, true, strict=True)
            },
            "num_images": int(self.state["images"]),
            "num_pixels": int(true.sum()),
        }

    def _check_range(self, ids: Tensor, name: str, also: str) -> None:
        outside = ids[(ids < 0) | (ids >= self.num_classes)]
        if outside.numel():
            raise DataError(
                f"{name} holds class id {int(outside[0])} ({outside.numel()} pixels out of range) but 0.."
                f"{self.num_classes - 1}{also} are accepted; check the number of classes or remap the ids"
            )


Align = Literal["none", "scale_shift", "scale_shift_of_depth"]


class DepthMetrics(_Sums):
    """Depth errors per image, averaged over the images, as the field reports them.

    Source: Eigen et al., "Depth Map Prediction from a Single Image", 2014. SILog here is the standard deviation of
    the log error as a fraction; KITTI's table shows it times 100.

    Args:
        min_depth_m: target pixels at or below are invalid, predictions are clipped to it.
        max_depth_m: target pixels at or above are invalid, predictions are clipped to it.
        align: ``"none"`` for predictions in metres. ``"scale_shift"`` for relative disparity: per image, scale and
            shift are fitted to the inverse target depth by least squares (Ranftl et al., MiDaS, 2020), then inverted.
            ``"scale_shift_of_depth"`` for relative depth: likewise, to the target depth itself.

    Attributes:
        state: ``sums`` (9,) float64, one sum per entry of ``NAMES``; ``images`` and ``skipped`` () int64.

    Raises:
        ConfigError: the range is empty.
    """

    NAMES = ("AbsRel", "SqRel", "RMSE", "RMSElog", "SILog", "log10", "delta1", "delta2", "delta3")

    def __init__(self, min_depth_m: float = 1e-3, max_depth_m: float = 10.0, align: Align = "none") -> None:
        if not 0 < min_depth_m < max_depth_m:
            raise ConfigError(
                f"the depth range is {min_depth_m} to {max_depth_m} m but 0 < min_depth_m < max_depth_m is needed; "
                "for rooms 0.001 to 10 and for streets 0.001 to 80 are usual"
            )
        settings = (min_depth_m, max_depth_m, align)
        super().__init__(settings, sums=_zeros(len(self.NAMES)), images=_zeros().long(), skipped=_zeros().long())
        self.min_depth_m, self.max_depth_m, self.align = min_depth_m, max_depth_m, align

    def update(self, prediction: Pixels, target: Pixels) -> None:
        """Measure one image (H, W) or a batch (B, H, W); an image without a valid pixel is counted as skipped.

        Args:
            prediction: metres, or values of any scale and shift as ``align`` says.
            target: metres, the same shape; 0, NaN and all outside of the range is invalid.

        Raises:
            ShapeError: the shapes differ or are not (H, W) or (B, H, W).
            DataError: the prediction is NaN or infinite at a valid pixel.
        """
        for predicted, true in _images(prediction, target, ndim=2):
            metres, valid = self._in_metres(predicted, true)
            if valid.any():
                self.state["sums"] += _depth_errors(metres[valid], true[valid])
                self.state["images"] += 1
            else:
                self.state["skipped"] += 1

    def in_metres(self, prediction: Pixels, target: Pixels) -> tuple[Tensor, Tensor]:
        """What is compared of one image (H, W): the prediction in metres, aligned and clipped, and where it counts.

        Returns:
            float64 metres and a boolean mask, both (H, W); the metres are those of the whole image, all 0 if no pixel
            is valid.

        Raises:
            ShapeError, DataError: as ``update``.
        """
        ((predicted, true),) = _images(prediction, target, ndim=2)
        return self._in_metres(predicted, true)

    def _in_metres(self, predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
        valid = (true > self.min_depth_m) & (true < self.max_depth_m)
        if not valid.any():
            return torch.zeros_like(predicted), valid
        _refuse_non_finite(predicted[valid])
        if self.align == "scale_shift":
            # A fitted disparity of 0 or less is behind the horizon: as far away as the range goes.
            centre, scale, offset = _fit_scale_shift(predicted[valid], 1 / true[valid])
            predicted = 1 / (scale * (predicted - centre) + offset).clamp(min=1 / self.max_depth_m)
        elif self.align == "scale_shift_of_depth":
            centre, scale, offset = _fit_scale_shift(predicted[valid], true[valid])
            predicted = scale * (predicted - centre) + offset
        return predicted.clamp(self.min_depth_m, self.max_depth_m), valid

    def compute(self) -> dict[str, Any]:
        """The means over the measured images by ``NAMES``, with ``num_images`` and ``num_skipped``."""
        images = int(self.state["images"])
        means = {name: _ratio(total, images) for name, total in zip(self.NAMES, self.state["sums"], strict=True)}
        return {**means, "num_images": images, "num_skipped": int(self.state["skipped"])}


class RegressionMetrics(_Sums):
    """MAE and RMSE of a dense map with any number of channels, pooled over all valid pixels.

    Args:
        num_channels: C.
        unit_vectors: the three channels are a direction (surface normals): a zero target is invalid and the mean
            angle between prediction and target is reported too.

    Attributes:
        state: ``sums`` (3,) float64 of absolute errors, squared errors and degrees; ``images`` and ``pixels`` () int64.

    Raises:
        ConfigError: directions need three channels.
    """

    def __init__(self, num_channels: int, *, unit_vectors: bool = False) -> None:
        if num_channels < 1 or (unit_vectors and num_channels != 3):
            raise ConfigError(
                f"{num_channels} channels with unit_vectors={unit_vectors} were given, but directions have 3 channels "
                "and other maps at least 1; correct num_channels or leave unit_vectors off"
            )
        super().__init__((num_channels, unit_vectors), sums=_zeros(3), images=_zeros().long(), pixels=_zeros().long())
        self.num_channels, self.unit_vectors = num_channels, unit_vectors

    def update(self, prediction: Pixels, target: Pixels) -> None:
        """Measure one map (C, H, W) or a batch (B, C, H, W).

        Args:
            prediction: any unit.
            target: the same shape and unit; a pixel with a NaN in any channel is invalid.

        Raises:
            ShapeError: the shapes differ or have another number of channels.
            DataError: the prediction is NaN or infinite at a valid pixel.
        """
        for predicted, true in _images(prediction, target, ndim=3):
            if len(true) != self.num_channels:
                raise ShapeError(
                    f"the maps have {len(true)} channels but these metrics count {self.num_channels}; "
                    "pass (C, H, W) or (B, C, H, W) and the right num_channels"
                )
            valid = true.isfinite().all(0) & ((true != 0).any(0) if self.unit_vectors else True)
            predicted, true = predicted[:, valid], true[:, valid]  # (C,valid)
            _refuse_non_finite(predicted)
            error = predicted - true
            degrees = _angles_deg(predicted, true).sum() if self.unit_vectors else _zeros()
            self.state["sums"] += torch.stack([error.abs().sum(), error.square().sum(), degrees])
            self.state["images"] += 1
            self.state["pixels"] += true.shape[1]

    def compute(self) -> dict[str, Any]:
        """``MAE``, ``RMSE``, ``num_images``, ``num_pixels``, and ``mean_angle_deg`` for unit vectors."""
        absolute, squared, degrees = self.state["sums"].tolist()
        pixels = int(self.state["pixels"])
        values = pixels * self.num_channels
        report = {"MAE": _ratio(absolute, values), "RMSE": math.sqrt(_ratio(squared, values))}
        angle = {"mean_angle_deg": _ratio(degrees, pixels)} if self.unit_vectors else {}
        return {**report, **angle, "num_images": int(self.state["images"]), "num_pixels": pixels}


def _depth_errors(predicted: Tensor, true: Tensor) -> Tensor:
    """The metrics of ``DepthMetrics.NAMES`` for the valid pixels (N,) of one image."""
    error, log_error = predicted - true, predicted.log() - true.log()
    ratio = torch.maximum(predicted / true, true / predicted)
    metrics = [
        (error.abs() / true).mean(),
        (error.square() / true).mean(),
        error.square().mean().sqrt(),
        log_error.square().mean().sqrt(),
        log_error.std(correction=0),
        log_error.abs().mean() / math.log(10),
        *((ratio < 1.25**power).double().mean() for power in (1, 2, 3)),
    ]
    return torch.stack(metrics)


def _angles_deg(predicted: Tensor, true: Tensor) -> Tensor:
    """Degrees between the vectors (3, N); the arc cosine of nearly 1 would lose half the digits of a small angle."""
    sine = torch.linalg.cross(predicted, true, dim=0).norm(dim=0)
    return torch.atan2(sine, (predicted * true).sum(0)).rad2deg()


def _fit_scale_shift(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """centre, scale and offset: scale * (values - centre) + offset has the least squared distance to the target.

    Constant values become the target's mean.
    """
    centre = values.mean()
    centred = values - centre
    spread = centred.square().sum()
    # A constant map leaves rounding in `centred`, which a scale must not blow up.
    flat = spread <= 1e-20 * values.square().sum()
    scale = torch.zeros_like(spread) if flat else (centred * target).sum() / spread
    return centre, scale, target.mean()


def _images(prediction: Pixels, target: Pixels, ndim: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of images in float64 on the CPU: not every accelerator has float64."""
    predicted, true = _batched(_tensor(prediction), _tensor(target), ndim)
    for one, other in zip(predicted, true, strict=True):
        yield one.cpu().double(), other.cpu().double()


def _batched(predicted: Tensor, true: Tensor, ndim: int) -> tuple[Tensor, Tensor]:
    """Both with a batch dimension and on the device of the first."""
    if predicted.shape != true.shape or predicted.ndim not in (ndim, ndim + 1):
        kind = "(H, W) or (B, H, W)" if ndim == 2 else "(C, H, W) or (B, C, H, W)"
        raise ShapeError(
            f"prediction and target are {tuple(predicted.shape)} and {tuple(true.shape)} but both must be {kind} of "
            "one size; resize the prediction to the target first"
        )
    true = true.to(predicted.device)
    return (predicted.unsqueeze(0), true.unsqueeze(0)) if predicted.ndim == ndim else (predicted, true)


def _integers(values: Pixels, name: str) -> Tensor:
    tensor = _tensor(values)
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        kind = str(tensor.dtype).removeprefix("torch.")
        raise DataError(f"{name} is {kind} but integer class ids are accepted; pass the arg max, not logits or masks")
    return tensor.long()


def _tensor(values: Pixels) -> Tensor:
    if isinstance(values, Tensor):
        return values.detach()
    # A copy: torch takes neither negative strides nor foreign byte order, and warns about read-only memory.
    kind = values.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(values, dtype=kind))


def _refuse_non_finite(prediction: Tensor) -> None:
    count = int((~prediction.isfinite()).sum())
    if count:
        raise DataError(
            f"the prediction is NaN or infinite at {count} of {prediction.numel()} valid pixels but only numbers can "
            "be measured; the model has diverged or its weights are damaged, check the training log"
        )


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def _ratio(part: Tensor | float, whole: Tensor | float) -> float:
    return float(part) / float(whole) if float(whole) else math.nan


def _nan_mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return _ratio(math.fsum(known), len(known))
