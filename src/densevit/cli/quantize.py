"""``densevit quantize``: an int8 file for ONNX Runtime or OpenVINO, measured on the user's photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from densevit.cli import options as shared
from densevit.cli.data_options import DataOptions, show_remarks

if TYPE_CHECKING:
    from densevit.export.quantise import Quantised

MaxLosses = Annotated[
    list[str] | None,
    typer.Option(
        help='The largest accepted loss, such as "0.5 mIoU" (points), "0.005 delta1" (a fraction), "1 labels" (per '
        "cent that differ, where there are no masks); may be repeated."
    ),
]


def quantize(
    *,
    model: shared.ModelArgument,
    out: Annotated[Path, typer.Option(help="File to write, .onnx (ONNX Runtime) or .xml with a .bin (OpenVINO).")],
    source: DataOptions,
    to: Annotated[str | None, typer.Option(help="onnx or openvino; by default as --out ends.")] = None,
    heads: shared.HeadsToRun = None,
    split: Annotated[str | None, typer.Option(help="Split of --data to measure on.")] = None,
    limit: Annotated[int, typer.Option(help="Photos to measure on, spread over the data.")] = 50,
    max_loss: MaxLosses = None,
    scores: Annotated[bool, typer.Option("--scores", help="Also give the probability of every label.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what was measured here.")] = None,
    speed: shared.Speed = None,
    quality: shared.Quality = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Write a model as one int8 file, which is a quarter of the size and faster on CPUs.

    Every layer is tried on your photos, and those that cost more than they gain stay in float32. The file is measured
    against the model, by the metric where --data has targets and by agreement where not, and is written only within
    --max-loss.
    """
    from densevit.export.files import check_target, output_files
    from densevit.export.quantise_photos import Source
    from densevit.inference.predictor import Predictor
    from densevit.inference.speed import read_speed

    keys = source.keys()  # may be refused, so before the model is loaded
    check_target(to, out)
    shared.claim_outputs([*output_files(out), json_file], [*source.paths(), Path(model)], overwrite=overwrite)
    settings = read_speed(speed, quality=quality)
    predictor = Predictor.load(model, heads=shared.head_names(heads), device="cpu", speed=settings)
    write_int8(
        predictor,
        model,
        out,
        Source(source.data, split, keys, limit),
        to=to,
        scores=scores,
        max_loss=max_loss or (),
        json_file=json_file,
        overwrite=overwrite,
    )


def write_int8(
    predictor: Any, model: str, out: Path, source: Any, *, json_file: Path | None = None, **options: Any
) -> None:
    """Run ``quantise_model`` with a progress bar, and print what was measured."""
    from densevit.export.quantise import quantise_model
    from densevit.io import write_json

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=Console(stderr=True)
    ) as shown:
        bar = shown.add_task("", total=None)
        quantised = quantise_model(
            predictor,
            model,
            out,
            source,
            **options,
            say=lambda remark: show_remarks([remark]),
            progress=lambda what, done, total: shown.update(bar, description=what, completed=done, total=total),
        )
    if json_file is not None:
        write_json(json_file, {"model": model, "file": str(out), **quantised.exported.metadata.card["int8"]})
    Console(markup=False).print(_table(quantised))
    ratio = quantised.float_seconds / max(quantised.measured.seconds, 1e-9)
    typer.echo(
        f"{out}: {quantised.exported.megabytes:.1f} MB ({quantised.bytes / quantised.float_bytes:.2f} of float32), "
        f"{ratio:.2f}x as fast as torch in float32, {quantised.share:.0%} of the operations in int8"
    )
    for name, reason in quantised.in_float.items():
        typer.echo(f"  {name} stays in float32: {reason}")


def _table(quantised: "Quantised") -> Table:
    table = Table("head", "photos", "metric", "float32", "int8", "agreement")
    for one in quantised.measured.results:
        figures = ("-", "-", "-") if one.metric is None else (one.metric.name, f"{one.before:.4f}", f"{one.after:.4f}")
        table.add_row(one.head, str(one.photos), *figures, f"{one.agreement:.4%}")
    return table
