"""Cross entropy of upsampled logits, forward and backward, without materialising the upsampled logits.

The gradient of a sum depends on later steps only through one factor, so it is computed together with the sum, at the
size of the logits. On the CPU a C kernel does both in one pass (``cross_entropy.c``); for other devices and types torch
does it one image at a time. See ADR 0012.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from densevit.errors import DataError, ShapeError
from densevit.kernels.build import INT, LONG, POINTER, Signatures, address, checked, countable, library
from densevit.kernels.dispatch import ordinary
from densevit.kernels.threads import parallel_for
from densevit.upsampling.neighbours import neighbours


def upsample_cross_entropy(
    logits: Tensor, target: Tensor, *, align_corners: bool, ignore_index: int = 255, class_weights: Tensor | None = None
) -> Tensor:
    """Sum of cross entropy over the valid pixels, each multiplied by the weight of its class.

    Equals ``cross_entropy(interpolate(logits), target, reduction="sum")`` and its gradient up to rounding.

    Args:
        logits: (B, K, h, w), resized bilinearly to the target's size. Half precision is computed in float32.
        target: (B, H, W) int64 class ids.
        align_corners: as in ``interpolate``.
        ignore_index: id of the pixels that do not count.
        class_weights: (K,) of any real type.

    Raises:
        ShapeError: if the sizes do not belong together, or one besides the batch's is 0; if the target is not int64
            or is on another device.
        DataError: if an id on the CPU is neither a class nor ignored.
    """
    if logits.ndim != 4 or target.ndim != 3 or len(logits) != len(target):
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target is {tuple(target.shape)}, but (B, K, h, w) and "
            "(B, H, W) belong together; add the batch dimension, or take the channel away from the target"
        )
    if 0 in (*logits.shape[1:], *target.shape[1:]):
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and the target is {tuple(target.shape)}, but no size may be 0 besides "
            "the batch's"
        )
    check_ids(target, logits)
    check_class_weights(class_weights, logits.shape[1])
    with torch.autocast(logits.device.type, enabled=False):
        values = logits if logits.dtype == torch.float64 else logits.float()
        total: Tensor = _CrossEntropySum.apply(values, target, align_corners, ignore_index, class_weights)
    return total


def check_ids(target: Tensor, logits: Tensor) -> None:
    """Raise a ShapeError if class ids are not int64, or not on the device of the logits, which must be floats."""
    if target.dtype != torch.int64:
        raise ShapeError(f"the target is {target.dtype} but class ids are torch.int64; pass target.long()")
    if not logits.is_floating_point():
        raise ShapeError(f"logits are {logits.dtype} but floats are needed; pass logits.float()")
    if target.device != logits.device:
        raise ShapeError(
            f"the target is on {target.device} and the logits are on {logits.device}; move them to one device"
        )


def check_range(target: Tensor, num_classes: int, ignore_index: int) -> None:
    """Raise a DataError if a class id on the CPU is neither a class nor ignored; on CUDA this would have to wait."""
    if target.device.type == "cpu":
        invalid = (target != ignore_index) & ((target < 0) | (target >= num_classes))
        if invalid.any():
            raise _invalid_class(int(target[invalid][0]), num_classes)


def check_class_weights(weights: Tensor | None, num_classes: int) -> None:
    """Raise a ShapeError if there is not one real weight for each class."""
    if weights is not None and (tuple(weights.shape) != (num_classes,) or weights.is_complex()):
        raise ShapeError(
            f"class weights are {weights.dtype} {tuple(weights.shape)} but there are {num_classes} classes; "
            "give one real number for each"
        )


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, class_weights: Tensor | None
    ) -> Tensor:
        need_gradient = ctx.needs_input_grad[0]
        logits, target = logits.resolve_neg(), target.contiguous()
        weights = None if class_weights is None else class_weights.to(logits).contiguous()
        kernel = load() if (logits.device.type, logits.dtype) == ("cpu", torch.float32) else None
        if kernel is not None and countable(logits, target) and ordinary(logits):
            total, gradient = _by_kernel(kernel, logits, target, align_corners, ignore_index, weights, need_gradient)
        else:
            total, gradient = _by_torch(logits, target, align_corners, ignore_index, weights, need_gradient)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * factor, None, None, None, None


def _by_torch(
    logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, weights: Tensor | None, need_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """In torch, one image at a time, so that only one image's upsampled logits exist."""
    check_range(target, logits.shape[1], ignore_index)
    total = logits.new_zeros(())
    gradient = torch.empty_like(logits) if need_gradient else None
    for index in range(len(target)):
        labels = target[index : index + 1]
        image = logits[index : index + 1].detach().requires_grad_(need_gradient)
        with torch.set_grad_enabled(need_gradient):
            resized = _resized(image, labels, align_corners=align_corners)
            loss = F.cross_entropy(resized, labels, weights, ignore_index=ignore_index, reduction="sum")
        if gradient is not None:
            gradient[index : index + 1] = torch.autograd.grad(loss, image)[0]
        total += loss.detach()
    return total, gradient


def _resized(image: Tensor, labels: Tensor, *, align_corners: bool) -> Tensor:
    """Logits (1, K, h, w) at the size of the labels; minus infinity stays that, where interpolation makes it NaN."""
    low = torch.finfo(image.dtype).min / 4
    finite = image.clamp(min=low)
    resized = F.interpolate(finite, size=labels.shape[1:], mode="bilinear", align_corners=align_corners)
    # The smallest weight but 0 is about the type's resolution, and finite logits are far from this bound.
    return resized.masked_fill_(resized.detach() < low * torch.finfo(image.dtype).eps, -torch.inf)


def _by_kernel(
    kernel: ctypes.CDLL,
    logits: Tensor,
    target: Tensor,
    align_corners: bool,
    ignore_index: int,
    weights: Tensor | None,
    need_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """In C, the images in parallel."""
    (batch, classes, h, w), (_, height, width) = logits.shape, target.shape
    lanes = kernel.densevit_lanes()
    padded = -(-classes // lanes) * lanes
    # Always two, for the bound on a pixel's logits depends on them, and the rounding on the bound.
    rows = neighbours(h, height, align_corners, logits.device, always_two=True)
    columns = neighbours(w, width, align_corners, logits.device, always_two=True)
    checked(logits, torch.float32, batch, classes, h, w, contiguous=False)
    checked(target, torch.int64, batch, height, width)
    if weights is not None:
        checked(weights, torch.float32, classes)
    gradient = torch.zeros(batch, h, w, classes, dtype=torch.float32, device="cpu") if need_gradient else None
    sums = torch.zeros(batch, dtype=torch.float64, device="cpu")
    invalid_pixels = [-1] * batch

    def run_images(start: int, stop: int) -> None:
        scratch = torch.empty((2 * w + 1) * padded + w, dtype=torch.float32, device="cpu")
        for index in range(start, stop):
            invalid_pixels[index] = kernel.densevit_cross_entropy(
                *(address(logits, index), *logits.stride()[1:], w, classes, padded, height, width),
                *(x.data_ptr() for x in (*rows, *columns)),
                *(address(target, index), ignore_index, None if weights is None else weights.data_ptr()),
                *(scratch.data_ptr(), None if gradient is None else address(gradient, index), address(sums, index)),
            )

    # One image at a time, since ignored pixels make images differ in cost.
    parallel_for(run_images, batch, grain=1)
    for index, pixel in enumerate(invalid_pixels):
        if pixel >= 0:
            raise _invalid_class(int(target[index].flatten()[pixel]), classes)
    return sums.sum().float(), None if gradient is None else gradient.permute(0, 3, 1, 2)


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built."""
    signatures: Signatures = {
        "densevit_lanes": (INT, []),
        "densevit_cross_entropy": (LONG, [POINTER, *[LONG] * 3, *[INT] * 5, *[POINTER] * 7, LONG, *[POINTER] * 4]),
    }
    source = Path(__file__).with_name("cross_entropy.c")
    return library(source, "cross entropy runs in plain torch, which needs more memory", signatures)


def _invalid_class(label: int, classes: int) -> DataError:
    return DataError(
        f"the target holds class {label} but there are {classes} classes, 0 to {classes - 1}; correct the masks or "
        "ignore_index"
    )
