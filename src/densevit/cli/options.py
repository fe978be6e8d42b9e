"""Options that several commands share, and the configs that they stand for."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from densevit.inference.exported import ExportedModel
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.predictor import Predictor
    from densevit.inference.raster.job import RasterConfig
    from densevit.inference.sliding_window import SlidingWindow

_MODEL = '"default", a name of densevit models, a checkpoint, or hf://owner/name.'
Model = Annotated[str, typer.Option(help=_MODEL)]
ModelArgument = Annotated[str, typer.Argument(help=_MODEL)]
Runnable = Annotated[
    str,
    typer.Option(
        "--model", help='"default", a name of densevit models, a checkpoint, hf://owner/name, or an exported file.'
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ...; a GPU if there is one.")]
Speed = Annotated[
    list[str] | None, typer.Option(help="Make the model cheaper: a YAML file, or KEY=VALUE; may be repeated.")
]
Quality = Annotated[
    str | None,
    typer.Option(
        help="fast runs each head on the whole photo, once; best with the windows and mirror images of the checkpoint. "
        "By default fast; the same where a checkpoint knows one way."
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files that densevit did not write, or that were changed since.")
]
Engine = Annotated[str | None, typer.Option(help="What runs the network: torch, compile, onnxruntime or openvino.")]
HeadsToRun = Annotated[
    list[str] | None,
    typer.Option("--head", help="Head to run; may be repeated, or several separated by commas. All by default."),
]
OldHeads = Annotated[list[str] | None, typer.Option("--heads", hidden=True)]


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """How a photo is run; see ``InferenceOptions``."""

    protocol: Annotated[
        str | None,
        typer.Option(
            help="Run images as this program does: segmenter, mmseg, setr, dinov2, dpt, transformers, depth_anything, "
            "depth_anything_3."
        ),
    ] = None
    tta: Annotated[bool, typer.Option("--tta", help="Average the protocol's scales, each mirrored too.")] = False
    window: Annotated[int | None, typer.Option(help="Run sliding windows of this side, at the image's own pixels.")] = (
        None
    )
    overlap: Annotated[
        int | None, typer.Option(help="Pixels that windows share; a quarter of a window by default.")
    ] = None
    blend: Annotated[str | None, typer.Option(help="How overlapping windows are blended: uniform or hann.")] = None
    window_batch: Annotated[str | None, typer.Option(help="Windows per batch: a number, or auto.")] = None
    scale: Annotated[float | None, typer.Option(help="Factor on the image's sides before windows are run.")] = None
    scales: Annotated[str | None, typer.Option(help="Average these input scales, as in 0.75,1,1.25.")] = None
    flip: Annotated[bool, typer.Option("--flip", help="Also average with the mirrored image.")] = False

    def checked(self, predictor: "Predictor | ExportedModel") -> "InferenceOptions":
        """The options as the model takes them.

        Raises:
            ConfigError: if a value is not accepted, or options exclude each other.
        """
        from densevit.inference.sliding_window import SlidingWindow

        batch = self.window_batch
        windows = {
            "window": self.window,
            "overlap": self.overlap,
            "blend": self.blend,
            "batch": int(batch) if batch is not None and batch.isdecimal() else batch,
            "scale": self.scale,
        }
        given = {key: value for key, value in windows.items() if value is not None}
        source = "the set of options --window, --overlap, --blend, --window-batch and --scale"
        return predictor.options(
            windows=SlidingWindow.parse(given, source=source) if given else None,
            scales=(1.0,) if self.scales is None else numbers(self.scales, "--scales", "0.75,1,1.25"),
            flip=self.flip,
            protocol=self.protocol,
            tta=self.tta,
        )

    def stamp(self, options: "InferenceOptions", predictor: "Predictor | ExportedModel") -> dict[str, Any]:
        """What a record says about how its photos were run; ``options`` are those that ``checked`` gave."""
        stamp: dict[str, Any] = {} if self.protocol is None else {"protocol": self.protocol, "tta": self.tta}
        stamp |= {"quality": options.quality} if options.uses_quality else {}
        stamp |= {} if options.has_default_views else {"way": options.way()}
        switches = {key: value for key, value in predictor.speed.set_values().items() if key != "quality"}
        return stamp | ({"speed": switches} if switches else {})


def load_model(
    model: str,
    *,
    heads: Sequence[str] | None = None,
    device: str | None,
    speed: Sequence[str] | None,
    engine: str | None,
    quality: str | None,
) -> "Predictor | ExportedModel":
    """Load a checkpoint, or open an exported file; the arguments are those of ``densevit.load``."""
    from densevit_runtime.runtime import is_exported

    if is_exported(model):
        from densevit.inference.exported import ExportedModel

        return ExportedModel.load(model, heads=heads, device=device, speed=speed, engine=engine, quality=quality)
    from densevit.inference.predictor import Predictor

    # An unknown quality is refused by name.
    asked: Any = quality
    return Predictor.load(model, heads=heads, device=device, speed=speed, engine=engine, quality=asked)


def claim_outputs(outputs: Iterable[Path | None], inputs: Sequence[Path | None] = (), *, overwrite: bool) -> None:
    """Check, before any work, that the outputs may be written; see ``densevit.io.claim``.

    Raises:
        DataError: if one of them would replace an input, or a file that densevit did not write.
    """
    from densevit.io import claim

    read = [path for path in inputs if path is not None]
    claim((path for path in outputs if path is not None), inputs=read, overwrite=overwrite)


def head_names(*options: Sequence[str] | None) -> list[str] | None:
    """The heads that ``--head`` and its old spellings name, each once; None if none is named."""
    texts = [text for option in options for text in option or ()]
    names = [name.strip() for text in texts for name in text.split(",")]
    return list(dict.fromkeys(name for name in names if name)) or None


def numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    """Numbers separated by commas.

    Raises:
        ConfigError: if the text holds anything else.
    """
    from densevit.errors import ConfigError

    try:
        found = tuple(float(part) for part in text.split(","))
        if not all(map(math.isfinite, found)):
            raise ValueError
        return found
    except ValueError:
        raise ConfigError(
            f"{option} got {text!r} but takes numbers separated by commas, for example {option} {example}"
        ) from None


def raster_config(
    windows: "SlidingWindow | None", *, bands: str | None, limits: str | None, scores: bool, file_format: str | None
) -> "RasterConfig":
    """How rasters are streamed.

    Raises:
        ConfigError: if a value is not accepted.
    """
    from densevit.inference.raster.job import RasterConfig

    given: dict[str, Any] = {"scores": scores, "format": file_format}
    if windows is not None:
        given["windows"] = windows
    if bands is not None:
        given["bands"] = numbers(bands, "--bands", "4,3,2")
    if limits is not None:
        given["limits"] = numbers(limits, "--range", "0,3000")
    return RasterConfig.parse(given, source="the set of options --bands, --range and --raster-format")


def is_streamed(image: Path, *, forced: bool) -> bool:
    """Whether an image is streamed: on request, or a TIFF or PNG that is large or georeferenced.

    Raises:
        DataError: if it is not a raster although streaming was requested.
    """
    from densevit.errors import DataError
    from densevit.io import ZipPath
    from densevit.io.gdal import has_rasterio, read_head
    from densevit.io.raster import RASTER_SUFFIXES, STREAMED_PIXELS

    if forced:
        return True
    is_file = image.is_file() and not isinstance(image, ZipPath)
    if image.suffix.lower() not in RASTER_SUFFIXES or not is_file or not has_rasterio():
        return False
    try:
        head = read_head(image)
    except DataError:  # the reader of images will say what is wrong
        return False
    return head.georeferenced or head.size[0] * head.size[1] >= STREAMED_PIXELS
