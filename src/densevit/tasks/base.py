"""What a task is: it gives logits their meaning. Class names, palette, units and ranges are defined here, once.

A new task is one file and one row in ``TASKS``: training, evaluation, prediction and streaming ask the task for all
that depends on what is predicted. Only ``kind``, ``target``, ``headline`` and the abstract members have to be written.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densevit.config import Config
from densevit.data.sample import ClassTable, Target
from densevit.data.transforms import Targets
from densevit.types import DenseOutput, Size
from densevit_runtime.colour import Picture, heat


class Metrics(Protocol):
    """Running sums over images; memory does not grow with their number.

    Attributes:
        state: the sums by name; those of several processes are added up.
    """

    state: dict[str, Tensor]

    def update(self, prediction: Tensor, target: Tensor, /) -> None:
        """Add one image, or a batch of them."""
        ...

    def compute(self) -> dict[str, Any]:
        """The metrics by name."""
        ...

    def merge(self, other: Any, /) -> None:
        """Add the sums of metrics of the same task over other images."""
        ...


@dataclass(frozen=True, slots=True)
class ValueFormat:
    """How predicted values are written to a raster: float32 and NaN where there is no data.

    Attributes:
        name: of the values, in the names of files.
        unit: of the values; empty if they have none.
        millimetres: whether they may be stored as 16-bit millimetres instead, with 0 for no data.
    """

    name: str = "values"
    unit: str = ""
    millimetres: bool = False


class Task(Config, ABC):
    """A task and its settings.

    Attributes:
        kind: the tag on disk, the key in ``TASKS``.
        target: what the task reads from a data set.
        averages_probabilities: whether views of an image (scales, mirror images, windows of a protocol) are averaged as
            softmax probabilities; otherwise their values are averaged.
        headline: the metric that ranks models, and whether higher is better.
        error_key: what the colours of the pictures of ``compare`` mean, for the reader of a report.
    """

    target: ClassVar[Target]
    averages_probabilities: ClassVar[bool] = False
    headline: ClassVar[tuple[str, bool]]
    error_key: ClassVar[str] = (
        "Target and prediction have the same scale. Error: from black for none to yellow for the largest."
    )
    kind: str

    @property
    @abstractmethod
    def channel_names(self) -> tuple[str, ...]:
        """What each channel of the logits stands for."""

    @property
    def out_channels(self) -> int:
        """K, the channels that a decoder needs."""
        return len(self.channel_names)

    @property
    def mirrored_channels(self) -> tuple[int, ...]:
        """Channels whose sign changes when the image is mirrored left to right."""
        return ()

    @abstractmethod
    def read_target(self, targets: Targets, classes: ClassTable | None) -> Tensor | None:
        """The target of a sample, in this task's terms; None if the data set has none for it."""

    @abstractmethod
    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """Logits (B, K, h', w') and a batch of targets -> a float32 scalar."""

    @abstractmethod
    def distillation_loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Logits of a model in training and of its teacher, both float32 (B, K, h', w') -> the mean loss, a scalar."""

    @abstractmethod
    def count(self, target: Tensor) -> Tensor:
        """What the loss of a batch of targets is divided by: a float32 scalar, 0 where nothing is known.

        The loss of a large batch is the mean of its parts' losses weighted by their counts, so gradients may be summed
        over parts and processes. That is exact for sums over pixels or images; for losses of the batch as a whole
        (Dice, Lovasz, OHEM, SILog, berHu) each part is treated as a batch.
        """

    def knows(self, target: Tensor) -> bool:
        """Whether anything can be learnt from a batch of targets: a pixel that is neither ignored nor out of range."""
        return bool(self.count(target) > 0)

    @abstractmethod
    def new_metrics(self) -> Metrics:
        """Empty sums."""

    @property
    def image_headline(self) -> tuple[str, bool]:
        """The metric that ranks single images, and whether higher is better."""
        return self.headline

    def compare(self, image: Picture, target: Tensor, prediction: Tensor) -> tuple[Picture, Picture, Picture]:
        """Pictures (H, W, 3) of target, prediction and error; target and prediction share one scale.

        The error is the mean of the channels' differences, yellow from its 98th percentile on.

        Args:
            image: uint8 (H, W, 3).
            target: as ``read_target`` gives it, on the CPU.
            prediction: as ``decode`` gives it, on the CPU.
        """
        both = np.concatenate((target.numpy(), prediction.numpy()), axis=-1)
        if not np.isfinite(both).any():
            both = np.zeros_like(both)
        coloured = self.colourise(both)
        width = target.shape[-1]
        difference = (prediction - target).abs().float()
        error = difference.mean(0).numpy() if difference.ndim == 3 else difference.numpy()
        known = np.isfinite(error)
        top = np.percentile(error[known], 98) if known.any() else 1.0
        return coloured[:, :width], coloured[:, width:], heat(np.where(known, error, 0) / max(float(top), 1e-12))

    def joint_counts(self, metrics: Metrics, target: Tensor, prediction: Tensor) -> Tensor | None:
        """An image's pixels by true (row) and predicted (column) value, int64; None if the task has no such counts.

        Args:
            metrics: of this image only.
            target: as ``read_target`` gives it.
            prediction: as ``decode`` gives it.
        """
        return None

    def report_details(self, counts: Tensor | None) -> dict[str, Any]:
        """What an evaluation's ``details.json`` says of the task; ``counts`` is the sum of ``joint_counts``."""
        return {}

    @abstractmethod
    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Logits (K, h', w') of one image -> what the task predicts, at ``size``: (H, W) or (C, H, W).

        At the size of the logits it works pixel by pixel, so that large images can be decoded in tiles.
        """

    @abstractmethod
    def colourise(self, prediction: NDArray[Any]) -> Picture:
        """What ``decode`` gave -> a picture (H, W, 3)."""

    @property
    def class_table(self) -> ClassTable | None:
        """Names and palette of the classes; None if the task predicts values.

        With classes, predictions are written as labels in the palette's colours, and the softmax of the logits says how
        sure they are.
        """
        return None

    @property
    def value_format(self) -> ValueFormat:
        """How values are written to a raster, for tasks without classes."""
        return ValueFormat()

    def describe(self) -> dict[str, Any]:
        """What the JSON record of a prediction says of the head, besides its files and measurements."""
        return {"task": self.kind}
