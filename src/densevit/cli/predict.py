"""``densevit predict``: photos in, label and depth pictures out."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

FILES = ("labels", "overlay", "values", "colours")
"""The entries of a head's record that name a file."""


def predict(
    sources: Annotated[
        list[str], typer.Argument(metavar="PHOTO|FOLDER|GLOB...", help="Photos, folders or quoted globs.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures; made if it does not exist.")],
    model: Annotated[str, typer.Option(help='"default", a checkpoint, or hf://owner/name.')] = "default",
    heads: Annotated[str | None, typer.Option(help="Heads to run, separated by commas; all by default.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the records of all photos here too.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip photos whose result is there already.")] = False,
    gallery: Annotated[bool, typer.Option("--gallery", help="Write index.html with all pictures.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Run as this program does: segmenter, mmseg, setr, dpt, transformers, depth_anything."),
    ] = None,
    tta: Annotated[bool, typer.Option("--tta", help="With the protocol's scales, each mirrored too.")] = False,
    window: Annotated[int | None, typer.Option(help="Run windows of this side, at the photo's own pixels.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that windows share; a quarter by default.")] = None,
    blend: Annotated[str | None, typer.Option(help="Of windows: uniform or hann.")] = None,
    window_batch: Annotated[str | None, typer.Option(help="Windows at once, or auto.")] = None,
    scale: Annotated[float | None, typer.Option(help="Factor on the photo's sides before windows.")] = None,
    scales: Annotated[str | None, typer.Option(help="Average these input scales, as in 0.75,1,1.25.")] = None,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored photo.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Stream TIFFs and PNGs of any size; large or georeferenced ones always.")
    ] = False,
    bands: Annotated[str | None, typer.Option(help="Bands of a raster as red, green, blue: 4,3,2.")] = None,
    limits: Annotated[
        str | None, typer.Option("--range", help="Values of a raster as black and white: 0,3000.")
    ] = None,
    scores: Annotated[bool, typer.Option("--scores", help="Of a raster: how sure the labels are, in percent.")] = False,
    raster_format: Annotated[
        str | None, typer.Option("--raster-format", help="Of a raster's results: GTiff, COG or PNG.")
    ] = None,
    speed: Annotated[
        list[str] | None, typer.Option(help="Make the model cheaper: a YAML file, or KEY=VALUE; may be repeated.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="What runs the network: torch, compile, onnxruntime or openvino.")
    ] = None,
) -> None:
    """Label photos and estimate their depth.

    For every photo and head: <photo>.<head>.labels.png (indexed), .overlay.png; .mm.png (16 bit, millimetres) and
    .colours.png for depth; and <photo>.json. A broken photo is reported and the others go on; the exit code is then 2.
    """
    from densevit import load
    from densevit.cli.gallery import write_gallery
    from densevit.cli.options import own_way, raster_config, refuse_views, streams
    from densevit.device import returning_large_buffers
    from densevit.errors import DensevitError
    from densevit.io import find_images, make_folder, write_json

    console = Console(stderr=True)
    photos = find_images(sources)
    wanted = [head.strip() for head in heads.split(",")] if heads else None
    predictor = load(model, heads=wanted, device=device, speed=speed, engine=engine)
    own = own_way(
        window=window, overlap=overlap, blend=blend, window_batch=window_batch, scale=scale, scales=scales, flip=flip
    )
    raster = raster_config(own, bands=bands, limits=limits, scores=scores, file_format=raster_format)
    way: dict[str, Any] = {} if protocol is None else {"protocol": protocol, "tta": tta}
    way |= {} if own.plain_pass else {"way": own.plain()}
    if switches := predictor.speed.set_values():
        way["speed"] = switches
    make_folder(out)
    records: list[dict[str, Any]] = []
    failures: list[str] = []
    skipped = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("predicting", total=len(photos))
        for photo, stem in zip(photos, unique_stems(photos), strict=True):
            streamed = protocol is None and streams(photo, forced=stream)
            stamp = _stamp(photo, model) | way | ({"raster": raster.plain()} if streamed else {})
            earlier = _earlier(out / f"{stem}.json", stamp, predictor.heads) if resume else None
            if earlier is not None:
                records.append(earlier)
                skipped += 1
            else:
                try:
                    began = time.perf_counter()
                    if streamed:
                        refuse_views(own, photo)
                        with returning_large_buffers():
                            record = predictor.predict_raster(photo, out, config=raster, stem=stem, extra=stamp)
                        records.append(record)
                    else:
                        prediction = predictor.predict(
                            photo, protocol=protocol, tta=tta, windows=own.windows, scales=own.scales, flip=own.flip
                        )
                        seconds = {"seconds": round(time.perf_counter() - began, 3)}
                        records.append(prediction.save(out, stem, extra=stamp | seconds))
                except DensevitError as error:
                    failures.append(str(error))
                    console.print(f"[red]failed[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
            progress.advance(bar)
    if json_file is not None:
        write_json(json_file, {"model": model, "photos": records, "failures": failures})
    if gallery:
        shown = [record for record in records if not record.get("streamed")]  # a page can't show what is beyond memory
        write_gallery(out / "index.html", shown, title=f"densevit: {len(shown)} photos")
    counts = f"{len(records) - skipped} predicted, {skipped} skipped, {len(failures)} failed"
    console.print(f"{counts}; pictures in {out}", highlight=False, markup=False, soft_wrap=True)
    if failures:
        raise typer.Exit(2)


def unique_stems(photos: Sequence[Path]) -> list[str]:
    """A name for the results of every photo: its stem, with suffix or folder where stems repeat."""
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


def _stamp(photo: Path, model: str) -> dict[str, Any]:
    """What a result was made from: another stamp is another result."""
    status = photo.stat() if photo.exists() else None
    size, changed = (status.st_size, status.st_mtime_ns) if status else (-1, -1)
    return {"source": str(photo), "bytes": size, "changed_ns": changed, "model": model}


def _earlier(path: Path, stamp: dict[str, Any], heads: Sequence[str]) -> dict[str, Any] | None:
    """The record of a finished photo, if it was made from the same file by the same model and its files are there."""
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        same = all(record.get(key) == stamp.get(key) for key in {*stamp, "protocol", "tta", "way", "raster", "speed"})
        names = [record["heads"][head].get(kind) for head in heads for kind in FILES]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # none, or not one of ours
        return None
    return record if same and all((path.parent / name).exists() for name in names if name is not None) else None
