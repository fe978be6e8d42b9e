"""Predictor: a photo of any kind and size in, typed results out. The CLI, a server and the examples all call it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from densevit.checkpoints.native import Bundle, Card, TrainedOn
from densevit.checkpoints.open import open_model, open_pretrained
from densevit.config import nearest
from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit.inference import protocols
from densevit.inference.batching import Batch, Pixels, run_many
from densevit.inference.features import Features, extract_features
from densevit.inference.pipeline import InferenceOptions, predict_batch
from densevit.inference.prediction import Prediction, make_predictions
from densevit.inference.raster.job import RasterConfig, RasterJob
from densevit.inference.raster.outputs import plan_outputs
from densevit.inference.results import result_files
from densevit.inference.saving import Saving
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference.speed import SpeedConfig, apply_speed, check_quality, read_speed
from densevit.inference.speed_engine import check_movable, use_speed
from densevit.inference_config import DEFAULT_QUALITY, InferenceConfig, Protocol, Quality, WholeProtocol
from densevit.io import as_image
from densevit.io.gdal import read_head
from densevit.model import DenseModel
from densevit.tasks import Task


class Predictor(Saving):
    """A model that is ready to predict.

    Attributes:
        model: the network, in evaluation mode.
        tasks: what each head means.
        fit: how the checkpoint wants images to be run.
        card: provenance, licence and metrics of the weights.
        heads: the heads that run.
        protocol: how the program that the weights come from runs images; None for densevit's own weights.
        trained_on: the data that the heads learnt from, as far as the checkpoint says.
        quality: how images are run where ``fit`` knows two ways, "fast" or "best".
        speed: the switches that are on, the engine included.
        device: on which the model runs.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        heads: Sequence[str] | None = None,
        device: str | None = None,
        speed: SpeedConfig | None = None,
    ) -> None:
        self.speed = speed or SpeedConfig()
        bundle = apply_speed(bundle, self.speed)
        self.heads = (heads,) if isinstance(heads, str) else tuple(heads or bundle.tasks)
        if unknown := [head for head in self.heads if head not in bundle.tasks]:
            raise ConfigError(f"there is no head {unknown[0]!r}{nearest(unknown[0], bundle.tasks)}")
        self.device = pick_device(device)
        self.model: DenseModel = use_speed(bundle.model.eval().to(self.device), self.speed)
        self.tasks: dict[str, Task] = bundle.tasks
        self.fit: InferenceConfig = bundle.fit
        self.quality: Quality = self.speed.quality or DEFAULT_QUALITY
        check_quality(self.speed, self.fit, self.heads)
        self.card: Card = bundle.card
        self.protocol: Protocol | None = bundle.protocol
        self.trained_on: tuple[TrainedOn, ...] = bundle.trained_on

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        heads: Sequence[str] | None = None,
        device: str | None = None,
        speed: SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None = None,
        engine: str | None = None,
        quality: Quality | None = None,
        **import_overrides: Any,
    ) -> Self:
        """Load a model that is ready to predict; see ``densevit.load`` for arguments and errors."""
        bundle = open_model(source, **import_overrides)
        switches = read_speed(speed, engine=engine, quality=quality)
        return cls(bundle, heads=heads, device=device, speed=switches)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        heads: Sequence[str] | None = None,
        device: str | None = None,
        speed: SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None = None,
        engine: str | None = None,
        quality: Quality | None = None,
        **import_overrides: Any,
    ) -> Self:
        """Load a folder or a repository of the hub; see ``densevit.from_pretrained`` for arguments and errors."""
        name = pretrained_model_name_or_path
        bundle = open_pretrained(name, revision=revision, token=token, cache_dir=cache_dir, **import_overrides)
        switches = read_speed(speed, engine=engine, quality=quality)
        return cls(bundle, heads=heads, device=device, speed=switches)

    def options(
        self,
        *,
        protocol: str | Protocol | None = None,
        tta: bool = False,
        windows: SlidingWindow | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        quality: Quality | None = None,
    ) -> InferenceOptions:
        """The ``InferenceOptions`` of ``predict``'s keywords.

        Raises:
            ConfigError: if there is no such protocol, or the options exclude each other.
        """
        chosen = None if protocol is None else self.choose_protocol(protocol)
        views = {"windows": windows, "scales": tuple(scales), "flip": flip, "protocol": chosen, "tta": tta}
        options = {**views, "quality": self.quality if quality is None else quality}
        return InferenceOptions.parse(options, source="the set of inference options")

    def predict(
        self,
        image: Any,
        *,
        protocol: str | Protocol | None = None,
        tta: bool = False,
        windows: SlidingWindow | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        quality: Quality | None = None,
    ) -> Prediction:
        """Run one image through the model; heads that see it in the same way share one encoder pass.

        Args:
            image: a path, PIL image, array (H, W[, 3]) or tensor; see ``densevit.io.as_image``.
            protocol: run it exactly as a published program does: "segmenter", "mmseg", "setr", "dpt", "transformers",
                "depth_anything", or a protocol with settings of your own. None runs it as ``fit`` says.
            tta: average the protocol's scales, each mirrored too.
            windows: run sliding windows at the image's own pixels.
            scales: factors on the input size, whose results are averaged: probabilities for labels, else values.
            flip: also average with the result for the mirrored image.
            quality: "fast" or "best", for this image; by default the predictor's. It sets the sizes that scales and
                flip apply to; windows and a protocol have their own.

        Raises:
            DataError: if the image cannot be read.
            ConfigError: if there is no such protocol, the options exclude each other, or windows do not suit the model.
        """
        options = self.options(protocol=protocol, tta=tta, windows=windows, scales=scales, flip=flip, quality=quality)
        return self._run([as_image(image)], options)[0]

    def predict_many(
        self,
        images: Iterable[Any],
        *,
        batch: Batch = "auto",
        protocol: str | Protocol | None = None,
        tta: bool = False,
        windows: SlidingWindow | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        quality: Quality | None = None,
    ) -> Iterator[Prediction]:
        """Run images one after the other; an iterator in their order, which reads an image when it needs it.

        Images of one size that follow each other are run together, up to ``batch`` of them, by heads that see images
        whole. Then floats differ from those of ``predict`` by rounding; in batches of one they are equal.

        Args:
            images: any iterable of what ``predict`` takes, or an array or tensor (B, C, H, W), (B, H, W, C) or
                (B, H, W).
            batch: images at a time; "auto" is 1 on a CPU, where only tiny images gain from more, and on a GPU what its
                free memory holds.
            protocol: this and the others as for ``predict``.
            tta: see there.
            windows: see there.
            scales: see there.
            flip: see there.
            quality: see there.

        Raises:
            DataError: at once if this is a single image; from the iterator, after the results of the images before
                it, if an image cannot be read: the message says which.
            ConfigError: as ``predict``, at once.
        """
        options = self.options(protocol=protocol, tta=tta, windows=windows, scales=scales, flip=flip, quality=quality)
        options.check_tasks({head: self.tasks[head] for head in self.heads})
        return run_many(images, lambda pixels: self._run(pixels, options), batch, self.device)

    def _run(self, images: Sequence[Pixels], options: InferenceOptions) -> list[Prediction]:
        """Images of one size -> their predictions."""
        tasks = {head: self.tasks[head] for head in self.heads}
        label_offset = options.protocol.label_offset if isinstance(options.protocol, WholeProtocol) else 0
        outputs = predict_batch(self.model, tasks, images, self.fit, options)
        return make_predictions(tasks, images, outputs, label_offset=label_offset)

    def features(self, image: Any, *, short_side: int | None = None) -> Features:
        """What the encoder makes of an image, run whole and once: a map (C, h, w) for each tapped block.

        Args:
            image: as for ``predict``.
            short_side: of the image at the encoder, in pixels; that of ``fit`` by default.

        Raises:
            DataError: if the image cannot be read.
            ConfigError: if it would be enlarged beyond ``densevit.limits``.
        """
        config = self.fit if short_side is None else self.fit.at(short_side)
        return extract_features(self.model, as_image(image), config)

    def to(self, device: str) -> Self:
        """Move the model to a device, "cpu" or "cuda"; returns the predictor itself.

        Raises:
            ConfigError: if there is no such device here, or an engine or precision has made the model for the old one.
        """
        wanted = pick_device(device)
        if wanted != self.device:
            check_movable(self.speed, self.device, device)
        self.model, self.device = self.model.to(wanted), wanted
        return self

    def predict_raster(
        self,
        source: str | Path,
        folder: str | Path,
        *,
        config: RasterConfig | None = None,
        stem: str | None = None,
        extra: dict[str, Any] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Stream an image that is larger than memory through every head, window by window, into rasters of its size.

        Results equal those of ``predict(windows=...)``; georeference and nodata are kept. After a kill the same call
        continues where it stopped. It needs rasterio: ``pip install 'densevit[raster]'``.

        Args:
            source: a GeoTIFF, COG, TIFF or PNG.
            folder: for ``<stem>.<head>.labels.tif`` and the others, and ``<stem>.json``; created if it does not exist.
            config: windows, bands, values, formats.
            stem: start of the files' names; that of the source by default.
            extra: further entries of the record.
            progress: called with (strips done, strips).

        Returns:
            The record that was written.

        Raises:
            DataError: if the source cannot be read, or the results cannot be written; no partial result is left.
            ConfigError: if windows do not suit the model.
        """
        tasks = {name: self.tasks[name] for name in self.heads}
        job = RasterJob(self.model, tasks, self.fit, config or RasterConfig(), Path(folder), stem or Path(source).stem)
        return job.run(Path(source), extra=extra, progress=progress)

    def output_files(
        self, source: str | Path, folder: str | Path, *, stem: str, raster: RasterConfig | None = None
    ) -> list[Path]:
        """The files that the results of an image become.

        Args:
            source: the image.
            folder: for the files.
            stem: start of their names.
            raster: how the image is streamed, if it is.

        Raises:
            DataError: if a raster cannot be read.
            ConfigError: if its values cannot be written as asked.
        """
        tasks = {name: self.tasks[name] for name in self.heads}
        if raster is None:
            return [Path(folder) / name for name in result_files(tasks, stem)]
        planned = plan_outputs(raster, tasks, read_head(Path(source)), Path(folder) / stem)
        return [*(output.file.path for output in planned), Path(folder) / f"{stem}.json"]

    def choose_protocol(self, protocol: str | Protocol) -> Protocol:
        """The protocol of a name, with the settings stored with the weights if they are of this kind.

        Raises:
            ConfigError: if there is none.
        """
        if isinstance(protocol, str):
            return protocols.choose(protocol, self.protocol, self.model.config)
        return protocol

    def __repr__(self) -> str:
        heads = ", ".join(f"{name} ({self.tasks[name].kind})" for name in self.heads)
        name, millions = self.card.name or "unnamed", self.model.num_parameters() / 1e6
        return f"Predictor({name}: {heads}; {millions:.1f} M parameters)"
