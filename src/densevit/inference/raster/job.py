"""Images beyond memory: windows in, blocks of results out, in memory that does not grow with the image.

Windows are run row by row; their logits wait at the decoder's stride until the strips of blocks that they reach are
complete. Strips are kept beside the results, so a killed run goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference.decode import decode_tile
from densevit.inference.raster.outputs import Output, RasterConfig, plan_outputs
from densevit.inference.raster.resume import LogitCache, StripStore, StripWriter
from densevit.inference.results import class_shares
from densevit.inference.sliding_window import SlidingWindowRunner, WindowGrid, layout
from densevit.inference.tiled_logits import StitchedLogits, tile_scores, tiles
from densevit.inference_config import InferenceConfig
from densevit.io import write_json
from densevit.io.raster import BLOCK, RasterSource, open_raster
from densevit.io.raster_write import Block, write_raster
from densevit.model import DenseModel
from densevit.tasks import Task

__all__ = ["RasterConfig", "RasterJob"]

HELD_BYTES = 256 * 2**20
"""Logits of each head that wait in memory; more of them wait in a scratch file."""


@dataclass(frozen=True)
class RasterJob:
    """A model with the heads that run, and where the results go."""

    model: DenseModel
    tasks: dict[str, Task]
    fit: InferenceConfig
    config: RasterConfig
    folder: Path
    stem: str

    def run(
        self, path: Path, *, extra: dict[str, Any] | None = None, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Stream a raster; see ``Predictor.predict_raster``."""
        with open_raster(path, bands=self.config.bands, limits=self.config.limits) as source:
            outputs = plan_outputs(self.config, self.tasks, source, self.folder / self.stem)
            spool = StripStore(self.folder / f".{self.stem}.densevit-partial", self._key(source))
            strips = ceil(source.size[0] / BLOCK)
            self._fill(source, spool, strips, outputs, progress or (lambda _done, _of: None))
            record = {
                **(extra or {}),
                "height": source.size[0],
                "width": source.size[1],
                "streamed": True,
                "heads": {name: task.describe() for name, task in self.tasks.items()},
            }
            for number, output in enumerate(outputs):
                counts = np.zeros(np.iinfo(np.uint16).max + 1, np.int64)
                write_raster(output.file, source.georeference, _assembled(spool, strips, number, output, counts))
                entry: dict[str, Any] = record["heads"][output.head]
                entry[output.kind] = output.file.path.name
                table = self.tasks[output.head].class_table
                if output.kind == "labels" and table is not None:
                    shares = class_shares(table.names, counts[: len(table.names)].tolist())
                    entry["shares"] = {name: round(share, 6) for name, share in shares.items()}
        write_json(self.folder / f"{self.stem}.json", record)
        spool.remove()
        return record

    def _fill(
        self,
        source: RasterSource,
        spool: StripStore,
        strips: int,
        outputs: Sequence[Output],
        progress: Callable[[int, int], None],
    ) -> None:
        """Run what is missing of the strips."""
        done = spool.done()
        progress(done, strips)
        if done >= strips:
            return
        scale = self.config.windows.scale
        size = (max(round(source.size[0] * scale), 1), max(round(source.size[1] * scale), 1))
        plan = layout(self.config.windows, size, self.fit, self.model.config.encoder.patch_size)
        strip = _Strips(self, source, plan, spool, outputs)
        first = strip.rows.windows(done * BLOCK, min((done + 1) * BLOCK, source.size[0]))[0]
        try:
            for i in range(first, len(plan.starts[0])):
                source.check()
                strip.run_row(i)
                known = plan.starts[0][i + 1] if i + 1 < len(plan.starts[0]) else plan.size[0]
                ready = strip.rows.ready(known)
                while done < strips and min((done + 1) * BLOCK, source.size[0]) <= ready:
                    strip.emit(done)
                    done += 1
                    progress(done, strips)
        finally:
            strip.close()

    def _key(self, source: RasterSource) -> dict[str, Any]:
        """What the strips depend on; the batch is no part of it."""
        settings = self.config.plain()
        settings["windows"].pop("batch")
        weights = hashlib.sha256(self.model.config.model_dump_json().encode())
        for name, tensor in self.model.state_dict().items():
            weights.update(name.encode())
            weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        heads = {name: task.plain() for name, task in self.tasks.items()}
        return {
            "source": [str(source.path.absolute()), *(source.stamp or ())],
            "model": weights.hexdigest(),
            "heads": hashlib.sha256(json.dumps(heads, sort_keys=True).encode()).hexdigest(),
            "settings": settings | {"fit": self.fit.plain(), "block": BLOCK},
        }


class _Strips:
    """The rows of windows that are in flight, and the strips made of them."""

    def __init__(
        self, job: RasterJob, source: RasterSource, plan: WindowGrid, spool: StripStore, outputs: Sequence[Output]
    ) -> None:
        self.job, self.source, self.plan, self.spool, self.outputs = job, source, plan, spool, outputs
        self.runner = SlidingWindowRunner(job.model, tuple(job.tasks), job.config.windows)
        self.rows, self.columns = plan.axes(plan.extent, align_corners=False, out=source.size)
        self.stores = {name: LogitCache(spool.folder, HELD_BYTES) for name in job.tasks}
        self._mosaics: dict[str, StitchedLogits] = {}

    def close(self) -> None:
        for store in self.stores.values():
            store.close()

    def run_row(self, i: int) -> None:
        """Run a row of windows, but for those without data."""
        top, lefts = self.plan.starts[0][i], self.plan.starts[1]
        wanted = [j for j, left in enumerate(lefts) if self._has_data(top, left)]
        places = [(top, lefts[j]) for j in wanted]
        for j, logits in zip(wanted, self.runner.run(self._read, places, self.plan), strict=True):
            for name, values in logits.items():
                self.stores[name].put((i, j), values)
                if name not in self._mosaics:
                    self._mosaics[name] = self._mosaic(name, values)

    def _read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        if self.plan.size == self.source.size:
            return self.source.read(rows, columns)
        return self.source.read_scaled(rows, columns, self.plan.size)

    def _has_data(self, top: int, left: int) -> bool:
        if not self.source.masked:
            return True
        low, high = (self._in_source(n, side) for n, side in zip((top, left), (0, 1), strict=True))
        valid = self.source.valid(low, high)
        return valid is None or bool(valid.any())

    def _in_source(self, start: int, side: int) -> slice:
        """The pixels of the source that a window may reach."""
        factor = self.source.size[side] / self.plan.size[side]
        stop = ceil((start + self.plan.extent[side]) * factor) + 1
        return slice(max(int(start * factor) - 1, 0), min(stop, self.source.size[side]))

    def _mosaic(self, name: str, logits: Tensor) -> StitchedLogits:
        corners = self.job.model.decoder(name).align_corners
        grid = (logits.shape[-2], logits.shape[-1])
        axes = self.plan.axes(grid, align_corners=corners, out=self.source.size)
        return StitchedLogits(*axes, self.stores[name].get, logits.shape[0], logits.device)

    @torch.inference_mode()
    def emit(self, index: int) -> None:
        """Compute and keep a strip, and forget the windows that no later strip needs."""
        height, width = self.source.size
        rows = slice(index * BLOCK, min((index + 1) * BLOCK, height))
        with self.spool.strip(index) as strip:
            for left in range(0, width, BLOCK):
                self._block(strip, rows, slice(left, min(left + BLOCK, width)))
        if rows.stop < height:
            after = self.rows.windows(rows.stop, min(rows.stop + BLOCK, height))[0]
            for store in self.stores.values():
                store.drop_rows(after)

    def _block(self, strip: StripWriter, rows: slice, columns: slice) -> None:
        valid = self.source.valid(rows, columns)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        found = [np.full((o.file.bands, *shape), o.file.nodata, o.file.dtype) for o in self.outputs]
        if valid is None or valid.any():
            for name, mosaic in self._mosaics.items():
                self._head(name, mosaic, rows, columns, found)
        for number, (output, values) in enumerate(zip(self.outputs, found, strict=True)):
            if valid is not None:
                values[:, ~valid] = np.array(output.file.nodata, values.dtype)
            strip.add(number, values)

    def _head(self, name: str, mosaic: StitchedLogits, rows: slice, columns: slice, found: list[NDArray[Any]]) -> None:
        task = self.job.tasks[name]
        for r, c in tiles(mosaic.size, mosaic.num_channels, dense=mosaic.dense, within=(rows, columns)):
            tile = mosaic.tile(r, c)
            place = (
                slice(None),
                slice(r.start - rows.start, r.stop - rows.start),
                slice(c.start - columns.start, c.stop - columns.start),
            )
            for output, values in zip(self.outputs, found, strict=True):
                if output.head == name:
                    values[place] = _values(output, task, tile).cpu().numpy()


def _values(output: Output, task: Task, tile: Tensor) -> Tensor:
    """Logits (K, h, w) -> what a file holds of them, (bands, h, w) or (h, w)."""
    if output.kind == "scores":
        return tile_scores(tile).mul_(100).round_().to(torch.uint8)
    prediction = decode_tile(task, tile)
    if output.kind == "values" and output.file.dtype == "uint16":
        return prediction.double().mul_(1000).nan_to_num_(0, 0, 0).round_().clamp_(0, 65535).to(torch.int32)
    return prediction


def _assembled(
    spool: StripStore, strips: int, number: int, output: Output, counts: NDArray[np.int64]
) -> Iterator[Block]:
    """The blocks of one file, in order; labels are added to ``counts`` on the way."""
    height, width = output.file.size
    for index in range(strips):
        rows = slice(index * BLOCK, min((index + 1) * BLOCK, height))
        for left, data in zip(range(0, width, BLOCK), spool.blocks(index, number), strict=True):
            columns = slice(left, min(left + BLOCK, width))
            shape = (output.file.bands, rows.stop - rows.start, columns.stop - columns.start)
            values = np.frombuffer(data, output.file.dtype).reshape(shape)
            if output.kind == "labels":
                counts += np.bincount(values.ravel(), minlength=len(counts))
            yield Block(rows, columns, values)
