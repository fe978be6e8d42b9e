"""Options of predict and evaluate that say how a photo is run, as the configs they stand for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.raster.job import RasterConfig


def own_way(
    *,
    window: int | None,
    overlap: int | None,
    blend: str | None,
    window_batch: str | None,
    scale: float | None,
    scales: str | None,
    flip: bool,
) -> "InferenceOptions":
    """The options together.

    Raises:
        ConfigError: if a value is none that is accepted.
    """
    from densevit.inference.pipeline import InferenceOptions

    given = {"window": window, "overlap": overlap, "blend": blend, "batch": _batch(window_batch), "scale": scale}
    facts: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    way: dict[str, Any] = {"windows": facts or None, "flip": flip}
    if scales is not None:
        way["scales"] = numbers(scales, "--scales", "0.75,1,1.25")
    return InferenceOptions.parse(
        way, source="the options --window, --overlap, --blend, --window-batch, --scale and --scales"
    )


def numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        ConfigError: if they are none.
    """
    from densevit.errors import ConfigError

    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f"{option} got {text!r}; numbers separated by commas are accepted; give them as in {option} {example}"
        ) from None


def raster_config(
    own: "InferenceOptions", *, bands: str | None, limits: str | None, scores: bool, file_format: str | None
) -> "RasterConfig":
    """How rasters are streamed.

    Raises:
        ConfigError: if a value is none that is accepted.
    """
    from densevit.inference.raster.job import RasterConfig

    facts: dict[str, Any] = {"scores": scores, "format": file_format}
    if own.windows is not None:
        facts["windows"] = own.windows
    if bands is not None:
        facts["bands"] = tuple(int(n) for n in numbers(bands, "--bands", "4,3,2"))
    if limits is not None:
        facts["limits"] = numbers(limits, "--range", "0,3000")
    return RasterConfig.parse(facts, source="the options --bands, --range and --raster-format")


def refuse_views(own: "InferenceOptions", photo: Path) -> None:
    """Scales and mirror images are for photos in memory.

    Raises:
        ConfigError: if they were asked for.
    """
    from densevit.errors import ConfigError

    if own.scales != (1.0,) or own.flip:
        raise ConfigError(
            f"{photo} is streamed, because it is large or georeferenced; --scales and --flip are for photos in memory; "
            "leave them out"
        )


def streams(photo: Path, *, forced: bool) -> bool:
    """Whether a photo is streamed: on demand, or a TIFF or PNG that is large or lies on the earth.

    Raises:
        DataError: if it is no raster, with ``forced``.
    """
    from densevit.errors import DataError
    from densevit.io import is_zip_path
    from densevit.io.raster import RASTER_SUFFIXES, STREAMED_PIXELS, has_rasterio, read_head

    if forced:
        return True
    if photo.suffix.lower() not in RASTER_SUFFIXES or not photo.is_file() or is_zip_path(photo) or not has_rasterio():
        return False
    try:
        head = read_head(photo)
    except DataError:  # the reader of photos says what is wrong
        return False
    return head.georeferenced or head.size[0] * head.size[1] >= STREAMED_PIXELS


def _batch(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text
