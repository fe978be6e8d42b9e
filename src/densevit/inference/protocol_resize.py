"""How the published programs choose an input size and resize images: pure functions, exact to the bit."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference_config import Resampling, WholeKind, WholeProtocol, WindowProtocol
from densevit.io import resize_pillow
from densevit.types import Size

Method = Literal["minimal", "lower_bound", "upper_bound"]


def keep_ratio(size: Size, bounds: tuple[float, float]) -> Size:
    """The largest size of the same aspect within bounds on the long and the short side (mmcv), in any order."""
    factor = min(max(bounds) / max(size), min(bounds) / min(size))
    return _rounded(size, factor)


def scaled_bounds(base: Size, scale: float) -> tuple[int, int]:
    """The resize bounds of a multi-scale pass, cut to whole pixels."""
    return int(base[0] * scale), int(base[1] * scale)


def photo_scaled(size: Size, scale: float) -> Size:
    """The size of a multi-scale pass relative to the image (mmsegmentation from 1.0 on)."""
    return _rounded(size, scale)


def setr_multi_scale(size: Size, bounds: tuple[int, int], window: int) -> Size:
    """Like ``keep_ratio``, but the short side never falls below the window and the long side is free (SETR)."""
    short = max(min(bounds), window)
    h, w = size
    target = (short * h / w, short) if h > w else (short, short * w / h)
    return keep_ratio(size, target)


def cover_window(size: Size, window: int) -> Size:
    """At least a window in both directions, keeping the aspect (Segmenter)."""
    h, w = size
    if min(h, w) >= window:
        return size
    return (window, int(w / h * window)) if h < w else (int(h / w * window), window)


def net_size(size: Size, target: Size, multiple: int, method: Method) -> Size:
    """Both sides scaled by one factor and rounded to a multiple (DPT, MiDaS, Depth Anything).

    Args:
        size: of the image.
        target: the size that the factor aims at.
        multiple: both sides become multiples of it.
        method: "minimal" takes the factor nearer to 1; "lower_bound" the larger one, so both sides reach the target;
            "upper_bound" the smaller one, so none exceeds it.
    """
    factors = [wanted / length for wanted, length in zip(target, size, strict=True)]
    if method == "minimal":
        # Equal distances go to the height, as there.
        factor = factors[1] if abs(1 - factors[1]) < abs(1 - factors[0]) else factors[0]
    else:
        factor = max(factors) if method == "lower_bound" else min(factors)
    sides = []
    for length, wanted in zip(size, target, strict=True):
        exact = factor * length / multiple
        side = round(exact) * multiple  # half to even
        if method == "lower_bound" and side < wanted:
            side = math.ceil(exact) * multiple
        if method == "upper_bound" and side > wanted:
            side = math.floor(exact) * multiple
        sides.append(max(side, multiple))
    return sides[0], sides[1]


def stretched(target: Size, multiple: int) -> Size:
    """The target itself, rounded to a multiple: the aspect is not kept (transformers' default for DPT)."""
    return max(round(target[0] / multiple), 1) * multiple, max(round(target[1] / multiple), 1) * multiple


def long_side(size: Size, length: int) -> Size:
    """The size of the same aspect whose longer side has this length (Depth Anything 3)."""
    factor = length / max(size)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def nearest_multiples(size: Size, multiple: int) -> Size:
    """Both sides rounded to the nearest multiple, halves up (Depth Anything 3)."""
    height, width = (max((2 * side + multiple) // (2 * multiple), 1) * multiple for side in size)
    return height, width


def _rounded(size: Size, factor: float) -> Size:
    return max(int(size[0] * factor + 0.5), 1), max(int(size[1] * factor + 0.5), 1)


def single_scale_size(protocol: WindowProtocol, size: Size) -> Size:
    """The input size of an image without test-time augmentation."""
    if protocol.base is None:
        return size
    plain = keep_ratio(size, protocol.base)
    if protocol.kind == "setr" and protocol.window and min(plain) < min(protocol.window):
        return setr_multi_scale(size, protocol.base, protocol.window[0])  # its network only takes whole windows
    return plain


def tta_sizes(protocol: WindowProtocol, size: Size) -> Iterator[Size]:
    """The input sizes of the multi-scale set."""
    for scale in protocol.tta_scales:
        if protocol.base is None or protocol.tta_of == "photo":
            yield photo_scaled(size, scale)
            continue
        bounds = scaled_bounds(protocol.base, scale)
        if protocol.kind == "setr" and protocol.window:
            yield setr_multi_scale(size, bounds, protocol.window[0])
        else:
            yield keep_ratio(size, bounds)


_METHODS: dict[WholeKind, Method] = {
    "dpt": "minimal",
    "transformers": "minimal",
    "depth_anything": "lower_bound",
}


def whole_size(protocol: WholeProtocol, size: Size) -> Size:
    """The input size of an image, before it is padded."""
    if not protocol.resize:
        return size
    if not protocol.keep_aspect:
        return stretched(protocol.net_size, protocol.multiple)
    if protocol.kind == "depth_anything_3":
        return nearest_multiples(long_side(size, max(protocol.net_size)), protocol.multiple)
    return net_size(size, protocol.net_size, protocol.multiple, _METHODS[protocol.kind])


_ONE = 2048
"""The weights of OpenCV's fixed-point arithmetic have 11 bits."""


def opencv_linear(image: NDArray[np.uint8], size: Size) -> Tensor:
    """Bilinear resize of uint8 (H, W, 3) as OpenCV's INTER_LINEAR does it, in integers: bit for bit.

    Returns:
        (3, H', W') float32 in [0, 1].
    """
    if image.shape[:2] != size:
        rows, columns = _taps(image.shape[0], size[0], border=True), _taps(image.shape[1], size[1], border=False)
        image = np.concatenate([_blend(band, rows, columns) for band in np.split(image, 3, axis=2)], axis=2)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255.0)


_Taps = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]


def _taps(old: int, new: int, *, border: bool) -> _Taps:
    """The two old positions around every new one, and their weights in 2048ths.

    At the border both are the same pixel; along rows OpenCV still splits the weight, which matters for the rounding.
    """
    position = ((np.arange(new) + 0.5) * (1.0 / (new / old)) - 0.5).astype(np.float32)
    low = np.floor(position).astype(np.int64)
    fraction = position - low.astype(np.float32)
    if not border:
        fraction[(low < 0) | (low >= old - 1)] = 0
    second = np.rint(fraction * np.float32(_ONE)).astype(np.int32)
    first = np.rint((np.float32(1) - fraction) * np.float32(_ONE)).astype(np.int32)
    return low.clip(0, old - 1), (low + 1).clip(0, old - 1), first, second


def _blend(band: NDArray[np.uint8], rows: _Taps, columns: _Taps) -> NDArray[np.uint8]:
    """Resize one channel (H, W, 1): columns first, and each product is cut to 16 bits before they are added."""
    x0, x1, a0, a1 = columns
    y0, y1, b0, b1 = rows
    lines = (band[:, x0].astype(np.int32) * a0[:, None] + band[:, x1].astype(np.int32) * a1[:, None]) >> 4
    upper, lower = (b0[:, None, None] * lines[y0]) >> 16, (b1[:, None, None] * lines[y1]) >> 16
    return ((upper + lower + 2) >> 2).clip(0, 255).astype(np.uint8)


def opencv_cubic(image: NDArray[np.uint8], size: Size) -> Tensor:
    """Bicubic resize of uint8 (H, W, 3), taken to [0, 1] before, as OpenCV's INTER_CUBIC does it on floats.

    Returns:
        (3, H', W') float32, which may overshoot [0, 1].
    """
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1).double().div_(255.0)
    if exact.shape[-2:] != size:
        exact = F.interpolate(exact[None], size=size, mode="bicubic", align_corners=False, antialias=False)[0]
    return exact.float()


def opencv_twice(image: NDArray[np.uint8], length: int, size: Size) -> Tensor:
    """The two resizes of uint8 (H, W, 3) by Depth Anything 3: the longer side to a length, then to whole patches.

    Each shrinks by OpenCV's INTER_AREA and enlarges by INTER_CUBIC, and rounds to 8 bits; the latter is within one of
    255 steps of OpenCV's fixed-point arithmetic.

    Returns:
        (3, H', W') float32 in [0, 1].
    """
    exact = torch.from_numpy(np.array(image)).permute(2, 0, 1).double()
    for target in (long_side((image.shape[0], image.shape[1]), length), size):
        old = exact.shape[-2:]
        if old == target:
            continue
        if target[0] > old[0] or target[1] > old[1]:
            exact = F.interpolate(exact[None], size=target, mode="bicubic", align_corners=False, antialias=False)[0]
        else:
            rows, columns = _areas(old[0], target[0]), _areas(old[1], target[1])
            exact = rows @ exact @ columns.T
        exact = exact.round().clamp(0, 255)
    return exact.float().div_(255.0)


def _areas(old: int, new: int) -> Tensor:
    """(new, old) float64: the share of each old pixel in the mean that a new one, of old / new pixels, is."""
    edges, pixels = torch.arange(new + 1).double() * (old / new), torch.arange(old).double()
    covered = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return covered.clamp(min=0) * (new / old)


def pillow(image: NDArray[np.uint8], size: Size, resample: Resampling) -> Tensor:
    """Resize of uint8 (H, W, 3) as Pillow does it: antialiased but for "nearest", rounded to 8 bits.

    Returns:
        (3, H', W') float32 in [0, 1].
    """
    resized = image if image.shape[:2] == size else resize_pillow(image, size, resample)
    return torch.from_numpy(np.ascontiguousarray(resized)).permute(2, 0, 1).float().div_(255.0)


def centre_padded(images: Tensor, multiple: int) -> Tensor:
    """Pad normalised images (..., h, w) with zeros on all sides, so that their sides become multiples."""
    vertical, horizontal = (-length % multiple for length in images.shape[-2:])
    sides = (horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2)
    return F.pad(images, sides) if any(sides) else images
