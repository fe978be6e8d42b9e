"""Cross entropy of upsampled logits without the upsampled logits, forward and backward.

The gradient of a sum needs nothing from what follows but one factor, so it is made together with the sum, at the size
of the logits. On the CPU a C kernel does both in one pass (``cross_entropy.c``); elsewhere, and in other types, torch
does it an image at a time. See ADR 0012.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from densevit.errors import DataError
from densevit.kernels import build
from densevit.upsampling.neighbours import neighbours

Found = tuple[Tensor, Tensor | None]
"""The sum, and its gradient if that was asked for."""


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    align_corners: bool,
    ignore_index: int = 255,
    class_weights: Tensor | None = None,
) -> Tensor:
    """The sum of cross entropy over the valid pixels, each times the weight of its class.

    It equals ``cross_entropy(interpolate(logits), target, reduction="sum")`` and its gradient up to rounding.

    Args:
        logits: (B, K, h, w), resized bilinearly to the target's size. Half precision is computed in float32.
        target: (B, H, W) int64 class ids.
        align_corners: as in ``interpolate``.
        ignore_index: id of the pixels that add nothing.
        class_weights: (K,) float32.

    Raises:
        DataError: if an id on the CPU is neither a class nor ignored.
    """
    with torch.autocast(logits.device.type, enabled=False):
        values = logits if logits.dtype == torch.float64 else logits.float()
        found: Tensor = _Sum.apply(values, target, align_corners, ignore_index, class_weights)
    return found


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, class_weights: Tensor | None
    ) -> Tensor:
        total, gradient = _sum_and_gradient(
            logits, target, align_corners, ignore_index, class_weights, wanted=ctx.needs_input_grad[0]
        )
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * factor, None, None, None, None


def _sum_and_gradient(
    logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, weights: Tensor | None, *, wanted: bool
) -> Found:
    target = target.contiguous()
    weights = None if weights is None else weights.to(logits).contiguous()
    kernel = load() if (logits.device.type, logits.dtype) == ("cpu", torch.float32) else None
    if kernel is not None:
        return _by_kernel(kernel, logits, target, align_corners, ignore_index, weights, wanted)
    if logits.device.type == "cpu":
        wrong = (target != ignore_index) & ((target < 0) | (target >= logits.shape[1]))
        if wrong.any():
            raise _no_class(int(target[wrong][0]), logits.shape[1])
    return _by_images(logits, target, align_corners, ignore_index, weights, wanted)


def _by_images(
    logits: Tensor, target: Tensor, align_corners: bool, ignore_index: int, weights: Tensor | None, wanted: bool
) -> Found:
    """In torch, an image at a time."""
    total = logits.new_zeros(())
    gradient = torch.empty_like(logits) if wanted else None
    for index, labels in enumerate(target.split(1)):
        image = logits[index : index + 1].detach().requires_grad_(wanted)
        with torch.set_grad_enabled(wanted):
            resized = F.interpolate(image, size=labels.shape[1:], mode="bilinear", align_corners=align_corners)
            loss = F.cross_entropy(resized, labels, weights, ignore_index=ignore_index, reduction="sum")
        if gradient is not None:
            gradient[index : index + 1] = torch.autograd.grad(loss, image)[0]
        total += loss.detach()
    return total, gradient


def _by_kernel(
    kernel: ctypes.CDLL,
    logits: Tensor,
    target: Tensor,
    align_corners: bool,
    ignore_index: int,
    weights: Tensor | None,
    wanted: bool,
) -> Found:
    """In C, the images spread over the threads."""
    (batch, classes, h, w), (_, height, width) = logits.shape, target.shape
    lanes = kernel.densevit_lanes()
    padded = -(-classes // lanes) * lanes
    rows = neighbours(h, height, align_corners, logits.device)
    columns = neighbours(w, width, align_corners, logits.device)
    gradient = torch.zeros(batch, h, w, classes, dtype=torch.float32, device="cpu") if wanted else None
    sums = torch.zeros(batch, dtype=torch.float64, device="cpu")

    def one(index: int) -> int:
        scratch = torch.empty((2 * w + 1) * padded + w, dtype=torch.float32, device="cpu")
        image = logits[index]
        place: int = kernel.densevit_cross_entropy(
            *(_at(image), image.stride(0), image.stride(1), image.stride(2)),
            *(w, classes, padded, height, width, *map(_at, (*rows, *columns))),
            *(_at(target[index]), ignore_index, _at(weights), _at(scratch)),
            *(None if gradient is None else _at(gradient[index]), _at(sums[index])),
        )
        return place

    places = _each(one, batch)
    for index, place in enumerate(places):
        if place >= 0:
            raise _no_class(int(target[index].flatten()[place]), classes)
    return sums.sum().float(), None if gradient is None else gradient.permute(0, 3, 1, 2)


def _each(one: Callable[[int], int], count: int) -> list[int]:
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return [one(index) for index in range(count)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        return list(pool.map(one, range(count)))


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    library = build.library(
        Path(__file__).with_name("cross_entropy.c"), "cross entropy runs in plain torch, which needs more memory"
    )
    if library is not None:
        pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        library.densevit_lanes.restype = integer
        function = library.densevit_cross_entropy
        function.restype = long
        function.argtypes = [pointer, *[long] * 3, *[integer] * 5, *[pointer] * 7, long, *[pointer] * 4]
    return library


def _no_class(label: int, classes: int) -> DataError:
    return DataError(
        f"the target holds class {label} but there are {classes} classes, 0 to {classes - 1}; correct the masks or "
        "ignore_index"
    )


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
