"""``densevit evaluate``: the figures of a model on a data set."""

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table


def evaluate(
    model: Annotated[str, typer.Option(help='"default", a checkpoint, or hf://owner/name.')] = "default",
    data: Annotated[Path | None, typer.Option(help="Root of a folder data set.")] = None,
    dataset_kind: Annotated[
        str, typer.Option("--dataset", help="Kind of --data: folder, or a public one, such as cityscapes.")
    ] = "folder",
    split: Annotated[str | None, typer.Option(help="Folder of the split inside images/ and masks/ or depth/.")] = None,
    task: Annotated[
        Literal["segmentation", "depth", "regression"], typer.Option(help="What to measure.")
    ] = "segmentation",
    decoder: Annotated[str | None, typer.Option(help="The head to measure; found by its classes if not given.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photos, instead of --data.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, with --images.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Folder of depth maps, with --images.")] = None,
    values: Annotated[Path | None, typer.Option(help="Folder of value maps (.npy), with --images.")] = None,
    reduce_zero_label: Annotated[
        bool, typer.Option("--reduce-zero-label", help="Masks count from 1 and 0 is no class, as in ADE20K.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
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
    speed: Annotated[
        list[str] | None, typer.Option(help="Make the model cheaper: a YAML file, or KEY=VALUE; may be repeated.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="What runs the network: torch, compile, onnxruntime or openvino.")
    ] = None,
) -> None:
    """Measure a model: mIoU, aAcc, mAcc and per-class IoU, or AbsRel, RMSE, delta1 and the others.

    Single scale unless --tta is given, at every photo's own size. Figures are fractions and metres.
    """
    from densevit import load
    from densevit.cli.options import own_way
    from densevit.errors import ConfigError
    from densevit.evaluation.evaluate import evaluate
    from densevit.evaluation.selection import choose_head, open_for
    from densevit.io import write_json

    console = Console(stderr=True)
    predictor = load(model, device=device, speed=speed, engine=engine)
    places = {"root": data, "split": split, "images": images, "masks": masks, "depth": depth, "values": values}
    places = {key: value for key, value in places.items() if value is not None}
    facts = {"reduce_zero_label": True} if reduce_zero_label else {}
    dataset = open_for(places | facts | ({"kind": dataset_kind} if dataset_kind != "folder" else {}), task)
    if tta and protocol is None:
        raise ConfigError("--tta is given without --protocol; test-time augmentation is a protocol's; name one")
    own = own_way(
        window=window, overlap=overlap, blend=blend, window_batch=window_batch, scale=scale, scales=scales, flip=flip
    )
    if protocol is not None and not own.plain_pass:
        raise ConfigError("windows, scales or flip are given with a protocol, which has its own; leave them or it out")
    chosen = None if protocol is None else predictor.choose_protocol(protocol)
    head, dataset = choose_head(predictor.tasks, dataset, task, decoder)
    began = time.perf_counter()
    with Progress(console=console) as progress:
        bar = progress.add_task(f"evaluating {head}", total=len(dataset))
        figures = evaluate(
            predictor.model,
            {head: predictor.tasks[head]},
            predictor.fit,
            dataset,
            progress=lambda done, _: progress.update(bar, completed=done),
            protocol=chosen,
            tta=tta,
            way=own,
        )[head]
    record = {
        "model": model,
        "decoder": head,
        "task": task,
        "data": str(data or images),
        "split": split,
        **({} if protocol is None else {"protocol": protocol, "tta": tta}),
        **({} if own.plain_pass else {"way": own.plain()}),
        **({"speed": switches} if (switches := predictor.speed.set_values()) else {}),
        **figures,
        "seconds": round(time.perf_counter() - began, 1),
    }
    Console(markup=False).print(_table(head, figures))
    if json_file is not None:
        write_json(json_file, record)


def _table(head: str, figures: dict[str, Any]) -> Table:
    table = Table("figure", "value", title=head)
    for name, value in figures.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int):
            table.add_row(name, str(value))
    for name, values in figures.get("per_class", {}).items():
        table.add_row(f"IoU {name}", f"{values['IoU']:.4f}")
    return table
