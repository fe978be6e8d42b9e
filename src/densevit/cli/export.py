"""``densevit export``: a model as one ONNX or OpenVINO file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from densevit.cli import options as shared
from densevit.cli.quantize import MaxLosses, write_int8


def export(
    *,
    model: Annotated[str, typer.Argument(help='"default", a checkpoint, or hf://owner/name.')],
    to: Annotated[str | None, typer.Option(help="onnx or openvino; by default as --out ends.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write, .onnx or .xml (with a .bin); by default the model's name.")
    ] = None,
    heads: shared.HeadsToRun = None,
    scores: Annotated[bool, typer.Option("--scores", help="Also give the probability of every label.")] = False,
    precision: Annotated[
        str, typer.Option(help="float32, or int8, which needs --data and does what densevit quantize does.")
    ] = "float32",
    data: Annotated[
        Path | None, typer.Option(help="Folder of photos to verify the file on; three that ship by default.")
    ] = None,
    max_loss: MaxLosses = None,
    speed: shared.Speed = None,
    quality: shared.Quality = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Write a model as one file that takes photos of any size and gives labels, depth or values of their size.

    Resizing, normalisation and arg max are inside. Before the file is written it is compared with the model at five
    sizes; what was found is in its metadata, and a file that differs is refused.
    """
    from densevit.errors import ConfigError
    from densevit.export.files import SUFFIXES, check_target, output_files
    from densevit.export.job import export_model
    from densevit.export.quantise_photos import Source
    from densevit.inference.predictor import Predictor
    from densevit.inference.speed import read_speed

    if precision not in ("float32", "int8"):
        raise ConfigError(f"--precision is {precision!r}; float32 and int8 are accepted")
    if precision == "float32" and max_loss:
        raise ConfigError("--max-loss belongs to --precision int8; float32 files are refused by a fixed tolerance")
    if out is None and to is None:
        raise ConfigError("neither --to nor --out is given; name a format, as in --to onnx")
    out = out or Path(Path(model).stem + {str(key): suffix for key, suffix in SUFFIXES.items()}.get(to or "", ""))
    check_target(to, out)
    shared.claim_outputs(output_files(out), [Path(model), data], overwrite=overwrite)  # before the model is loaded
    names = shared.head_names(heads)
    predictor = Predictor.load(model, heads=names, device="cpu", speed=read_speed(speed, quality=quality))
    if precision == "int8":
        options: dict[str, Any] = {"to": to, "scores": scores, "max_loss": max_loss or (), "overwrite": overwrite}
        write_int8(predictor, model, out, Source(data), **options)
        return
    exported = export_model(predictor, out, to=to, scores=scores, data=data, overwrite=overwrite)
    verified = exported.metadata.verified
    typer.echo(f"{out}: {exported.megabytes:.1f} MB, heads {', '.join(exported.metadata.heads)}")
    for name, share in verified.labels_equal.items():
        typer.echo(f"  {name}: labels equal to the model's on {share:.4%} of the pixels")
    for name, difference in verified.largest_difference.items():
        typer.echo(f"  {name}: differs by at most {difference:.1e} of its range")
