"""``densevit evaluate``: the metrics of a model on a data set."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from densevit.cli import options as shared
from densevit.cli.terminal import printable

if TYPE_CHECKING:
    from densevit.data import Dataset
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.predictor import Predictor


def evaluate(
    model: shared.Model = "default",
    data: Annotated[Path | None, typer.Option(help="Root of a folder data set.")] = None,
    dataset_kind: Annotated[
        str, typer.Option("--dataset", help="Kind of --data: folder, or a public one, such as cityscapes.")
    ] = "folder",
    split: shared.Split = None,
    task: shared.Task = "segmentation",
    head: shared.HeadToMeasure = None,
    decoder: shared.OldDecoder = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photos, instead of --data.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, with --images.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Folder of depth maps, with --images.")] = None,
    values: Annotated[Path | None, typer.Option(help="Folder of value maps (.npy), with --images.")] = None,
    reduce_zero_label: Annotated[
        bool, typer.Option("--reduce-zero-label", help="Masks count from 1 and 0 is no class, as in ADE20K.")
    ] = False,
    background: Annotated[
        str | None,
        typer.Option(help="Class of pixels that no shape of COCO or labelme covers, if the model does not know it."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metrics here.")] = None,
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
    speed: shared.Speed = None,
    engine: shared.Engine = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Measure a model: mIoU, aAcc, mAcc and per-class IoU, or AbsRel, RMSE, delta1 and others.

    Photos are run as ``predict`` runs them with the same options, and measured at their own size. Metrics are
    fractions and metres.
    """
    from densevit import load
    from densevit.evaluation.evaluate import check_measured
    from densevit.evaluation.selection import choose_head, open_for
    from densevit.io import write_json

    places = {"root": data, "split": split, "images": images, "masks": masks, "depth": depth, "values": values}
    settings: dict[str, Any] = {key: value for key, value in places.items() if value is not None}
    settings |= {"reduce_zero_label": True} if reduce_zero_label else {}
    settings |= {"background": background} if background is not None else {}
    settings |= {"kind": dataset_kind} if dataset_kind != "folder" else {}
    shared.claim_outputs([json_file], [data, images, masks, depth, values, Path(model)], overwrite=overwrite)
    dataset = open_for(settings, task)
    predictor = load(model, device=device, speed=speed, engine=engine)
    views = shared.view_options(
        window=window, overlap=overlap, blend=blend, batch=window_batch, scale=scale, scales=scales, flip=flip
    )
    options = predictor.options(**views, protocol=protocol, tta=tta)
    stamp: dict[str, Any] = {"task": task, "data": str(data or images), "split": split}
    stamp |= {} if background is None else {"background": background}
    stamp |= {} if protocol is None else {"protocol": protocol, "tta": tta}
    stamp |= {} if options.has_default_views else {"way": options.way()}
    stamp |= {"speed": switches} if (switches := predictor.speed.set_values()) else {}
    wanted: list[str] | list[None] = shared.head_names(head, decoder) or [None]
    chosen = [choose_head(predictor.tasks, dataset, task, name) for name in wanted]
    records = [
        {"model": model, "decoder": name, **stamp, **_measure(predictor, name, head_dataset, options)}
        for name, head_dataset in chosen
    ]
    if json_file is not None:
        write_json(json_file, records[0] if len(records) == 1 else {"model": model, "heads": records})
    # After the figures, of which other heads may have some.
    for (name, head_dataset), record in zip(chosen, records, strict=True):
        check_measured({name: record}, predictor.tasks, len(head_dataset))


def _measure(predictor: "Predictor", head: str, dataset: "Dataset", options: "InferenceOptions") -> dict[str, Any]:
    """Measure one head, print its metrics, and return them with the seconds that it took."""
    from densevit.evaluation.evaluate import evaluate

    began = time.perf_counter()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"evaluating {head}", total=len(dataset))
        metrics = evaluate(
            predictor.model,
            {head: predictor.tasks[head]},
            predictor.fit,
            dataset,
            options,
            progress=lambda done, _: progress.update(bar, completed=done),
        )[head]
    Console(markup=False).print(_table(head, metrics))
    return {**metrics, "seconds": round(time.perf_counter() - began, 1)}


def _table(head: str, metrics: dict[str, Any]) -> Table:
    table = Table("metric", "value", title=printable(head))
    for name, value in metrics.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int):
            table.add_row(name, str(value))
    for name, values in metrics.get("per_class", {}).items():
        table.add_row(printable(f"IoU {name}"), f"{values['IoU']:.4f}")
    return table
