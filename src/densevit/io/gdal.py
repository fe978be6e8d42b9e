"""The one door to rasterio and GDAL: a bounded cache, no side files, no references, and errors as ``DataError``."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from densevit.errors import DataError
from densevit_runtime.io.decode import require_file
from densevit_runtime.io.zipped import ZipPath

CACHE_BYTES = 128 * 2**20
"""Size of GDAL's block cache, which by default grows with the machine."""

_DRIVERS = {b"\x89PNG\r\n\x1a\n": "PNG", b"II*\0": "GTiff", b"MM\0*": "GTiff", b"II+\0": "GTiff", b"MM\0+": "GTiff"}
"""First bytes -> the only driver that may open the file. GDAL's others follow references, also to the network."""

_ACCEPTED = "a GeoTIFF, COG, TIFF or PNG of 8 or 16 bits, or of floats in [0, 1], is accepted"


def has_rasterio() -> bool:
    """Whether rasterio is installed."""
    return find_spec("rasterio") is not None


@contextmanager
def gdal(name: object, doing: str) -> Iterator[Any]:
    """Yield rasterio with a bounded cache and without side files; its errors become a ``DataError``."""
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise DataError(
            f"{name} must be streamed, and the library rasterio is not installed; "
            "install it with: pip install 'densevit[raster]'"
        ) from error
    try:
        with (
            warnings.catch_warnings(),
            rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, GDAL_PAM_ENABLED="NO", GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        ):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            yield rasterio
    except UnicodeEncodeError as error:
        raise DataError(f"{str(name)!a} has a name that is not UTF-8, which GDAL cannot open; rename it") from error
    except rasterio.errors.RasterioError as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        needed = f"{_ACCEPTED}; copy it again"
        if doing == "written":
            needed = "choose another place or free some space"
        raise DataError(f"{name} cannot be {doing} ({cause}); {needed}") from error


@contextmanager
def open_dataset(rasterio: Any, path: Path) -> Iterator[Any]:
    """Open a local raster for reading, by the driver of its format alone; inside of ``gdal``.

    Raises:
        DataError: it is neither a TIFF nor a PNG.
    """
    with path.open("rb") as file:
        start = file.read(8)
    driver = next((name for mark, name in _DRIVERS.items() if start.startswith(mark)), None)
    if driver is None:
        raise DataError(f"{path} is neither a TIFF nor a PNG by its first bytes; {_ACCEPTED}; copy it again")
    if isinstance(path, ZipPath):
        with rasterio.MemoryFile(path.read_bytes()) as memory, memory.open(driver=driver) as dataset:
            yield dataset
        return
    # The absolute path, since a relative one such as "http:" could be read as an address.
    with rasterio.open(str(path.absolute()), driver=driver) as dataset:
        yield dataset


@dataclass(frozen=True)
class Georeference:
    """Position of a raster on the earth, as rasterio's objects; empty for a plain image."""

    crs: Any = None
    transform: Any = None
    gcps: Any = None


@dataclass(frozen=True)
class RasterHead:
    """The header of a raster.

    Attributes:
        size: (H, W).
        georeferenced: whether it has a coordinate system, a transform or ground control points.
        driver: GDAL's name of the format.
    """

    size: tuple[int, int]
    georeferenced: bool
    driver: str


def read_head(path: Path) -> RasterHead:
    """Read the header of a raster.

    Raises:
        DataError: no such file, or not a raster.
    """
    require_file(path)
    with gdal(path, "opened") as rasterio, open_dataset(rasterio, path) as dataset:
        placed = dataset.crs is not None or not dataset.transform.is_identity or bool(dataset.gcps[0])
        return RasterHead((dataset.height, dataset.width), placed, dataset.driver)
