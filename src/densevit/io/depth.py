"""Read depth maps as arrays in metres."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.errors import DataError
from densevit_runtime.io.decode import check_pixels, decode, guarded, require_file
from densevit_runtime.io.read import load_array, require_array
from densevit_runtime.io.zipped import ZipPath, place

_DEPTH_CHANNELS = ("Z", "depth", "Depth", "depth.Z", "Y", "V", "R")
"""Channels in which programs store depth in an OpenEXR file, in order of preference."""

_ACCEPTED = "one (H, W) array of floats in metres, or of integers of 16 bits or more,"


def read_depth(
    path: Path, *, unit_m: float = 0.001, scale: float = 1.0, invalid: Sequence[float] = ()
) -> NDArray[np.float32]:
    """Read a depth map.

    Args:
        path: integers of 16 bits or more, as an image or ``.npy`` (steps of ``unit_m``); or floats as ``.npy``, TIFF,
            PFM or OpenEXR (times ``scale``).
        unit_m: metres per step of integers; 0.001 means that they are millimetres.
        scale: metres per unit of floats; 1 means that they are metres.
        invalid: stored values that mean "no measurement" in addition to 0, NaN and infinity.

    Returns:
        (H, W) float32 in metres; 0, NaN and infinity mean "no measurement" and are 0.

    Raises:
        DataError: the errors of ``read_image``; 8-bit or colour images; negative values; an array but (H, W) or
            (H, W, 1) numbers; OpenEXR without the library that reads it.
    """
    path = place(path)
    if not (math.isfinite(unit_m) and unit_m > 0):
        raise DataError(f"unit_m is {unit_m} but must be a positive number of metres per step; 0.001 means millimetres")
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"scale is {scale} but must be a positive number of metres per unit; 1 means metres")
    kind = path.suffix.lower()
    if kind == ".npy":
        stored = load_array(path, _ACCEPTED, lambda array: _is_measured(plane(array)))
        stored = plane(stored)
    else:
        stored = _read_exr(path) if kind == ".exr" else decode(path, _to_numbers)
        stored = require_array(path, stored, _ACCEPTED, _is_measured)
    return _metres(stored, scale if stored.dtype.kind == "f" else unit_m, invalid, str(path))


def plane(array: NDArray[Any]) -> NDArray[Any]:
    """(H, W) of an array (H, W, 1), others as they are."""
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def _is_measured(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.dtype.kind in "iuf" and array.dtype.itemsize >= 2


def _metres(stored: NDArray[Any], factor: float, invalid: Sequence[float], name: str) -> NDArray[np.float32]:
    # float64, so that a step of 1/256 m or 0.001 m is rounded only once.
    with np.errstate(over="ignore"):
        depth = (stored * np.float64(factor)).astype(np.float32)
    depth = np.nan_to_num(depth, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    for value in invalid:
        # In float32, 1e10 and -9999.9 are not exactly the numbers of the config.
        depth[stored == np.float32(value) if stored.dtype == np.float32 else stored == value] = 0
    if depth.min() < 0:
        raise DataError(f"{name} holds a depth of {depth.min():g} m; 0 (no measurement) or more is accepted")
    return depth


def _to_numbers(image: Image.Image, name: str) -> NDArray[Any]:
    if image.mode != "F" and not image.mode.startswith("I"):
        raise DataError(
            f"{name} is a depth map of mode {image.mode} (8-bit or colour), too coarse or not a measurement; a 16-bit"
            " grey PNG, or floats in metres as .npy or TIFF, is accepted; export the depth again"
        )
    return np.asarray(image)


def _read_exr(path: Path) -> NDArray[Any]:
    """The depth channel of an OpenEXR file."""
    require_file(path)
    try:
        import OpenEXR
    except ImportError as error:
        raise DataError(
            f"{path} is an OpenEXR file, and the library OpenEXR is not installed; install it with: "
            "pip install 'densevit[exr]'"
        ) from error
    with guarded(path), tempfile.TemporaryDirectory() as folder:
        if isinstance(path, ZipPath):  # the library reads only from disk
            file = Path(folder) / "depth.exr"
            file.write_bytes(path.read_bytes())
        else:
            file = path
        with OpenEXR.File(str(file), header_only=True) as opened:
            low, high = opened.header()["dataWindow"]
        check_pixels(path, (int(high[1] - low[1] + 1), int(high[0] - low[0] + 1)))
        with OpenEXR.File(str(file), separate_channels=True) as opened:
            channels = {name: np.array(channel.pixels) for name, channel in opened.channels().items()}
    chosen = [name for name in _DEPTH_CHANNELS if name in channels] or (list(channels) if len(channels) == 1 else [])
    if not chosen:
        raise DataError(
            f"{path} has the channels {', '.join(sorted(channels))}; one of {', '.join(_DEPTH_CHANNELS)}, or a "
            "single channel, is accepted; export the depth as Z"
        )
    return channels[chosen[0]]
