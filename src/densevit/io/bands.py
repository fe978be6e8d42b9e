"""Images of other cameras, with any number of bands of 8 or 16 bits or floats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit.io.gdal import gdal, open_dataset
from densevit_runtime.io.decode import check_pixels, require_file
from densevit_runtime.io.read import load_array
from densevit_runtime.io.zipped import place

BAND_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".npy"})
_ACCEPTED = "a TIFF, PNG or .npy array (H, W, C) of 8 or 16 bits or floats"


def read_bands(path: Path, *, bands: Sequence[int], full_scale: float | None = None) -> NDArray[Any]:
    """Read some bands of an image.

    Args:
        path: a TIFF or PNG, or a ``.npy`` array (H, W, C) or (H, W).
        bands: numbers of the bands, counted from 1, in the order of the network's input.
        full_scale: the stored value that becomes 1; by default the largest of 8 or 16 bits. Floats need one.

    Returns:
        (H, W, len(bands)): uint8 or uint16 as stored without ``full_scale``, else float32 in [0, 1]; values beyond the
        scale are clipped, and NaN becomes 0.

    Raises:
        DataError: no such file, not a raster, damaged, too large; a band that it lacks; floats without a scale.
    """
    path = place(path)
    require_file(path)
    pixels = _from_array(path, bands) if path.suffix.lower() == ".npy" else _from_raster(path, bands)
    if pixels.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {pixels.dtype}; {_ACCEPTED} is accepted; convert the values")
    if full_scale is None:
        if pixels.dtype in (np.uint8, np.uint16):
            return pixels
        raise DataError(
            f"{path} holds {pixels.dtype}, whose range is not known (that of uint8 and uint16 is); set full_scale "
            "to the stored value that is white"
        )
    scaled = np.nan_to_num(pixels.astype(np.float32) / np.float32(full_scale), nan=0.0, posinf=1.0, neginf=0.0)
    return scaled.clip(0, 1)


def _from_array(path: Path, bands: Sequence[int]) -> NDArray[Any]:
    pixels = load_array(path, _ACCEPTED, lambda array: array.ndim in {2, 3})
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    _check_bands(path, bands, pixels.shape[2])
    return np.ascontiguousarray(pixels[:, :, [band - 1 for band in bands]])


def _from_raster(path: Path, bands: Sequence[int]) -> NDArray[Any]:
    with gdal(path, "opened") as rasterio, open_dataset(rasterio, path) as dataset:
        return _read(path, dataset, bands)


def _read(path: Path, dataset: Any, bands: Sequence[int]) -> NDArray[Any]:
    _check_bands(path, bands, dataset.count)
    check_pixels(f"{path}, in {len(bands)} bands,", (dataset.height, dataset.width * len(bands)), path.stat().st_size)
    return np.ascontiguousarray(np.moveaxis(dataset.read(list(bands)), 0, -1))


def _check_bands(path: Path, bands: Sequence[int], count: int) -> None:
    if not bands or any(not 1 <= band <= count for band in bands):
        raise DataError(
            f"bands {', '.join(map(str, bands))} were given for {path}; 1 to {count} are accepted; name those that the "
            "network takes, in its order"
        )
