"""``densevit convert``: convert a checkpoint of another program."""

from pathlib import Path
from typing import Annotated, Any

import typer

from densevit.cli import options as shared

CONFIGS = {".json", ".yml", ".yaml", ".py"}
"""Suffixes of configs."""


def convert(
    source: Annotated[
        str, typer.Argument(help="Weights file, folder of weights and config, or hf://owner/name[/file].")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="The checkpoint to write.")],
    as_source: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="Read as segmenter, setr, mmseg, dpt, depth_anything, depth_anything_3, transformers, smp or dinov2.",
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Config file of the model, if not next to the weights.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads of the encoder.")] = None,
    decoder_heads: Annotated[int | None, typer.Option(help="Attention heads of Segmenter's decoder.")] = None,
    taps: Annotated[
        str | None, typer.Option(help="Blocks that the decoder reads, counted from 0, such as 5,11,17,23.")
    ] = None,
    aux_taps: Annotated[str | None, typer.Option(help="Blocks that the auxiliary heads read.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Size of the training images in pixels, HEIGHTxWIDTH.")] = None,
    norm_eps: Annotated[float | None, typer.Option(help="Epsilon of the encoder's LayerNorms.")] = None,
    readout: Annotated[str | None, typer.Option(help="How DPT uses the class token: ignore, add or project.")] = None,
    release: Annotated[
        str | None,
        typer.Option(
            help="DPT depth: midas, kitti, nyu. DINOv2: kitti, nyu. Depth Anything: v1, v2, hypersim, vkitti; 3: mono, "
            "metric."
        ),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Scale of a DPT depth model, instead of a release.")] = None,
    shift: Annotated[float | None, typer.Option(help="Shift of a DPT depth model, instead of a release.")] = None,
    invert: Annotated[
        bool | None, typer.Option(help="Whether a DPT depth model predicts 1 / (scale d + shift).")
    ] = None,
    signed: Annotated[bool | None, typer.Option(help="Whether a DPT depth model may predict negative values.")] = None,
    max_depth_m: Annotated[
        float | None, typer.Option(help="Maximum depth of a metric Depth Anything or DINOv2, instead of a release.")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Class names of ade20k, cityscapes or pascal_context.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights, such as MIT; by default that in the README.md.")
    ] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="File or hub address of the encoder, for a file that holds only a head (DINOv2).")
    ] = None,
    overwrite: shared.Overwrite = False,
) -> None:
    """Convert a checkpoint of Segmenter, SETR, mmsegmentation, DPT, Depth Anything, transformers, smp or DINOv2.

    Sizes are read from the tensors, the rest from the config next to the weights. If a fact is missing, the message
    names the option that gives it. Every tensor is accounted for, or nothing is written.
    """
    from densevit.checkpoints.native import save_bundle
    from densevit.checkpoints.open import import_file
    from densevit_runtime.licences import in_words

    weights = Path(source)
    # Configs next to the weights are read too.
    beside = [path for path in weights.parent.glob("*") if path.suffix in CONFIGS] if weights.is_file() else []
    encoder = None if encoder_weights is None else Path(encoder_weights)
    shared.claim_outputs([out], [weights, config, encoder, *beside], overwrite=overwrite)
    overrides: dict[str, Any] = {
        "num_heads": num_heads,
        "decoder_heads": decoder_heads,
        "taps": _numbers(taps, ","),
        "aux_taps": _numbers(aux_taps, ","),
        "image_size": _numbers(image_size, "x"),
        "norm_eps": norm_eps,
        "readout": readout,
        "release": release,
        "scale": scale,
        "shift": shift,
        "invert": invert,
        "signed": signed,
        "max_depth_m": max_depth_m,
        "dataset": dataset,
        "licence": licence,
        "encoder_weights": encoder_weights,
    }
    given = {name: value for name, value in overrides.items() if value is not None}
    imported = import_file(source, as_source=as_source, config=config, **given)
    typer.echo(str(imported.report))
    counts = imported.counts
    typer.echo(
        f"{counts.source:,} parameters in the file: {counts.built:,} in the model, {counts.ignored:,} ignored, "
        f"{counts.absorbed:,} absorbed by others"
    )
    save_bundle(imported.bundle, out)
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    typer.echo(f"{out}: {imported.importer}, {size}; licence of the weights: {in_words(imported.bundle.card.licence)}")


def _numbers(text: str | None, separator: str) -> list[str] | None:
    """The parts of a list as text, which ``ImportOverrides`` converts."""
    return None if text is None else [part.strip() for part in text.lower().split(separator)]
