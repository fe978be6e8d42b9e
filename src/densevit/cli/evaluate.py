"""``densevit evaluate``: the metrics of a model on a data set."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from densevit.cli import options as shared
from densevit.cli.data_options import DataOptions, MeasureOptions
from densevit.cli.terminal import printable

if TYPE_CHECKING:
    from densevit.evaluation.run_data import Selected
    from densevit.inference.exported import ExportedModel
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.predictor import Predictor


def evaluate(
    *,
    model: shared.Runnable = "default",
    source: DataOptions,
    measured: MeasureOptions,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the metrics here.")] = None,
    device: shared.Device = None,
    quality: shared.Quality = None,
    views: shared.ViewOptions,
    speed: shared.Speed = None,
    engine: shared.Engine = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Measure a model: mIoU, aAcc, mAcc and per-class IoU, or AbsRel, RMSE, delta1 and others.

    Photos are run as ``predict`` runs them with the same options, and measured at their own size. Metrics are
    fractions and metres. A copy of the data of a model's run is read as the run read it; what differs is printed.
    """
    from densevit.evaluation.evaluate import check_measured
    from densevit.evaluation.run_data import Model
    from densevit.io import write_json

    keys = source.keys()  # may be refused, so before the model is loaded
    shared.claim_outputs([json_file], [*source.paths(), Path(model)], overwrite=overwrite)
    predictor = shared.load_model(model, device=device, speed=speed, engine=engine, quality=quality)
    options = views.checked(predictor)
    stamp: dict[str, Any] = {} if source.background is None else {"background": source.background}
    stamp |= views.stamp(options, predictor)
    chosen = measured.select(Model(model, predictor.tasks, predictor.trained_on), source.data, keys)
    records = [
        {
            "model": model,
            "decoder": selected.head,
            **selected.record(),
            **stamp,
            **_measure(predictor, selected, options),
        }
        for selected in chosen
    ]
    if json_file is not None:
        write_json(json_file, records[0] if len(records) == 1 else {"model": model, "heads": records})
    # After the figures, of which other heads may have some.
    for selected, record in zip(chosen, records, strict=True):
        check_measured({selected.head: record}, predictor.tasks, len(selected.dataset))


def _measure(predictor: "Predictor | ExportedModel", chosen: "Selected", options: "InferenceOptions") -> dict[str, Any]:
    """Measure one head, print its metrics, and return them with the seconds that it took."""
    from densevit.evaluation.evaluate import evaluate_predictor

    head, dataset = chosen.head, chosen.dataset
    began = time.perf_counter()
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"evaluating {head}", total=len(dataset))
        metrics = evaluate_predictor(
            predictor, head, dataset, options, progress=lambda done, _: progress.update(bar, completed=done)
        )
    Console(markup=False).print(_table(head, _quality(predictor, head, options) | metrics))
    return {**metrics, "seconds": round(time.perf_counter() - began, 1)}


def _quality(predictor: "Predictor | ExportedModel", head: str, options: "InferenceOptions") -> dict[str, Any]:
    """The quality that was measured, for people; nothing where windows or a protocol replaced it."""
    from densevit.inference.exported import ExportedModel

    if not options.uses_quality:
        return {}
    if isinstance(predictor, ExportedModel):
        return {"quality": predictor.quality}
    return {"quality": options.quality if predictor.fit.differs_by_quality([head]) else "fast = best"}


def _table(head: str, metrics: dict[str, Any]) -> Table:
    table = Table("metric", "value", title=printable(head))
    for name, value in metrics.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
        elif isinstance(value, int | str):
            table.add_row(name, str(value))
    for name, values in metrics.get("per_class", {}).items():
        table.add_row(printable(f"IoU {name}"), f"{values['IoU']:.4f}")
    return table
