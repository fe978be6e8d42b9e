"""Predictor: a photo of any kind and size in, typed results out. The CLI, a server and the examples all call it."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle, Card
from densevit.checkpoints.open import open_model
from densevit.config import nearest
from densevit.device import pick_device
from densevit.errors import ConfigError
from densevit.inference import protocols
from densevit.inference.decode import Source
from densevit.inference.pipeline import InferenceOptions, Runner
from densevit.inference.prediction import Prediction
from densevit.inference.protocols import Protocol
from densevit.inference.raster.job import RasterConfig, RasterJob
from densevit.inference.results import HeadResult, head_result
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference.speed import SpeedConfig, apply_speed, read_speed
from densevit.inference_config import InferenceConfig, WholeProtocol
from densevit.io import as_image
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.tasks import Task

_log = logging.getLogger(__name__)


class Predictor:
    """A model ready to predict.

    Attributes:
        model: the network, in evaluation mode.
        tasks: what each head means.
        fit: how photos are brought to the encoder.
        card: provenance, licence and figures of the weights.
        heads: the heads that run.
        protocol: how the program that the weights come from runs them; none for our own.
        speed: the switches that are on.
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
        wanted = (heads,) if isinstance(heads, str) else tuple(heads or bundle.tasks)
        if unknown := [head for head in wanted if head not in bundle.tasks]:
            raise ConfigError(f"there is no head {unknown[0]!r}{nearest(unknown[0], bundle.tasks)}")
        self.device = pick_device(device)
        self.model: DenseModel = bundle.model.eval().to(self.device)
        self.tasks: dict[str, Task] = bundle.tasks
        self.fit: InferenceConfig = bundle.fit
        self.card: Card = bundle.card
        self.heads = wanted
        self.protocol: Protocol | None = bundle.protocol

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        heads: Sequence[str] | None = None,
        device: str | None = None,
        speed: SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None = None,
        **answers: Any,
    ) -> Self:
        """From "default", a preset's name (random weights, with a warning), or weights in any known format.

        Weights are a densevit checkpoint, or those of Segmenter, SETR, mmsegmentation, DPT, Depth Anything or
        transformers: a file, a folder with its config, or ``hf://owner/name``.

        Args:
            source: what to load.
            heads: to run; all by default.
            device: by default a GPU if there is one.
            speed: switches that make it cheaper: a ``SpeedConfig``, its plain data, or a YAML file with it.
            answers: facts that weights of others do not tell, such as ``num_heads``; see
                ``densevit.checkpoints.importers.ImportOverrides``. An error asks for them by name.

        Raises:
            CheckpointError: if the file cannot be used.
            ConfigError: if a head or an answer does not exist, or the model cannot take a switch of ``speed``.
        """
        options: dict[str, Any] = {"heads": heads, "device": device, "speed": read_speed(speed)}
        return cls(open_model(source, **answers), **options)

    def predict(
        self,
        image: Any,
        *,
        protocol: str | Protocol | None = None,
        tta: bool = False,
        windows: SlidingWindow | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> Prediction:
        """Run one photo through the encoder, once for all heads that see it in one way, and through every head.

        Args:
            image: a path, PIL image, array (H, W[, 3]) or tensor; see ``densevit.io.as_image``.
            protocol: run it exactly as a published program does: "segmenter", "mmseg", "setr", "dpt", "transformers",
                "depth_anything", or one with facts of your own. None is our own way, which
                ``fit`` says: one pass and one resize, unless a head has windows or a mirror image.
            tta: average the protocol's scales, each mirrored too.
            windows: run it window by window at its own pixels, in our own way.
            scales: factors on the input size in our own way, whose results are averaged: probabilities for labels,
                else values.
            flip: average each with that of the mirrored photo.

        Raises:
            DataError: if the photo cannot be read.
            ConfigError: if there is no such protocol, no test-time augmentation in it, or windows do not fit the model.
        """
        photo = as_image(image)
        way = InferenceOptions.parse({"windows": windows, "scales": tuple(scales), "flip": flip}, source="predict")
        if protocol is not None:
            if not way.plain_pass:
                raise ConfigError(
                    "windows, scales or flip are given with a protocol, which has its own; leave them or it out"
                )
            return self._predict_by(self.choose_protocol(protocol), photo, tta)
        if tta:
            raise ConfigError(
                "tta is on but no protocol is named; test-time augmentation is a protocol's; name one, or give scales"
            )
        if not way.plain_pass:
            return Prediction(photo, self._run(way, self.heads, photo))
        results: dict[str, HeadResult] = {}
        for fit, heads in self.fit.passes(self.heads):
            if not fit.single_pass:
                results |= self._run(way, heads, photo)
                continue
            size = fit.size_for((photo.shape[0], photo.shape[1]), self.model.config.encoder.patch_size)
            pixels = fit_image(photo, size)[None].to(self.device)
            with torch.inference_mode():
                outputs = self.model(pixels, heads, coarse=size == photo.shape[:2])
            results |= {name: self._result(name, photo, output.logits[0].float()) for name, output in outputs.items()}
        return Prediction(photo, {name: results[name] for name in self.heads})

    def _run(self, way: InferenceOptions, heads: Sequence[str], photo: NDArray[np.uint8]) -> dict[str, HeadResult]:
        fields = Runner(self.model, {name: self.tasks[name] for name in heads}, self.fit).fields(way, photo)
        return {name: self._result(name, photo, field) for name, field in fields.items()}

    def _result(self, name: str, photo: NDArray[np.uint8], source: Source) -> HeadResult:
        return head_result(name, self.tasks[name], photo, source, align_corners=self.model.decoder(name).align_corners)

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
        """Stream an image beyond memory through every head, window by window, into rasters of its size.

        Results equal those of ``predict(windows=...)``; georeference and nodata are kept. After a kill the same call
        goes on where it stopped. It needs rasterio: ``pip install 'densevit[raster]'``.

        Args:
            source: a GeoTIFF, COG, TIFF or PNG.
            folder: for ``<stem>.<head>.labels.tif`` and the others, and ``<stem>.json``; made if it does not exist.
            config: windows, bands, values, formats.
            stem: how the files' names begin; that of the source by default.
            extra: further entries of the record.
            progress: called with (strips done, strips).

        Returns:
            The record that was written.

        Raises:
            DataError: if the source cannot be read, or the results cannot be written; no result is then left half.
            ConfigError: if windows do not fit the model.
        """
        tasks = {name: self.tasks[name] for name in self.heads}
        job = RasterJob(self.model, tasks, self.fit, config or RasterConfig(), Path(folder), stem or Path(source).stem)
        return job.run(Path(source), extra=extra, progress=progress)

    def choose_protocol(self, protocol: str | Protocol) -> Protocol:
        """The protocol of a name, with the facts that came with the weights if they are of this kind.

        Raises:
            ConfigError: if there is none.
        """
        if isinstance(protocol, str):
            return protocols.choose(protocol, self.protocol, self.model.config)
        return protocol

    def _predict_by(self, protocol: Protocol, photo: NDArray[np.uint8], tta: bool) -> Prediction:
        offset = protocol.label_offset if isinstance(protocol, WholeProtocol) else 0
        results = {}
        for name in self.heads:
            task = self.tasks[name]
            field = protocols.field(protocol, self.model, name, task, photo, tta=tta)
            results[name] = head_result(name, task, photo, field, align_corners=False, label_offset=offset)
        return Prediction(photo, results)

    def __repr__(self) -> str:
        heads = ", ".join(f"{name} ({self.tasks[name].kind})" for name in self.heads)
        return (
            f"Predictor({self.card.name or 'unnamed'}: {heads}; {self.model.num_parameters() / 1e6:.1f} M parameters)"
        )
