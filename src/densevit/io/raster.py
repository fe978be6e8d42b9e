"""Read rasters larger than memory in parts."""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError
from densevit.io.gdal import Georeference, gdal, open_dataset
from densevit_runtime.io.arrays import from_16_bit, on_white
from densevit_runtime.io.decode import require_file

STREAMED_PIXELS = 100_000_000
"""Pixels from which a TIFF or PNG is streamed by default."""

BLOCK = 512
"""Side of the square blocks in which results are computed and stored."""

_log = logging.getLogger(__name__)

RASTER_SUFFIXES = frozenset({".tif", ".tiff", ".png"})

_SAMPLE_SIDE = 512
"""Rows and columns, at most, that are looked at to learn the range of the values."""


class RasterSource:
    """An open raster that is read in parts as 8-bit RGB; see ``open_raster``."""

    def __init__(self, path: Path, dataset: Any, bands: Sequence[int] | None, limits: tuple[float, float] | None):
        self.path, self._dataset = path, dataset
        self.size = (int(dataset.height), int(dataset.width))
        self.driver = str(dataset.driver)
        self.georeference = Georeference(dataset.crs, dataset.transform, dataset.gcps)
        self._dtype = np.dtype(dataset.dtypes[0])
        alpha = [i + 1 for i, meaning in enumerate(dataset.colorinterp) if meaning.name == "alpha"]
        self._alpha = alpha[0] if alpha and bands is None else None
        self.bands = self._choose(bands, [i for i in range(1, dataset.count + 1) if i not in alpha])
        self._colours = self._palette() if self.bands == (1,) else None
        self._limits = self._range(limits)
        if self._colours is None:
            self._look_at_values(given=limits is not None)
        self.stamp = self._stat()
        flags = [flag.name for index in self.bands for flag in dataset.mask_flag_enums[index - 1]]
        # NaN is no data, also where no tag says so.
        self.masked = "all_valid" not in flags or self._dtype.kind == "f"

    def _choose(self, wanted: Sequence[int] | None, plain: list[int]) -> tuple[int, ...]:
        if wanted is None and len(plain) in (1, 3):
            return tuple(plain)
        if wanted is None:
            raise DataError(
                f"{self.path} has {len(plain)} bands; 1 or 3, with or without alpha, are accepted by default; name one "
                "or three, as in --bands 4,3,2"
            )
        if len(wanted) not in (1, 3) or any(not 1 <= band <= self._dataset.count for band in wanted):
            raise DataError(
                f"bands {','.join(map(str, wanted))} were given for {self.path}; one or three of 1 to"
                f" {self._dataset.count} are accepted, as in --bands 4,3,2"
            )
        return tuple(wanted)

    def _palette(self) -> NDArray[np.uint8] | None:
        try:
            table = self._dataset.colormap(1)
        except ValueError:
            return None
        return np.array([table.get(i, (0, 0, 0, 255))[:3] for i in range(256)], np.uint8)

    def _range(self, limits: tuple[float, float] | None) -> tuple[float, float]:
        if limits is not None:
            if not limits[0] < limits[1]:
                raise DataError(
                    f"the range is {limits[0]:g} to {limits[1]:g}; a low and a higher value are accepted, as in "
                    "--range 0,3000"
                )
            return limits
        known = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0), "float64": (0.0, 1.0)}
        if self._dtype.name not in known:
            raise DataError(
                f"{self.path} holds {self._dtype}; uint8, uint16 and floats in [0, 1] are accepted by default; "
                "say which values are black and white, as in --range 0,3000"
            )
        return known[self._dtype.name]

    def _look_at_values(self, *, given: bool) -> None:
        """Refuse or warn of values for which the range, or a band taken for alpha, is hardly what is meant."""
        alpha = [] if self._alpha is None else [self._alpha]
        sides = [min(side, _SAMPLE_SIDE) for side in self.size]
        with gdal(self.path, "read"):
            sample = self._dataset.read([*self.bands, *alpha], out_shape=(len(self.bands) + len(alpha), *sides))
        colours = sample[: len(self.bands)]
        colours = colours[np.isfinite(colours)]
        if alpha:
            top = np.iinfo(self._dtype).max if self._dtype.kind in "iu" else 1.0
            between = float(((sample[-1] > 0) & (sample[-1] < top)).mean())
            if between > 0.5:
                _log.warning(
                    "%s has its band %d marked as alpha, but most of its values are neither transparent nor opaque, as "
                    "in near infrared; the picture is blended with white; if it is no alpha, pass --bands 1,2,3",
                    self.path, self._alpha,
                )  # fmt: skip
        low, high = self._limits
        if given or self._dtype == np.uint8 or not colours.size:
            return
        least, most = float(colours.min()), float(colours.max())
        outside = float(((colours < low) | (colours > high * 1.001)).mean())
        if outside > 0.5:
            raise DataError(
                f"{self.path} holds values from {least:g} to {most:g}, and {low:g}..{high:g} is accepted by default; "
                f"say which values are black and white, as in --range {math.floor(least)},{math.ceil(most)}"
            )
        dark = most < high / 8 and self._dtype.kind == "u"
        if outside > 0 or dark:
            _log.warning(
                "%s holds values from %g to %g, of which %g becomes black and %g white, so the picture is %s; "
                "if that is not meant, pass --range %d,%d",
                self.path, least, most, low, high, "almost black" if dark else "clipped",
                math.floor(least), math.ceil(most),
            )  # fmt: skip

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Read a part (h, w, 3) at full resolution."""
        return self._read(window_of(rows, columns), (rows.stop - rows.start, columns.stop - columns.start))

    def read_scaled(self, rows: slice, columns: slice, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read a part (h, w, 3) of the raster resized to ``size``; GDAL averages when it shrinks."""
        y, x = self.size[0] / size[0], self.size[1] / size[1]
        window = ((rows.start * y, rows.stop * y), (columns.start * x, columns.stop * x))
        return self._read(window, (rows.stop - rows.start, columns.stop - columns.start))

    def _read(self, window: Any, shape: tuple[int, int]) -> NDArray[np.uint8]:
        with gdal(self.path, "read") as rasterio:
            spans = [high - low for low, high in window]
            exact = spans == list(shape)
            method = rasterio.enums.Resampling.average if spans[0] > shape[0] else rasterio.enums.Resampling.bilinear
            if exact or self._colours is not None:
                method = rasterio.enums.Resampling.nearest
            place = rasterio.windows.Window(window[1][0], window[0][0], spans[1], spans[0])
            options = {"window": place, "out_shape": (len(self.bands), *shape), "resampling": method}
            values = self._dataset.read(list(self.bands), **options)
            alpha = None
            if self._alpha is not None:
                alpha = self._dataset.read(self._alpha, window=place, out_shape=shape, resampling=method)
        if self._colours is not None:
            picture = self._colours[values[0]]
        else:
            picture = np.moveaxis(_to_8_bit(values, self._limits), 0, -1)
            picture = np.ascontiguousarray(np.repeat(picture, 3, axis=2) if len(self.bands) == 1 else picture)
        if alpha is None:
            return picture
        return on_white(picture, _to_8_bit(alpha, (0.0, float(np.iinfo(self._dtype).max))))

    def valid(self, rows: slice, columns: slice) -> NDArray[np.bool_] | None:
        """(h, w): where there is data; None if it is everywhere."""
        if not self.masked:
            return None
        with gdal(self.path, "read"):
            mask = self._dataset.read_masks(list(self.bands), window=window_of(rows, columns))
            valid: NDArray[np.bool_] = (mask != 0).any(axis=0)
            if self._dtype.kind == "f":
                values = self._dataset.read(list(self.bands), window=window_of(rows, columns))
                valid &= ~np.isnan(values).any(axis=0)
        return None if valid.all() else valid

    def check(self) -> None:
        """Make sure that the file is still the one that was opened.

        Raises:
            DataError: it has vanished or changed.
        """
        if self._stat() != self.stamp:
            raise DataError(
                f"{self.path} has vanished or changed while it was read; put it back and run the same command again, "
                "which continues where it stopped"
            )

    def _stat(self) -> tuple[int, int] | None:
        """Size in bytes and time of the last change."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns


@contextmanager
def open_raster(
    path: Path, *, bands: Sequence[int] | None = None, limits: tuple[float, float] | None = None
) -> Iterator[RasterSource]:
    """Open a raster to read it in parts.

    Args:
        path: a GeoTIFF, COG, TIFF or PNG.
        bands: three for red, green and blue or one for grey, counted from 1; by default all but alpha.
        limits: the values that become black and white; by default 0..65535 for 16 bits and 0..1 for floats.

    Raises:
        DataError: no such file, not a raster, or bands or values that are not accepted.
    """
    require_file(path)
    with gdal(path, "opened") as rasterio, open_dataset(rasterio, path) as dataset:
        yield RasterSource(path, dataset, bands, limits)


def window_of(rows: slice, columns: slice) -> tuple[tuple[int, int], tuple[int, int]]:
    """Slices as a window of rasterio."""
    return (rows.start, rows.stop), (columns.start, columns.stop)


def _to_8_bit(values: NDArray[Any], limits: tuple[float, float]) -> NDArray[np.uint8]:
    """Scale to 0..255 from black to white and clip."""
    if values.dtype == np.uint8 and limits == (0.0, 255.0):
        return values
    if values.dtype == np.uint16 and limits == (0.0, 65535.0):  # as photos of 16 bits are read
        return from_16_bit(values)
    low, high = limits
    scaled = (np.nan_to_num(values.astype(np.float32), nan=low) - low) * (255 / (high - low))
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)
