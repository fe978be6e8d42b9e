"""Small rasters, and the settings with which the tests stream them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.inference.raster.job import RasterConfig
from densevit.inference.sliding_window import SlidingWindow
from tests.unit.predictors import photo

rasterio = pytest.importorskip("rasterio")

WINDOWS = SlidingWindow(window=128, overlap=32, blend="hann")
CONFIG = RasterConfig(windows=WINDOWS)
SIDES = (1060, 600)
PLACE = rasterio.transform.from_origin(500000, 5000000, 0.5, 0.5)


def write(path: Path, bands: NDArray[Any], **options: Any) -> Path:
    """Bands (K, H, W) as a GeoTIFF."""
    profile = {"driver": "GTiff", "count": len(bands), "height": bands.shape[1], "width": bands.shape[2]}
    profile |= {"dtype": bands.dtype.name, "crs": "EPSG:32633", "transform": PLACE, "tiled": True} | options
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(bands)
    return path


def write_array(path: Path, pixels: NDArray[Any]) -> Path:
    """An array (H, W, K) as a GeoTIFF that lies nowhere on the earth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(np.moveaxis(pixels, -1, 0))
    return path


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


def bands() -> NDArray[np.uint8]:
    return np.moveaxis(photo(*SIDES), -1, 0)


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("*") if not p.name.startswith("."))
