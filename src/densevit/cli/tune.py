"""``densevit tune``: the best cheaper setting of a model within a budget."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from densevit.cli import options as shared
from densevit.cli.data_options import DataOptions, MeasureOptions

if TYPE_CHECKING:
    from densevit.data import Dataset
    from densevit.tuning.pareto import Budget, Point
    from densevit.tuning.tuner import Tuner


def tune(
    *,
    model: shared.ModelArgument,
    budget: Annotated[
        str,
        typer.Option(help='Such as "20 ms", "2 GB", or "0.5 mIoU" (points) or "0.005 delta1" for what may be lost.'),
    ],
    out: Annotated[Path, typer.Option(help="YAML file for --speed; a plot is written next to it, as .svg.")],
    source: DataOptions,
    measured: MeasureOptions,
    limit: Annotated[int, typer.Option(help="Photos to measure on, spread over the split.")] = 50,
    grid: Annotated[Path | None, typer.Option(help="YAML file with the values of each switch.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; those of torch if not given.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every point here.")] = None,
    device: shared.Device = None,
    quality: shared.Quality = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Measure cheaper settings of a model on your machine and data, and write the best within a budget.

    Photo size, patch size, token merging and early exit are combined; combinations that cannot win are given up after
    a few photos. Interrupt it to see what was measured so far.
    """
    import torch

    from densevit.checkpoints.open import open_model
    from densevit.config import read_yaml
    from densevit.device import pick_device
    from densevit.errors import ConfigError
    from densevit.evaluation.run_data import Model
    from densevit.evaluation.selection import spread
    from densevit.inference.speed import read_speed
    from densevit.inference_config import DEFAULT_QUALITY
    from densevit.io import write_bytes_atomic, write_json
    from densevit.tuning.pareto import Budget, choose
    from densevit.tuning.plot import pareto_svg
    from densevit.tuning.tuner import GridConfig, Tuner, default_grid, preset_text

    picture_file = out.with_suffix(".svg")
    keys = source.keys()
    if len(heads := measured.heads()) > 1:
        raise ConfigError(f"--head names {len(heads)} heads ({', '.join(heads)}) but tune measures one; name one")
    shared.claim_outputs([out, picture_file, json_file], [*source.paths(), grid, Path(model)], overwrite=overwrite)
    if threads is not None:
        torch.set_num_threads(threads)
    tuned = read_speed(None, quality=quality).quality or DEFAULT_QUALITY
    bundle = open_model(model)
    (chosen_data,) = measured.select(Model(model, bundle.tasks, bundle.trained_on), source.data, keys)
    name, dataset = chosen_data.head, chosen_data.dataset
    switches = None if grid is None else GridConfig.parse(read_yaml(grid), source=str(grid))
    settings = (switches or default_grid(bundle, name, tuned)).settings(tuned)
    tuner = Tuner(bundle, name, settings, device=pick_device(device))
    limits = Budget.parse(budget, tuner.figure)
    console = Console(stderr=True)
    _search(tuner, dataset, spread(len(dataset), limit), limits, console)
    points = tuner.points()
    if json_file is not None:
        facts = {"model": model, "head": name, "quality": tuned, "budget": budget, **chosen_data.record()}
        write_json(json_file, {**facts, "points": _records(points)})
    try:
        chosen = choose(points, limits, tuner.figure)
    except ConfigError:
        Console(markup=False).print(_table(tuner, None))
        raise
    Console(markup=False).print(_table(tuner, chosen))
    title = f"{model}, {name} on {chosen_data.title}"
    picture = pareto_svg(points, tuner.figure, title=title, budget=limits, chosen=chosen)
    write_bytes_atomic(picture_file, picture.encode())
    write_bytes_atomic(out, preset_text(chosen, tuner.figure, limits, model).encode())
    console.print(f"{chosen.name}: written to {out}", highlight=False, markup=False, soft_wrap=True)


def _search(tuner: "Tuner", dataset: "Dataset", indices: list[int], limits: "Budget", console: Console) -> None:
    """Run the settings, with a bar; Ctrl-C shows what was measured so far."""
    try:
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
            bar = progress.add_task(f"{len(tuner.candidates)} settings", total=len(indices))
            tuner.run(
                dataset,
                indices,
                limits,
                lambda done, alive: progress.update(bar, completed=done, description=f"{alive} settings"),
            )
    except KeyboardInterrupt:
        if tuner.points():
            Console(markup=False).print(_table(tuner, None))
        raise


def _records(points: "list[Point]") -> list[dict[str, object]]:
    names = ("name", "photos", "value", "loss", "milliseconds", "peak_mb", "complete")
    return [{"speed": p.speed.set_values()} | {name: getattr(p, name) for name in names} for p in points]


def _table(tuner: "Tuner", chosen: "Point | None") -> Table:
    from densevit.tuning.pareto import pareto_front

    points = tuner.points()
    front = pareto_front(points)
    table = Table("setting", tuner.figure.name, "loss", "ms", "peak MB", "photos", "", title=tuner.head)
    for point in sorted(points, key=lambda p: p.milliseconds):
        mark = "chosen" if point == chosen else "front" if point in front else "" if point.complete else "given up"
        memory = "-" if point.peak_mb is None else f"{point.peak_mb:.0f}"
        figures = (f"{point.value:.4f}", tuner.figure.show(point.loss, "+"), f"{point.milliseconds:.0f}", memory)
        table.add_row(point.name, *figures, str(point.photos), mark)
    return table
