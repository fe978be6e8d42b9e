"""Streaming an image that is larger than memory: windows in, strips of results out.

Windows are run row by row; their logits wait at the decoder's stride until the strip of blocks that depends on them is
complete. Finished strips are kept on disk next to the results, so a killed run continues where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference.decode import decode_tile
from densevit.inference.raster.outputs import Output, RasterConfig, plan_outputs, strip_layout
from densevit.inference.raster.resume import LogitCache, StripStore, StripWriter
from densevit.inference.sliding_window import SlidingWindowRunner
from densevit.inference.tiled_logits import StitchedLogits, tile_scores, tiles
from densevit.inference_config import InferenceConfig
from densevit.io import write_json
from densevit.io.lock import lock_folder
from densevit.io.raster import BLOCK, RasterSource, open_raster
from densevit.io.raster_write import Block, write_raster
from densevit.model import DenseModel
from densevit.tasks import Task
from densevit_runtime.records import class_shares

__all__ = ["RasterConfig", "RasterJob"]

Progress = Callable[[int, int], None]
"""Called with the number of finished strips and that of all."""
HELD_BYTES = 256 * 2**20
"""Logits of each head that wait in memory; further ones wait in a scratch file."""


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
        self, path: Path, *, extra: dict[str, Any] | None = None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Stream a raster; see ``Predictor.predict_raster``."""
        partial = self.folder / f".{self.stem}.densevit-partial"
        with open_raster(path, bands=self.config.bands, limits=self.config.limits) as source:
            outputs = plan_outputs(self.config, self.tasks, source, self.folder / self.stem)
            with lock_folder(partial, "wait until it has ended, or choose another folder for the results"):
                store = StripStore(partial, self._key(source), strip_layout(source.size, outputs))
                record = {
                    **(extra or {}),
                    **self._stream(source, store, outputs, progress or (lambda _done, _of: None)),
                }
                write_json(self.folder / f"{self.stem}.json", record)
                store.remove()
        with suppress(OSError):
            partial.rmdir()
        return record

    def _stream(
        self, source: RasterSource, store: StripStore, outputs: Sequence[Output], progress: Progress
    ) -> dict[str, Any]:
        """Compute all strips and write the results; returns the record of them."""
        strips = ceil(source.size[0] / BLOCK)
        self._fill(source, store, strips, outputs, progress)
        record: dict[str, Any] = {
            "height": source.size[0],
            "width": source.size[1],
            "streamed": True,
            "heads": {name: task.describe() for name, task in self.tasks.items()},
        }
        for number, output in enumerate(outputs):
            counts = np.zeros(np.iinfo(np.uint16).max + 1, np.int64)
            write_raster(output.file, source.georeference, _assembled(store, strips, number, output, counts))
            entry: dict[str, Any] = record["heads"][output.head]
            entry[output.kind] = output.file.path.name
            table = self.tasks[output.head].class_table
            if output.kind == "labels" and table is not None:
                shares = class_shares(table.names, counts[: len(table.names)].tolist())
                entry["shares"] = {name: round(share, 6) for name, share in shares.items()}
        return record

    def _fill(
        self, source: RasterSource, store: StripStore, strips: int, outputs: Sequence[Output], progress: Progress
    ) -> None:
        """Run what is missing of the strips."""
        done = store.done()
        progress(done, strips)
        if done >= strips:
            return
        height = source.size[0]
        groups = [
            _WindowRows(self, source, heads, config.window_side, store.folder, start=done * BLOCK)
            for config, heads in self.config.windows.groups(self.fit, self.tasks)
        ]
        maker = _StripMaker(self, source, groups, store, outputs)
        try:
            for index in range(done, strips):
                for group in groups:
                    group.run_until(min((index + 1) * BLOCK, height))
                maker.emit(index)
                progress(index + 1, strips)
        finally:
            for group in groups:
                group.close()

    def _key(self, source: RasterSource) -> dict[str, Any]:
        """Everything that the strips depend on, which leaves out the batch size."""
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


class _WindowRows:
    """The rows of windows that are in flight, for heads that share their windows.

    Args:
        job: the model, and how its windows are laid.
        source: the raster.
        heads: their names.
        window_side: side of the windows, where the job does not say.
        folder: for logits that do not fit into memory.
        start: first row of the raster that is needed.
    """

    def __init__(
        self,
        job: RasterJob,
        source: RasterSource,
        heads: tuple[str, ...],
        window_side: int,
        folder: Path,
        *,
        start: int,
    ) -> None:
        windows = job.config.windows
        size = (max(round(source.size[0] * windows.scale), 1), max(round(source.size[1] * windows.scale), 1))
        self._model, self._source = job.model, source
        self._runner = SlidingWindowRunner(job.model, heads, windows, default_side=window_side)
        self._grid = self._runner.grid(size)
        self._rows = self._grid.axes(self._grid.extent, align_corners=False, out=source.size)[0]
        self._stores = {head: LogitCache(folder, HELD_BYTES) for head in heads}
        self._next = self._rows.windows(start, min(start + BLOCK, source.size[0]))[0]
        self.logits: dict[str, StitchedLogits] = {}

    def run_until(self, stop: int) -> None:
        """Run rows of windows until the raster's rows before ``stop`` depend on no others."""
        while self._ready() < stop:
            self._source.check()
            self._run_row(self._next)
            self._next += 1

    def _ready(self) -> int:
        tops = self._grid.starts[0]
        return self._rows.ready(tops[self._next] if self._next < len(tops) else self._grid.size[0])

    def forget_before(self, start: int) -> None:
        """Drop the logits of windows that no row from ``start`` on depends on."""
        first = self._rows.windows(start, min(start + BLOCK, self._source.size[0]))[0]
        for store in self._stores.values():
            store.drop_rows(first)

    def close(self) -> None:
        """Remove scratch files."""
        for store in self._stores.values():
            store.close()

    def _run_row(self, i: int) -> None:
        """Run a row of windows, except those without data."""
        top, lefts = self._grid.starts[0][i], self._grid.starts[1]
        wanted = [j for j, left in enumerate(lefts) if self._has_data(top, left)]
        places = [(top, lefts[j]) for j in wanted]
        for j, logits in zip(wanted, self._runner.run(self._read, places, self._grid), strict=True):
            for head, values in logits.items():
                self._stores[head].put((i, j), values)
                if head not in self.logits:
                    corners = self._model.decoder(head).align_corners
                    get, out = self._stores[head].get, self._source.size
                    self.logits[head] = self._grid.stitch(get, values, align_corners=corners, out=out)

    def _read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        if self._grid.size == self._source.size:
            return self._source.read(rows, columns)
        return self._source.read_scaled(rows, columns, self._grid.size)

    def _has_data(self, top: int, left: int) -> bool:
        if not self._source.masked:
            return True
        valid = self._source.valid(self._in_source(top, 0), self._in_source(left, 1))
        return valid is None or bool(valid.any())

    def _in_source(self, start: int, side: int) -> slice:
        """The pixels of the source that a window may reach."""
        factor = self._source.size[side] / self._grid.size[side]
        stop = ceil((start + self._grid.extent[side]) * factor) + 1
        return slice(max(int(start * factor) - 1, 0), min(stop, self._source.size[side]))


class _StripMaker:
    """Turns the logits of windows into strips of results."""

    def __init__(
        self,
        job: RasterJob,
        source: RasterSource,
        groups: Sequence[_WindowRows],
        store: StripStore,
        outputs: Sequence[Output],
    ) -> None:
        self.job, self.source, self.groups, self.store, self.outputs = job, source, groups, store, outputs

    @torch.inference_mode()
    def emit(self, index: int) -> None:
        """Compute and keep a strip, and forget the windows that no later strip needs."""
        height, width = self.source.size
        rows = slice(index * BLOCK, min((index + 1) * BLOCK, height))
        with self.store.strip(index) as strip:
            for left in range(0, width, BLOCK):
                self._block(strip, rows, slice(left, min(left + BLOCK, width)))
        if rows.stop < height:
            for group in self.groups:
                group.forget_before(rows.stop)

    def _block(self, strip: StripWriter, rows: slice, columns: slice) -> None:
        valid = self.source.valid(rows, columns)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        found = [np.full((o.file.bands, *shape), o.file.nodata, o.file.dtype) for o in self.outputs]
        if valid is None or valid.any():
            for group in self.groups:
                for head, logits in group.logits.items():
                    self._head(head, logits, rows, columns, found)
        for number, (output, values) in enumerate(zip(self.outputs, found, strict=True)):
            if valid is not None:
                values[:, ~valid] = np.array(output.file.nodata, values.dtype)
            strip.add(number, values)

    def _head(self, head: str, logits: StitchedLogits, rows: slice, columns: slice, found: list[NDArray[Any]]) -> None:
        task = self.job.tasks[head]
        for r, c in tiles(logits.size, logits.num_channels, dense=logits.dense, within=(rows, columns)):
            tile = logits.tile(r, c)
            place = (
                slice(None),
                slice(r.start - rows.start, r.stop - rows.start),
                slice(c.start - columns.start, c.stop - columns.start),
            )
            for output, values in zip(self.outputs, found, strict=True):
                if output.head == head:
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
    store: StripStore, strips: int, number: int, output: Output, counts: NDArray[np.int64]
) -> Iterator[Block]:
    """The blocks of one file, in order; labels are added to ``counts`` on the way."""
    height, width = output.file.size
    for index in range(strips):
        rows = slice(index * BLOCK, min((index + 1) * BLOCK, height))
        for left, data in zip(range(0, width, BLOCK), store.blocks(index, number), strict=True):
            columns = slice(left, min(left + BLOCK, width))
            shape = (output.file.bands, rows.stop - rows.start, columns.stop - columns.start)
            values = np.frombuffer(data, output.file.dtype).reshape(shape)
            if output.kind == "labels":
                counts += np.bincount(values.ravel(), minlength=len(counts))
            yield Block(rows, columns, values)
