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
    split: Annotated[str | None, typer.Option(help="Folder of the split inside images/ and masks/ or depth/.")] = None,
    task: Annotated[
        Literal["segmentation", "depth", "regression"], typer.Option(help="What to measure.")
    ] = "segmentation",
    decoder: Annotated[str | None, typer.Option(help="The head to measure; found by its classes if not given.")] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of photos, instead of --data.")] = None,
    masks: Annotated[Path | None, typer.Option(help="Folder of masks, with --images.")] = None,
    depth: Annotated[Path | None, typer.Option(help="Folder of depth maps, with --images.")] = None,
    values: Annotated[Path | None, typer.Option(help="Folder of value maps (.npy), with --images.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")] = None,
) -> None:
    """Measure a model: mIoU, aAcc, mAcc and per-class IoU, or AbsRel, RMSE, delta1 and the others.

    Single scale, at every photo's own size. Figures are fractions and metres.
    """
    from densevit.inference.predictor import Predictor
    from densevit.io import write_json
    from densevit.training.evaluate import choose_head, evaluate, open_for

    console = Console(stderr=True)
    predictor = Predictor.load(model, device=device)
    places = {"root": data, "split": split, "images": images, "masks": masks, "depth": depth, "values": values}
    dataset = open_for({key: value for key, value in places.items() if value is not None}, task)
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
        )[head]
    record = {
        "model": model,
        "decoder": head,
        "task": task,
        "data": str(data or images),
        "split": split,
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
