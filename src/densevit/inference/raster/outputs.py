"""How a raster is streamed, and the files that it gives: their names, types and facts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from densevit.config import Config
from densevit.errors import ConfigError
from densevit.inference.sliding_window import SlidingWindow
from densevit.io.raster import RasterSource
from densevit.io.raster_write import Format, RasterFile
from densevit.tasks import Depth, Segmentation, Task


class RasterConfig(Config):
    """How a raster is streamed.

    Attributes:
        windows: as for a photo; ``scale`` has GDAL resample, and results keep the raster's own pixels.
        bands: red, green and blue, or grey, counted from 1; those of a picture by default.
        limits: values that become black and white; by default 0..65535 for 16 bits and 0..1 for floats.
        scores: write how sure the labels are, in percent.
        depth: of values: "float32", or "uint16" millimetres (for depth in metres).
        format: of the results; by default PNG for a PNG, else GeoTIFF.
    """

    windows: SlidingWindow = SlidingWindow()
    bands: tuple[int, ...] | None = None
    limits: tuple[float, float] | None = None
    scores: bool = False
    depth: Literal["float32", "uint16"] = "float32"
    format: Literal["GTiff", "COG", "PNG"] | None = Field(default=None)


@dataclass(frozen=True)
class Output:
    """One file of a head."""

    head: str
    kind: Literal["labels", "scores", "values"]
    file: RasterFile


def plan_outputs(config: RasterConfig, tasks: Mapping[str, Task], source: RasterSource, base: Path) -> list[Output]:
    """The files of every head, ``base`` being folder and stem.

    Raises:
        ConfigError: if disparity is to be written as millimetres.
    """
    form: Format = config.format or ("PNG" if source.driver == "PNG" else "GTiff")
    outputs = []
    for head, task in tasks.items():
        tags = (("head", head), ("task", task.kind))
        if isinstance(task, Segmentation):
            outputs.append(Output(head, "labels", _labels(f"{base}.{head}.labels", task, source.size, form, tags)))
            if config.scores:
                path = _path(f"{base}.{head}.scores", form)
                facts = (*tags, ("unit", "percent"))
                outputs.append(
                    Output(head, "scores", RasterFile(path, source.size, 1, "uint8", 255.0, None, facts, form))
                )
        else:
            outputs.append(
                Output(head, "values", _values_file(f"{base}.{head}", head, task, source.size, config, form))
            )
    return outputs


def _labels(
    base: str, task: Segmentation, size: tuple[int, int], form: Format, tags: tuple[tuple[str, str], ...]
) -> RasterFile:
    many = len(task.classes) > 255
    dtype, nodata = ("uint16", 65535.0) if many else ("uint8", 255.0)
    facts = (*tags, ("classes", json.dumps(list(task.classes), ensure_ascii=False)))
    return RasterFile(_path(base, form), size, 1, dtype, nodata, None if many else task.palette, facts, form)


def _values_file(
    base: str, head: str, task: Task, size: tuple[int, int], config: RasterConfig, form: Format
) -> RasterFile:
    metric = isinstance(task, Depth) and task.quantity == "depth"
    if config.depth == "uint16" and isinstance(task, Depth) and not metric:
        raise ConfigError(
            f"head {head!r} gives disparity, which has no unit; uint16 holds millimetres of depth alone; take float32"
        )
    tags = (("head", head), ("task", task.kind))
    if metric and (config.depth == "uint16" or form == "PNG"):
        return RasterFile(_path(f"{base}.mm", form), size, 1, "uint16", 0.0, None, (*tags, ("unit", "mm")), form)
    form = "GTiff" if form == "PNG" else form  # a PNG holds no floats
    kind = "depth" if metric else "disparity" if isinstance(task, Depth) else "values"
    facts = (*tags, ("unit", str(getattr(task, "unit", ""))))
    path = _path(f"{base}.{kind}", form)
    return RasterFile(path, size, task.out_channels, "float32", float("nan"), None, facts, form)


def _path(base: str, form: Format) -> Path:
    return Path(f"{base}.{'png' if form == 'PNG' else 'tif'}")
