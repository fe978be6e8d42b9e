"""Our own way from a photo to what each head says of it: whole or by windows, at several scales, mirrored or not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat

from densevit.config import Config
from densevit.inference.separable_resize import Resize
from densevit.inference.sliding_window import SlidingWindow, SlidingWindowRunner
from densevit.inference.tiled_logits import TiledLogits, whole
from densevit.inference.tta import TtaMean
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.tasks import Regression, Segmentation, Task


class InferenceOptions(Config):
    """How a photo is run, but for the published programs' ways.

    Attributes:
        windows: run it window by window at its own pixels; none shrinks it to the size of training.
        scales: factors on the input size, whose results are averaged.
        flip: average each with that of the mirrored photo.
    """

    windows: SlidingWindow | None = None
    scales: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    flip: bool = False

    @property
    def plain_pass(self) -> bool:
        """One pass over the whole photo."""
        return self.windows is None and self.scales == (1.0,) and not self.flip


Pass = Callable[[NDArray[np.uint8], float], dict[str, TiledLogits]]
"""A photo (H, W, C) and a factor on the size at which it is seen -> per head its field, of the photo's size."""


@dataclass(frozen=True)
class Runner:
    """A model with the tasks of the heads that run."""

    model: DenseModel
    tasks: Mapping[str, Task]
    fit: InferenceConfig

    @torch.inference_mode()
    def fields(self, way: InferenceOptions, photo: NDArray[np.uint8]) -> dict[str, TiledLogits]:
        """Per head its field, of the photo's size: probabilities averaged for labels, else values."""
        if way.windows is not None:
            return self._mean(way, way.flip, photo, self._in_windows(way.windows))
        found: dict[str, TiledLogits] = {}
        for fit, heads in self.fit.passes(self.tasks):
            found |= self._mean(way, way.flip or fit.flip, photo, partial(self._fitted, fit, heads))
        return {name: found[name] for name in self.tasks}

    def _mean(
        self, way: InferenceOptions, flip: bool, photo: NDArray[np.uint8], one_pass: Pass
    ) -> dict[str, TiledLogits]:
        """The mean over scales, each as it is and, with ``flip``, mirrored."""
        running: dict[str, TtaMean] = {}
        for scale, mirrored in product(way.scales, (False, True) if flip else (False,)):
            seen = np.ascontiguousarray(photo[:, ::-1]) if mirrored else photo
            for name, field in one_pass(seen, scale).items():
                task = self.tasks[name]
                turned = mirrored and isinstance(task, Regression) and task.unit_vectors
                mean = running.setdefault(name, TtaMean(probabilities=isinstance(task, Segmentation)))
                mean.add(field.negated(0) if turned else field, mirrored=mirrored)
        return {name: mean.mean() for name, mean in running.items()}

    def _in_windows(self, windows: SlidingWindow) -> Pass:
        """Windows at the photo's own pixels, each encoded once for all heads."""
        runner = SlidingWindowRunner(self.model, tuple(self.tasks), windows)
        return lambda photo, scale: runner.fields(photo, self.fit, scale=scale)

    def _fitted(
        self, fit: InferenceConfig, heads: tuple[str, ...], photo: NDArray[np.uint8], scale: float
    ) -> dict[str, TiledLogits]:
        """The photo at the size of training, whole or in windows."""
        size, patch = (photo.shape[0], photo.shape[1]), self.model.config.encoder.patch_size
        plain = fit.size_for(size, patch)
        height, width = (max(round(n * scale / p), 1) * p for n, p in zip(plain, patch, strict=True))
        if fit.window is not None:
            runner = SlidingWindowRunner(self.model, heads, SlidingWindow(overlap=fit.window // 2))
            return runner.fields_at((height, width), photo, fit.at(fit.window))
        pixels = fit_image(photo, (height, width))[None].to(self.model.mean.device)
        found: dict[str, TiledLogits] = {}
        for name, output in self.model(pixels, heads).items():
            logits, corners = output.logits[0].float(), self.model.decoder(name).align_corners
            resizes = [
                (Resize(old, new, align_corners=corners),) for old, new in zip(logits.shape[-2:], size, strict=True)
            ]
            found[name] = whole(logits, resizes[0], resizes[1])
        return found
