"""Arrays and tensors as photos: uint8 (H, W, 3), RGB. Numpy only."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.errors import DataError

CHANNELS = frozenset({1, 3, 4})
"""Grey, RGB and RGBA."""


def array_of(source: object) -> tuple[NDArray[Any], str, bool] | None:
    """An array or tensor as an array, its description, and whether channels come first in doubt; None for others."""
    if isinstance(source, np.ndarray):
        return source, f"an array {source.shape} of {source.dtype}", False
    # A caller with a tensor has imported torch; this module need not.
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(source, torch.Tensor):
        return None
    tensor: Any = source.detach().cpu()
    # numpy has no bfloat16.
    array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array, f"a tensor {tuple(source.shape)} of {source.dtype}", True


def array_to_rgb(array: NDArray[Any], name: str, channels_first: bool) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 from an array in one of the layouts of ``as_image``.

    Args:
        array: the photo.
        name: what it is, for messages.
        channels_first: how a shape that allows both is read.

    Raises:
        DataError: another shape, dtype or range.
    """
    plain = array[0] if array.ndim == 4 and len(array) == 1 else array
    if plain.ndim == 2:
        plain = plain[:, :, None]
    first, last = (plain.ndim == 3 and plain.shape[axis] in CHANNELS for axis in (0, 2))
    if not (first or last) or plain.size == 0:
        advice = "predict_many takes batches" if plain.ndim == 4 else "give one grey, RGB or RGBA image"
        raise DataError(f"the image is {name}; (H, W), (H, W, 1|3|4) and (1|3|4, H, W) are accepted; {advice}")
    if first and (channels_first or not last):
        plain = plain.transpose(1, 2, 0)
    pixels = to_8_bit(plain, f"the image, {name},")
    if pixels.shape[2] == 4:
        return on_white(pixels[:, :, :3], pixels[:, :, 3])
    return grey_to_rgb(pixels[:, :, 0]) if pixels.shape[2] == 1 else np.ascontiguousarray(pixels)


def to_8_bit(array: NDArray[Any], name: str, float_maximum: tuple[int, ...] = (1,)) -> NDArray[np.uint8]:
    """Scale bool, uint16, or floats from 0 to the first of ``float_maximum`` that holds them all, to 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return from_16_bit(array)
    if array.dtype.kind != "f":
        raise DataError(f"{name} holds {array.dtype}; bool, uint8, uint16 and floats are accepted; convert the values")
    low, high = float(array.min()), float(array.max())
    for maximum in float_maximum:
        # Resampling may overshoot a little, which is clipped. NaN fails both comparisons.
        if low >= -1e-3 * maximum and high <= 1.001 * maximum:
            return np.rint(array.astype(np.float32).clip(0, maximum) * (255 / maximum)).astype(np.uint8)
    ranges = " or ".join(f"0..{maximum}" for maximum in float_maximum)
    raise DataError(f"{name} holds floats from {low:g} to {high:g}; floats in {ranges} are accepted; scale the values")


def grey_to_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) -> (H, W, 3)."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def from_16_bit(values: NDArray[Any]) -> NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def on_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite (H, W, 3) with alpha (H, W) on white."""
    share = alpha[:, :, None].astype(np.uint16)
    mixed = rgb * share  # at most 255 * 255, also with the white added
    mixed += 255 * (255 - share) + 127
    mixed //= 255
    return mixed.astype(np.uint8)
