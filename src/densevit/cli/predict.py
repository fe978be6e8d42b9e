"""``densevit predict``: photos in, label and depth pictures out."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from densevit.cli import options as shared

if TYPE_CHECKING:
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.predictor import Predictor
    from densevit.inference.raster.job import RasterConfig

FILES = ("labels", "overlay", "values", "colours")
"""The entries of a head's record that name a file."""

STAMP_KEYS = ("protocol", "tta", "way", "raster", "speed")
"""Entries of a record that not every record has, and that must agree for ``--resume`` to take it."""


def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="PHOTO|FOLDER|GLOB...", help="Photos, folders or quoted globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results; created if it does not exist.")],
    model: shared.Model = "default",
    head: shared.HeadsToRun = None,
    heads: shared.OldHeads = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the records of all photos here.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip photos whose results are already there.")] = False,
    gallery: Annotated[bool, typer.Option("--gallery", help="Write index.html with all pictures.")] = False,
    device: shared.Device = None,
    protocol: shared.Protocol = None,
    tta: shared.Tta = False,
    window: shared.Window = None,
    overlap: shared.Overlap = None,
    blend: shared.Blend = None,
    window_batch: shared.WindowBatch = None,
    scale: shared.Scale = None,
    scales: shared.Scales = None,
    flip: shared.Flip = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream TIFFs and PNGs of any size; large or georeferenced ones always.")
    ] = False,
    bands: Annotated[str | None, typer.Option(help="Bands of a raster for red, green, blue: 4,3,2.")] = None,
    limits: Annotated[
        str | None, typer.Option("--range", help="Values of a raster that become black and white: 0,3000.")
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="For a raster, also write the labels' probabilities in percent.")
    ] = False,
    raster_format: Annotated[str | None, typer.Option(help="Format of a raster's results: GTiff, COG or PNG.")] = None,
    speed: shared.Speed = None,
    engine: shared.Engine = None,
) -> None:
    """Label photos and estimate their depth.

    For every photo and head: <photo>.<head>.labels.png (indexed), .overlay.png; .mm.png (16 bit, millimetres) and
    .colours.png for depth; and <photo>.json. A broken photo is reported and the others go on; the exit code is then 2.
    """
    from densevit import load
    from densevit.cli.gallery import write_gallery
    from densevit.io import find_images, make_folder, write_json

    console = Console(stderr=True)
    photos = find_images(sources)
    names = shared.head_names(head, heads)
    predictor = load(model, heads=names, device=device, speed=speed, engine=engine)
    views = shared.view_options(
        window=window, overlap=overlap, blend=blend, batch=window_batch, scale=scale, scales=scales, flip=flip
    )
    options = predictor.options(**views, protocol=protocol, tta=tta)
    raster = shared.raster_config(options.windows, bands=bands, limits=limits, scores=scores, file_format=raster_format)
    make_folder(out)
    way = {} if protocol is None else {"protocol": protocol, "tta": tta}
    batch = _Batch(predictor, model, options, raster, way, out, resume=resume, stream=stream)
    batch.run(photos, console)
    if json_file is not None:
        write_json(json_file, {"model": model, "photos": batch.records, "failures": batch.failures})
    if gallery:
        shown = [record for record in batch.records if not record.get("streamed")]  # a page cannot show those
        write_gallery(out / "index.html", shown, title=f"densevit: {len(shown)} photos")
    counts = f"{len(batch.records) - batch.skipped} predicted, {batch.skipped} skipped, {len(batch.failures)} failed"
    console.print(f"{counts}; pictures in {out}", highlight=False, markup=False, soft_wrap=True)
    if batch.failures:
        raise typer.Exit(2)


@dataclass
class _Batch:
    """Photos that are predicted one after the other into one folder.

    Attributes:
        way: what is stamped into records beyond the model and the photo: a protocol's name.
        skipped: number of photos whose results were there already.
    """

    predictor: "Predictor"
    model: str
    options: "InferenceOptions"
    raster: "RasterConfig"
    way: dict[str, Any]
    out: Path
    resume: bool
    stream: bool
    records: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    skipped: int = 0

    def run(self, photos: Sequence[Path], console: Console) -> None:
        """Predict all photos; one that fails is reported and the others go on."""
        from densevit.errors import DensevitError

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("predicting", total=len(photos))
            for photo, stem in zip(photos, unique_stems(photos), strict=True):
                try:
                    self.records.append(self._predict(photo, stem))
                except DensevitError as error:
                    self.failures.append(str(error))
                    console.print(f"[red]failed[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
                progress.advance(bar)

    def _predict(self, photo: Path, stem: str) -> dict[str, Any]:
        """The record of one photo, whose files are then in the folder."""
        from densevit.device import returning_large_buffers

        streamed = self.options.protocol is None and shared.is_streamed(photo, forced=self.stream)
        stamp = self._stamp(photo, streamed=streamed)
        earlier = _earlier(self.out / f"{stem}.json", stamp, self.predictor.heads) if self.resume else None
        if earlier is not None:
            self.skipped += 1
            return earlier
        if streamed:
            self.options.check_streaming(photo)
            with returning_large_buffers():
                return self.predictor.predict_raster(photo, self.out, config=self.raster, stem=stem, extra=stamp)
        began = time.perf_counter()
        prediction = self.predictor.predict(photo, **dict(self.options))
        seconds = {"seconds": round(time.perf_counter() - began, 3)}
        return prediction.save(self.out, stem, extra=stamp | seconds)

    def _stamp(self, photo: Path, *, streamed: bool) -> dict[str, Any]:
        """What a result is made from: another stamp means another result."""
        status = photo.stat() if photo.exists() else None
        size, changed = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
        stamp: dict[str, Any] = {"source": str(photo), "bytes": size, "changed_ns": changed, "model": self.model}
        stamp |= self.way
        if not self.options.has_default_views:
            stamp["way"] = self.options.way()
        if switches := self.predictor.speed.set_values():
            stamp["speed"] = switches
        return stamp | ({"raster": self.raster.plain()} if streamed else {})


def unique_stems(photos: Sequence[Path]) -> list[str]:
    """A file name stem for the results of every photo: its own, with suffix or folder where stems repeat."""
    names = [photo.stem for photo in photos]
    for longer in (lambda p: p.name, lambda p: f"{p.parent.name}_{p.name}", lambda p: "_".join(p.absolute().parts[1:])):
        counts = Counter(name.lower() for name in names)
        names = [longer(p) if counts[n.lower()] > 1 else n for p, n in zip(photos, names, strict=True)]
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        while name.lower() in taken:  # x/a.jpg and x_a.jpg may still meet
            name += "_"
        taken.add(name.lower())
        unique.append(name)
    return unique


def _earlier(path: Path, stamp: dict[str, Any], heads: Sequence[str]) -> dict[str, Any] | None:
    """The record of a finished photo, if it was made from the same file by the same model and its files are there."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(record.get(key) == stamp.get(key) for key in {*stamp, *STAMP_KEYS})
        names = [record["heads"][head].get(kind) for head in heads for kind in FILES]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # there is none, or it is not one of ours
        return None
    return record if same and all((path.parent / name).exists() for name in names if name is not None) else None
