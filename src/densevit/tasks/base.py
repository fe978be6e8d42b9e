"""What a task is: it gives logits their meaning. Class names, palette, units and ranges live here, once."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densevit.config import Config
from densevit.data.sample import ClassTable, Target
from densevit.data.transforms import Example
from densevit.types import DenseOutput, Size


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
        """The figures by name."""
        ...

    def merge(self, other: Any, /) -> None:
        """Add the sums of metrics of the same task that have seen other images."""
        ...


class Task(Config, ABC):
    """A task and its settings.

    Attributes:
        kind: the tag on disk, the key in ``TASKS``.
        target: what the task reads from a data set.
    """

    target: ClassVar[Target]
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
    @abstractmethod
    def headline(self) -> tuple[str, bool]:
        """The figure that ranks models, and whether higher is better."""

    @abstractmethod
    def read_target(self, example: Example, classes: ClassTable | None) -> Tensor | None:
        """The target of an example, in this task's terms; None if the data set has none for it."""

    @abstractmethod
    def loss(self, output: DenseOutput, target: Tensor, *, align_corners: bool) -> Tensor:
        """Logits (B, K, h', w') and a batch of targets -> a float32 scalar."""

    @abstractmethod
    def distillation_loss(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Logits of a model in training and of its teacher, both float32 (B, K, h', w') -> the mean loss, a scalar."""

    @abstractmethod
    def count(self, target: Tensor) -> Tensor:
        """What the loss of a batch of targets divides by: a float32 scalar, 0 where nothing is known.

        The loss of a large batch is the mean of its parts' losses weighted by their counts, so gradients may be summed
        over parts and processes. That is exact for sums over pixels or images; for losses of the batch as a whole
        (Dice, Lovasz, OHEM, SILog, berHu) each part is a batch of its own.
        """

    @abstractmethod
    def new_metrics(self) -> Metrics:
        """Empty sums."""

    @abstractmethod
    def decode(self, logits: Tensor, size: Size, *, align_corners: bool) -> Tensor:
        """Logits (K, h', w') of one image -> what the task predicts, at ``size``."""

    @abstractmethod
    def colourise(self, prediction: NDArray[Any]) -> NDArray[np.uint8]:
        """What ``decode`` gave -> a picture (H, W, 3)."""
