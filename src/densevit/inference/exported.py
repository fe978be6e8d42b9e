"""An exported file in the place of a ``Predictor``: the commands predict with it, and measure it, as it is."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.checkpoints.native import TrainedOn
from densevit.errors import ConfigError, DataError
from densevit.inference.decode import Decoded
from densevit.inference.pipeline import InferenceOptions
from densevit.inference.raster.job import RasterConfig
from densevit.inference.speed import SpeedConfig
from densevit.inference_config import InferenceConfig, Quality
from densevit.tasks import Depth, Regression, Segmentation, Task
from densevit_runtime.licences import announce
from densevit_runtime.metadata import HeadMetadata
from densevit_runtime.prediction import Prediction
from densevit_runtime.results import SegmentationResult, result_files
from densevit_runtime.runtime import Runtime

_log = logging.getLogger(__name__)

_VIEWS = {"scales": (1.0,), "flip": False, "tta": False}
"""The values of options of views that ask for nothing, where it is not None."""


class ExportedModel:
    """A file that ``densevit export`` has written, with the parts of a ``Predictor`` that it can have.

    Attributes:
        runtime: what runs the file.
        tasks: what each head means.
        heads: the heads that run.
        trained_on: the data that the heads learnt from.
        quality: how images are run, which is part of the file.
        speed: no switches.
        fit: no other way to run images.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        about = runtime.metadata
        self.tasks: dict[str, Task] = {head: task_of(meaning) for head, meaning in about.heads.items()}
        self.heads = tuple(runtime.heads)
        self.trained_on = tuple(
            TrainedOn.parse(data, source=f"'trained_on' in the metadata of {runtime.path}") for data in about.trained_on
        )
        self.quality: Quality = about.quality
        self.speed = SpeedConfig()
        self.fit = InferenceConfig()

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        heads: Sequence[str] | None = None,
        device: str | None = None,
        speed: Any = None,
        engine: str | None = None,
        quality: str | None = None,
    ) -> Self:
        """Open an exported file, with the arguments of ``densevit.load``.

        Raises:
            ConfigError: if there is no such head or engine, or the file cannot follow an argument.
            DataError: if there is no such file.
            CheckpointError: if it is damaged, unsafe, or not an export of densevit.
            EngineError: if the engine is missing, or cannot run the graph.
        """
        given = {"speed": speed or None, "device": None if device == "cpu" else device}
        given["quality"] = None if quality == "fast" else quality
        refuse_options(source, given, {})
        runtime = Runtime.load(source, heads=heads, engine=engine, threads=torch.get_num_threads())
        announce(str(source), runtime.metadata.licence, _log)
        return cls(runtime)

    def only(self, head: str) -> Self:
        """The file with one head, so that nothing else is computed."""
        if self.heads == (head,):
            return self
        runtime, engine = self.runtime, self.runtime.engine
        return type(self)(Runtime.load(runtime.path, heads=[head], engine=engine.name, threads=engine.threads))

    def options(self, *, quality: str | None = None, **views: Any) -> InferenceOptions:
        """The only options that the file can follow: none.

        Raises:
            ConfigError: naming one that is given.
        """
        given = {**views, "quality": None if quality == "fast" else quality}
        refuse_options(self.runtime.path, given, _VIEWS)
        return InferenceOptions(quality=self.quality)

    def predict(self, image: Any, **options: Any) -> Prediction:
        """Run one image, as ``Predictor.predict`` does; the result has the same names.

        Raises:
            ConfigError: if there is an option that the file cannot follow.
            DataError: if the image cannot be read.
            EngineError: if the engine fails.
        """
        self.options(**options)
        return self.runtime.predict(image)

    def decoded(self, image: NDArray[Any]) -> dict[str, Decoded]:
        """What each head predicts for an image (H, W, 3), and how unsure it is, for metrics.

        Raises:
            DataError: if it is not uint8 RGB.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"an image of the data is {image.shape} {image.dtype}, but {self.runtime.path} takes uint8 RGB photos; "
                "measure the checkpoint that it was exported from"
            )
        return {head: _decoded(result.prediction, result) for head, result in self.runtime.predict(image).items()}

    def predict_raster(self, source: str | Path, folder: str | Path, **_: Any) -> dict[str, Any]:
        """Refuse to stream an image.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"{source} is streamed, because it is large or georeferenced, but {self.runtime.path} is an exported file, "
            "which runs photos whole; use the checkpoint that it was exported from, or cut the image into photos"
        )

    def output_files(
        self, source: str | Path, folder: str | Path, *, stem: str, raster: RasterConfig | None = None
    ) -> list[Path]:
        """The files that the results of an image become; none where it would be streamed."""
        if raster is not None:
            return []
        return [Path(folder) / name for name in result_files(self.runtime.heads, stem)]


def task_of(about: HeadMetadata) -> Task:
    """The task that a head's metadata describe.

    Raises:
        ConfigError: if they are not valid.
    """
    depth = {"min_depth_m": about.min_depth_m, "max_depth_m": about.max_depth_m}
    settings: dict[str, dict[str, Any]] = {
        "segmentation": {
            "classes": about.classes,
            "palette": about.palette,
            "ignore_index": about.ignore_index,
            "background": about.background,
            "typical_entropy": about.typical_entropy,
        },
        "depth": {
            "quantity": about.quantity,
            "canonical_focal_px": about.canonical_focal_px,
            **{name: value for name, value in depth.items() if value is not None},
        },
        "regression": {"channels": about.channels, "unit": about.unit or "", "unit_vectors": about.unit_vectors},
    }
    kinds: dict[str, type[Task]] = {"segmentation": Segmentation, "depth": Depth, "regression": Regression}
    return kinds[about.task].parse(settings[about.task], source="the metadata of an exported file")


def refuse_options(source: object, given: Mapping[str, Any], plain: Mapping[str, Any]) -> None:
    """Refuse options that an exported file cannot follow.

    Args:
        source: the file.
        given: options by name.
        plain: the values that ask for nothing, where it is not None.

    Raises:
        ConfigError: naming those with another value.
    """
    if asked := [name for name, value in given.items() if value != plain.get(name)]:
        raise ConfigError(
            f"{source} is an exported file, which runs each photo whole and once on the CPU, so it cannot follow "
            f"{', '.join(asked)}; leave that out, or use the checkpoint that it was exported from"
        )


def _decoded(prediction: NDArray[Any], result: object) -> Decoded:
    # torch has no arithmetic for uint16.
    plain = prediction.astype(np.int32) if prediction.dtype == np.uint16 else np.ascontiguousarray(prediction)
    entropy = result.mean_entropy if isinstance(result, SegmentationResult) else None
    return Decoded(torch.from_numpy(plain), entropy)
