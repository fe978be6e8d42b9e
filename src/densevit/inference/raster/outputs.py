"""How a raster is streamed, and the files that result: their names, types and tags."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from densevit.config import Config
from densevit.data.sample import ClassTable
from densevit.errors import ConfigError
from densevit.inference.sliding_window import SlidingWindow
from densevit.io.gdal import RasterHead
from densevit.io.raster import BLOCK, RasterSource
from densevit.io.raster_write import Format, RasterFile
from densevit.tasks import Task
from densevit.types import Size

Tags = tuple[tuple[str, str], ...]
"""Names and values that a raster carries in its header."""


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


def plan_outputs(
    config: RasterConfig, tasks: Mapping[str, Task], source: RasterSource | RasterHead, base: Path
) -> list[Output]:
    """The files of every head, ``base`` being folder and stem.

    Raises:
        ConfigError: if values without a unit are to be written as millimetres.
    """
    form: Format = config.format or ("PNG" if source.driver == "PNG" else "GTiff")
    outputs = []
    for head, task in tasks.items():
        stem, tags = f"{base}.{head}", (("head", head), ("task", task.kind))
        if task.class_table is None:
            outputs.append(Output(head, "values", _values(stem, head, task, source.size, config, form, tags)))
            continue
        outputs.append(Output(head, "labels", _labels(stem, task.class_table, source.size, form, tags)))
        if config.scores:
            percent = (*tags, ("unit", "percent"))
            path = _path(f"{stem}.scores", form)
            scores = RasterFile(path, source.size, 1, "uint8", 255.0, None, percent, form)
            outputs.append(Output(head, "scores", scores))
    return outputs


def _labels(stem: str, classes: ClassTable, size: Size, form: Format, tags: Tags) -> RasterFile:
    many = len(classes.names) > 255
    dtype, nodata = ("uint16", 65535.0) if many else ("uint8", 255.0)
    tags = (*tags, ("classes", json.dumps(list(classes.names), ensure_ascii=False)))
    palette = None if many else classes.palette
    return RasterFile(_path(f"{stem}.labels", form), size, 1, dtype, nodata, palette, tags, form)


def _values(stem: str, head: str, task: Task, size: Size, config: RasterConfig, form: Format, tags: Tags) -> RasterFile:
    values = task.value_format
    if config.depth == "uint16" and task.target == "depth" and not values.millimetres:
        raise ConfigError(
            f"head {head!r} gives {values.name}, which has no unit; uint16 holds millimetres of depth only; "
            "take float32"
        )
    if values.millimetres and (config.depth == "uint16" or form == "PNG"):
        return RasterFile(_path(f"{stem}.mm", form), size, 1, "uint16", 0.0, None, (*tags, ("unit", "mm")), form)
    form = "GTiff" if form == "PNG" else form  # a PNG holds no floats
    path = _path(f"{stem}.{values.name}", form)
    tags = (*tags, ("unit", values.unit))
    return RasterFile(path, size, task.out_channels, "float32", float("nan"), None, tags, form)


def _path(base: str, form: Format) -> Path:
    return Path(f"{base}.{'png' if form == 'PNG' else 'tif'}")


def strip_layout(size: Size, outputs: Sequence[Output]) -> Callable[[int], list[tuple[int, int]]]:
    """By index of a strip: its blocks of each column the outputs, as number and bytes."""

    def layout(index: int) -> list[tuple[int, int]]:
        rows = min(BLOCK, size[0] - index * BLOCK)
        widths = [min(BLOCK, size[1] - left) for left in range(0, size[1], BLOCK)]
        pixel_bytes = [output.file.bands * np.dtype(output.file.dtype).itemsize for output in outputs]
        return [(number, rows * width * each) for width in widths for number, each in enumerate(pixel_bytes)]

    return layout
