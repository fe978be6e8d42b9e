"""``densevit predict``: photos in, label and depth pictures out."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from densevit.cli import options as shared
from densevit.cli.terminal import printable


def predict(
    *,
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
    annotations: Annotated[
        list[str] | None,
        typer.Option(help="Also write predictions as people correct them: coco, labelme or cvat; may be repeated."),
    ] = None,
    device: shared.Device = None,
    quality: shared.Quality = None,
    views: shared.ViewOptions,
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
    overwrite: shared.Overwrite = False,
) -> None:
    """Label photos and estimate their depth.

    For every photo and head: <photo>.<head>.labels.png (indexed), .overlay.png; .mm.png (16 bit, millimetres) and
    .colours.png for depth; and <photo>.json. With --annotations, also a folder coco, labelme or cvat. A broken photo is
    reported and the others go on; the exit code is then 2.
    """
    from densevit import load
    from densevit.cli.annotations import AnnotationOutputs
    from densevit.cli.gallery import write_gallery
    from densevit.cli.photo_batch import PhotoBatch
    from densevit.io import find_photos, make_folder, write_json

    console = Console(stderr=True)
    found = find_photos(sources)
    names = shared.head_names(head, heads)
    predictor = load(model, heads=names, device=device, speed=speed, engine=engine, quality=quality)
    options = views.checked(predictor)
    raster = shared.raster_config(options.windows, bands=bands, limits=limits, scores=scores, file_format=raster_format)
    batch = PhotoBatch(predictor, model, options, raster, views.stamp(options, predictor), out, stream=stream)
    batch.plan(found.photos, resume=resume)
    annotated = AnnotationOutputs(annotations or (), batch)
    page = [out / "index.html"] if gallery else []
    report = [] if json_file is None else [json_file]
    shared.claim_outputs(
        [*batch.outputs(), *annotated.files(), *page, *report], [*found.photos, Path(model)], overwrite=overwrite
    )
    make_folder(out)
    batch.run(console)
    annotated.write()
    if json_file is not None:
        passed_over = [{"source": path, "reason": reason} for path, reason in found.passed_over.items()]
        summary = {"model": model, "photos": batch.records, "failures": batch.failures, "passed_over": passed_over}
        write_json(json_file, summary)
    if gallery:
        shown = [record for record in batch.records if not record.get("streamed")]  # a page cannot show those
        write_gallery(out / "index.html", shown, title=f"densevit: {len(shown)} photos")
    counts = {
        "predicted": len(batch.records) - batch.skipped,
        "skipped": batch.skipped,
        "failed": len(batch.failures),
        "passed over": len(found.passed_over),
        "not tried": batch.not_tried,
    }
    _show_passed_over(console, found.passed_over)
    always = ("predicted", "skipped", "failed")
    text = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in always)
    console.print(printable(f"{text}; pictures in {out}"), highlight=False, markup=False, soft_wrap=True)
    if batch.fault is not None:
        raise batch.fault
    if batch.failures:
        raise typer.Exit(2)


def _show_passed_over(console: Console, passed_over: Mapping[Path, str]) -> None:
    """One line for each reason, with an example."""
    examples: dict[str, Path] = {}
    for path, reason in passed_over.items():
        examples.setdefault(reason, path)
    for reason, count in Counter(passed_over.values()).items():
        others = f" and {count - 1} more" if count > 1 else ""
        text = f"passed over {examples[reason].name}{others}: {reason}"
        console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
