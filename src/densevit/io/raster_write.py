"""Write rasters larger than memory block by block, completely or not at all."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit.io.gdal import Georeference, gdal
from densevit.io.raster import BLOCK, window_of
from densevit_runtime.io.decode import reason
from densevit_runtime.io.write import atomic_path

Format = Literal["GTiff", "COG", "PNG"]
_COG = {"compress": "deflate", "bigtiff": "if_safer", "resampling": "nearest", "blocksize": str(BLOCK)}


@dataclass(frozen=True)
class Block:
    """A part of a result: its position and values (K, h, w)."""

    rows: slice
    columns: slice
    values: NDArray[Any]


@dataclass(frozen=True)
class RasterFile:
    """A raster to write.

    Attributes:
        path: of the file.
        size: (H, W).
        bands: K.
        dtype: dtype of the values.
        nodata: value where the source has no data.
        palette: colours by value, for one band of 8 bits.
        tags: metadata, such as class names.
        format: GDAL's name of the format.
    """

    path: Path
    size: tuple[int, int]
    bands: int
    dtype: str
    nodata: float
    palette: Sequence[Sequence[int]] | None = None
    tags: tuple[tuple[str, str], ...] = ()
    format: Format = "GTiff"


def write_raster(file: RasterFile, place: Georeference, blocks: Iterator[Block]) -> None:
    """Write a raster block by block; it appears when it is complete and has been verified.

    Raises:
        DataError: it cannot be written, or does not read back as written, as on a full disk.
    """
    with atomic_path(file.path) as temporary:
        if file.format == "GTiff":
            _write_tiff(file, temporary, place, blocks)
            return
        # Inside the block of the final file, so that an error leaves neither file.
        tiff = temporary.with_suffix(".tiff")
        try:
            _write_tiff(file, tiff, place, blocks)
            options = _COG if file.format == "COG" else {}
            with gdal(file.path, "written"):
                from rasterio.shutil import copy

                copy(tiff, temporary, driver=file.format, **options)
        finally:
            tiff.unlink(missing_ok=True)


def _write_tiff(file: RasterFile, path: Path, place: Georeference, blocks: Iterator[Block]) -> None:
    floats = np.dtype(file.dtype).kind == "f"
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": file.size[0], "width": file.size[1], "count": file.bands, "dtype": file.dtype,
        "nodata": file.nodata, "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate",
        "predictor": 3 if floats else 2 if np.dtype(file.dtype).itemsize > 1 else 1, "interleave": "band",
        "bigtiff": "if_safer", "zlevel": 4,
    }  # fmt: skip
    if place.crs is not None:
        profile["crs"] = place.crs
    if place.transform is not None and not place.transform.is_identity:
        profile["transform"] = place.transform
    sums: list[tuple[slice, slice, int]] = []
    with gdal(file.path, "written") as rasterio:
        with rasterio.open(path, "w", **profile) as dataset:
            if place.gcps is not None and place.gcps[0]:
                dataset.gcps = place.gcps
            if file.palette is not None:
                dataset.write_colormap(1, {i: (*map(int, colour), 255) for i, colour in enumerate(file.palette)})
            dataset.update_tags(**dict(file.tags))
            for block in blocks:
                where = window_of(block.rows, block.columns)
                dataset.write(block.values, window=where)
                sums.append((block.rows, block.columns, zlib.crc32(block.values.tobytes())))
        # GDAL may not report a full disk, so the file is read again and compared.
        with rasterio.open(path) as dataset:
            for rows, columns, expected in sums:
                written = dataset.read(window=window_of(rows, columns))
                if zlib.crc32(written.tobytes()) != expected:
                    raise OSError("the file does not read back as written; the disk may be full")


def disk_error(path: Path, error: OSError) -> DataError:
    """The error for a failed write to a scratch or progress file."""
    return DataError(
        f"{path} cannot be written ({reason(error)}); free some space and run the same command again, which continues "
        "where it stopped"
    )
