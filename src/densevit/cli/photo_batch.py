"""The photos of one ``densevit predict``: what is to be done with each, and doing it."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from densevit.cli.options import is_streamed
from densevit.cli.terminal import printable
from densevit.device import returning_large_buffers
from densevit.errors import DensevitError, OutputError
from densevit.inference.batching import out_of_memory
from densevit.inference.exported import ExportedModel
from densevit.inference.pipeline import InferenceOptions
from densevit.inference.predictor import Predictor
from densevit.inference.raster.job import RasterConfig
from densevit_runtime.io.find import unique_stems

FILES = ("labels", "overlay", "values", "colours")
"""The entries of a head's record that name a file."""

STAMP_KEYS = ("protocol", "tta", "quality", "way", "raster", "speed")
"""Entries of a record that not every record has, and that must agree for ``--resume`` to take it."""


@dataclass(frozen=True)
class PlannedPhoto:
    """A photo and what is to be done with it.

    Attributes:
        path: of the photo.
        stem: start of the names of its results.
        streamed: whether it is streamed from disk.
        stamp: what its result is made from: another stamp means another result.
        earlier: the record of an earlier run, which is taken over.
    """

    path: Path
    stem: str
    streamed: bool
    stamp: dict[str, Any]
    earlier: dict[str, Any] | None


@dataclass
class PhotoBatch:
    """Photos that are predicted one after the other into one folder.

    Attributes:
        way: what is stamped into records beyond the model and the photo: protocol, views and speed switches.
        records: of the photos that are done.
        failures: messages of the photos that failed.
        skipped: number of photos whose results were there already.
        not_tried: number of photos that were left when nothing more could be written.
        fault: the first error that is not the user's.
    """

    predictor: Predictor | ExportedModel
    model: str
    options: InferenceOptions
    raster: RasterConfig
    way: dict[str, Any]
    out: Path
    stream: bool
    photos: list[PlannedPhoto] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: int = 0
    not_tried: int = 0
    fault: Exception | None = None

    def plan(self, photos: Sequence[Path], *, resume: bool) -> None:
        """Decide what is done with each photo; with ``resume``, finished ones are taken over."""
        two_ways = self.predictor.fit.differs_by_quality(self.predictor.heads)
        keys = STAMP_KEYS if two_ways else tuple(key for key in STAMP_KEYS if key != "quality")
        for photo, stem in zip(photos, unique_stems(photos), strict=True):
            streamed = self.options.protocol is None and is_streamed(photo, forced=self.stream)
            stamp = self._stamp(photo, streamed=streamed)
            earlier = _earlier(self.out / f"{stem}.json", stamp, self.predictor.heads, keys) if resume else None
            self.photos.append(PlannedPhoto(photo, stem, streamed, stamp, earlier))

    def outputs(self) -> Iterator[Path]:
        """All files that will be written, apart from those of photos whose header cannot be read."""
        for photo in self.photos:
            if photo.earlier is None:
                raster = self.raster if photo.streamed else None
                try:
                    yield from self.predictor.output_files(photo.path, self.out, stem=photo.stem, raster=raster)
                except DensevitError:  # reported when the photo's turn comes
                    continue

    def run(self, console: Console) -> None:
        """Predict all photos; one that fails is reported and the others go on, unless nothing can be written."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("predicting", total=len(self.photos))
            for number, photo in enumerate(self.photos):
                try:
                    self.records.append(self._predict(photo))
                except Exception as error:
                    message = self._failed(photo, error)
                    console.print(f"[red]failed[/red] {escape(printable(message))}", highlight=False, soft_wrap=True)
                    if isinstance(error, OutputError) and error.everywhere:
                        self.not_tried = len(self.photos) - number - 1
                        break
                progress.advance(bar)

    def _failed(self, photo: PlannedPhoto, error: Exception) -> str:
        """Take note of a failure; its message."""
        if isinstance(error, DensevitError):
            message = str(error)
        elif out_of_memory(error):
            message = (
                f"{photo.path} needs more memory than there is; use a smaller image or model, --window 512, or "
                "--speed short_side=384"
            )
        else:
            self.fault = self.fault or error
            message = f"{photo.path} met a fault of densevit ({type(error).__name__}: {error})"
        self.failures.append(message)
        return message

    def _predict(self, photo: PlannedPhoto) -> dict[str, Any]:
        """The record of one photo, whose files are then in the folder."""
        if photo.earlier is not None:
            self.skipped += 1
            return photo.earlier
        if photo.streamed:
            self.options.check_streaming(photo.path)
            with returning_large_buffers():
                return self.predictor.predict_raster(
                    photo.path, self.out, config=self.raster, stem=photo.stem, extra=photo.stamp
                )
        began = time.perf_counter()
        prediction = self.predictor.predict(photo.path, **dict(self.options))
        seconds = {"seconds": round(time.perf_counter() - began, 3)}
        return prediction.save(self.out, photo.stem, extra=photo.stamp | seconds)

    def _stamp(self, photo: Path, *, streamed: bool) -> dict[str, Any]:
        """What a result is made from."""
        status = photo.stat() if photo.exists() else None
        size, changed = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
        stamp: dict[str, Any] = {"source": str(photo), "bytes": size, "changed_ns": changed, "model": self.model}
        if streamed:  # in windows, which have no quality
            way = {key: value for key, value in self.way.items() if key != "quality"}
            return stamp | way | {"raster": self.raster.plain()}
        return stamp | self.way


def _earlier(path: Path, stamp: dict[str, Any], heads: Sequence[str], way: Sequence[str]) -> dict[str, Any] | None:
    """The record of a finished photo, if it was made from the same file by the same model and its files are there.

    ``way`` has those of ``STAMP_KEYS`` that must agree.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(record.get(key) == stamp.get(key) for key in {*stamp.keys() - {*STAMP_KEYS}, *way})
        names = [record["heads"][head].get(kind) for head in heads for kind in FILES]
        there = all((path.parent / name).exists() for name in names if name is not None)
        complete = all(isinstance(record["heads"][head]["task"], str) for head in heads)
    # There is none, or densevit did not write it: any JSON may be there.
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    return record if same and there and complete else None
