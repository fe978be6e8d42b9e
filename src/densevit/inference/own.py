"""Our own way from a photo to what each head says of it: whole or by windows, at several scales, mirrored or not."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field as Key
from pydantic import PositiveFloat

from densevit.config import Config
from densevit.inference.axes import Resize
from densevit.inference.fields import Field
from densevit.inference.sliding import whole
from densevit.inference.tta import Running
from densevit.inference.windows import WindowConfig, WindowRunner
from densevit.model import DenseModel
from densevit.pixels import FitConfig, fit_photo
from densevit.tasks import Regression, Segmentation, Task


class OwnWay(Config):
    """How a photo is run, but for the published programs' ways.

    Attributes:
        windows: run it window by window at its own pixels; none shrinks it to the size of training.
        scales: factors on the input size, whose results are averaged.
        flip: average each with that of the mirrored photo.
    """

    windows: WindowConfig | None = None
    scales: tuple[PositiveFloat, ...] = Key(default=(1.0,), min_length=1)
    flip: bool = False

    @property
    def plain_pass(self) -> bool:
        """One pass over the whole photo."""
        return self.windows is None and self.scales == (1.0,) and not self.flip


@dataclass(frozen=True)
class Runner:
    """A model with the tasks of the heads that run."""

    model: DenseModel
    tasks: Mapping[str, Task]
    fit: FitConfig

    @torch.inference_mode()
    def fields(self, way: OwnWay, photo: NDArray[np.uint8]) -> dict[str, Field]:
        """Per head its field, of the photo's size: probabilities averaged for labels, else values."""
        running = {name: Running(probabilities=isinstance(task, Segmentation)) for name, task in self.tasks.items()}
        for scale, mirrored in views(way):
            seen = np.ascontiguousarray(photo[:, ::-1]) if mirrored else photo
            if way.windows is None:
                found = self._whole(seen, scale)
            else:
                found = WindowRunner(self.model, tuple(self.tasks), way.windows).fields(seen, self.fit, scale=scale)
            for name, field in found.items():
                task = self.tasks[name]
                turned = mirrored and isinstance(task, Regression) and task.unit_vectors
                running[name].add(field.negated(0) if turned else field, mirrored=mirrored)
        return {name: views.mean() for name, views in running.items()}

    def _whole(self, photo: NDArray[np.uint8], scale: float) -> dict[str, Field]:
        size, patch = (photo.shape[0], photo.shape[1]), self.model.config.encoder.patch_size
        found: dict[str, Field] = {}
        for fit, heads in self.fit.passes(self.tasks):
            plain = fit.size_for(size, patch)
            height, width = (max(round(n * scale / p), 1) * p for n, p in zip(plain, patch, strict=True))
            pixels = fit_photo(photo, (height, width))[None].to(self.model.mean.device)
            for name, output in self.model(pixels, heads).items():
                logits, corners = output.logits[0].float(), self.model.decoder(name).align_corners
                resizes = [
                    (Resize(old, new, align_corners=corners),) for old, new in zip(logits.shape[-2:], size, strict=True)
                ]
                found[name] = whole(logits, resizes[0], resizes[1])
        return found


def views(way: OwnWay) -> Iterator[tuple[float, bool]]:
    """The scales, each as it is and, with ``flip``, mirrored."""
    for scale in way.scales:
        yield scale, False
        if way.flip:
            yield scale, True
