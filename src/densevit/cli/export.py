"""``densevit export``: a model as one ONNX or OpenVINO file, or as a folder for browsers."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densevit.cli import options as shared
from densevit.cli.quantize import MaxLosses, write_int8

if TYPE_CHECKING:
    from densevit.export.job import Exported


def export(
    *,
    model: shared.ModelArgument,
    to: Annotated[str | None, typer.Option(help="onnx, openvino or web; by default as --out ends.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File, .onnx or .xml (with a .bin), or folder for web; by default the model's name."),
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
    weights: Annotated[
        str | None, typer.Option(help="How web stores weights: int8 (default), float16 or float32.")
    ] = None,
    npm_package: Annotated[
        Path | None, typer.Option(help="Archive of onnxruntime-web, for web without a network; else npm downloads it.")
    ] = None,
    speed: shared.Speed = None,
    quality: shared.Quality = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Write a model as one file that takes photos of any size and gives labels, depth or values of their size.

    Resizing, normalisation and arg max are inside. Before the file is written it is compared with the model at five
    sizes; what was found is in its metadata, and a file that differs is refused.

    --to web writes a folder of static files: a page that runs the model in the browser, without a server, offline too.
    """
    from densevit.errors import ConfigError
    from densevit.export.files import SUFFIXES, check_target, output_files
    from densevit.export.job import export_model
    from densevit.export.quantise_photos import Source
    from densevit.export.web import export_web, page_paths
    from densevit.inference.predictor import Predictor
    from densevit.inference.speed import read_speed

    if precision not in ("float32", "int8"):
        raise ConfigError(f"--precision is {precision!r}; float32 and int8 are accepted")
    if precision == "float32" and max_loss:
        raise ConfigError("--max-loss belongs to --precision int8; float32 files are refused by a fixed tolerance")
    if out is None and to is None:
        raise ConfigError("neither --to nor --out is given; name a format, as in --to onnx")
    for_web = to == "web"
    endings = {"web": "-web"} | {str(key): suffix for key, suffix in SUFFIXES.items()}
    out = out or Path(Path(model).stem + endings.get(to or "", ""))
    if for_web and precision == "int8":
        raise ConfigError("--precision int8 is for onnx and openvino; web stores its weights as int8 (--weights)")
    if not for_web:
        check_target(to, out)
        if weights is not None or npm_package is not None:
            raise ConfigError("--weights and --npm-package belong to --to web; remove them, or pass --to web")
    outputs = page_paths(out) if for_web else output_files(out)
    shared.claim_outputs(outputs, [Path(model), data, npm_package], overwrite=overwrite)  # before the model is loaded
    names = shared.head_names(heads)
    predictor = Predictor.load(model, heads=names, device="cpu", speed=read_speed(speed, quality=quality))
    if precision == "int8":
        options: dict[str, Any] = {"to": to, "scores": scores, "max_loss": max_loss or (), "overwrite": overwrite}
        write_int8(predictor, model, out, Source(data), **options)
        return
    if for_web:
        chosen = weights or "int8"
        exported = export_web(
            predictor, out, scores=scores, data=data, weights=chosen, npm_package=npm_package, overwrite=overwrite
        )
    else:
        exported = export_model(predictor, out, to=to, scores=scores, data=data, overwrite=overwrite)
    _print_summary(out, exported)
    if for_web:
        typer.echo(f"try it: python -m http.server 8000 --directory {shlex.quote(str(out))}, then open")
        typer.echo("  http://localhost:8000")


def _print_summary(out: Path, exported: "Exported") -> None:
    verified = exported.metadata.verified
    typer.echo(f"{out}: {exported.megabytes:.1f} MB, heads {', '.join(exported.metadata.heads)}")
    for name, share in verified.labels_equal.items():
        typer.echo(f"  {name}: labels equal to the model's on {share:.4%} of the pixels")
    for name, difference in verified.largest_difference.items():
        typer.echo(f"  {name}: differs by at most {difference:.1e} of its range")
