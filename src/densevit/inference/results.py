"""Typed results of the heads, computed from the logits on first use, in the image's own size."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference.decode import decode, entropy, mean_entropy, scores
from densevit.inference.tiled_logits import TiledLogits, full
from densevit.tasks import Depth, Regression, Segmentation, Task
from densevit_runtime.colour import Picture, overlay
from densevit_runtime.metadata import Quantity
from densevit_runtime.records import (
    class_shares,
    count_labels,
    depth_files,
    label_files,
    value_files,
    write_depth_files,
    write_label_files,
    write_value_files,
)


@dataclass(frozen=True)
class HeadResult:
    """The result of one head for one image; tasks with attributes of their own have a class below.

    Attributes:
        name: of the head.
        image: uint8 (H, W, 3).
        tiled: the head's logits, of the image's size.
        task: of the head.
        label_offset: what the program whose protocol was followed adds to every label that it writes.
    """

    name: str
    image: Picture
    tiled: TiledLogits
    task: Task
    label_offset: int = 0

    @cached_property
    def logits(self) -> Tensor:
        """(K, h', w') float32 at the decoder's stride; (K, H, W) where windows or views of the image are blended."""
        return full(self.tiled).cpu() if self.tiled.plain is None else self.tiled.plain[0]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def prediction(self) -> NDArray[Any]:
        """What the task predicts: labels or values (H, W), or values (K, H, W)."""
        return decode(self.task, self.tiled).cpu().numpy()

    def colours(self) -> Picture:
        """(H, W, 3): the prediction as the task colours it."""
        return self.task.colourise(self.prediction)

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the image, with edges between labels."""
        labels = None if self.task.class_table is None else self.prediction
        return overlay(self.image, self.colours(), alpha=alpha, labels=labels)

    @staticmethod
    def file_names(task: Task, base: str) -> dict[str, str]:
        """Entry of the record -> name of the file that ``save`` writes; ``base`` is stem and head."""
        if task.class_table is not None:
            return label_files(base)
        return value_files(base)

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write the prediction and a picture of it into a folder.

        With classes they are ``<stem>.<head>.labels.png`` (indexed) and ``.overlay.png``, otherwise
        ``<stem>.<head>.npy`` and ``.colours.png``.

        Returns:
            What the JSON record says of the head.
        """
        base, table = f"{stem}.{self.name}", self.task.class_table
        if table is None:
            return self.task.describe() | write_value_files(Path(folder), base, self.prediction, self.colours())
        entries = write_label_files(Path(folder), base, self.prediction, self.overlay(), table.names, table.palette)
        return self.task.describe() | entries | {"mean_entropy": round(mean_entropy(self.tiled), 4)}


@dataclass(frozen=True)
class SegmentationResult(HeadResult):
    """Labels and how sure they are."""

    task: Segmentation

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return self.task.classes

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W) uint8 (int32 beyond 256 classes): the most likely class."""
        return self.prediction

    @property
    def source_labels(self) -> NDArray[Any]:
        """(H, W): labels as the program whose protocol was followed numbers them; ``class_names`` number otherwise."""
        return self.labels.astype(np.int32) + self.label_offset

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: softmax probability of the label; not calibrated."""
        return scores(self.tiled).cpu().numpy()

    @cached_property
    def entropy(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: entropy of the softmax over that of a uniform one."""
        return entropy(self.tiled).cpu().numpy()

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the image that each class covers, by name; they sum to one."""
        return class_shares(self.class_names, count_labels(self.labels, len(self.class_names)))

    @cached_property
    def mean_entropy(self) -> float:
        """In [0, 1]: how unsure the head is of the image as a whole."""
        return mean_entropy(self.tiled)

    @property
    def excess_entropy(self) -> float:
        """``mean_entropy`` less what is typical of the head on images of its own kind."""
        return self.mean_entropy - self.task.typical_entropy


@dataclass(frozen=True)
class DepthResult(HeadResult):
    """Depth with its quantity and unit."""

    task: Depth

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) float32: metres for "depth"; no unit for "relative_depth", and for "disparity" (larger is nearer)."""
        return self.prediction

    @property
    def quantity(self) -> Quantity:
        """What the values are."""
        return self.task.quantity

    @property
    def unit(self) -> str:
        """Metres, "m", for depth; "" for what is relative."""
        return self.task.unit

    @staticmethod
    def file_names(task: Task, base: str) -> dict[str, str]:
        """Entry of the record -> name of the file that ``save`` writes; ``base`` is stem and head."""
        return depth_files(base, task.value_format.name)

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.mm.png`` (16-bit, millimetres), or values without unit over their range.

        Those are in ``.disparity.png`` or ``.relative_depth.png``. The picture is ``<stem>.<head>.colours.png``.
        Returns what the JSON record says of the head.
        """
        base = f"{stem}.{self.name}"
        entries = write_depth_files(Path(folder), base, self.depth, self.colours(), self.quantity)
        return self.task.describe() | entries


@dataclass(frozen=True)
class RegressionResult(HeadResult):
    """Any values per pixel."""

    task: Regression

    @property
    def values(self) -> NDArray[np.float32]:
        """(K, H, W) float32."""
        return self.prediction

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.npy`` (K, H, W) and ``.colours.png``; returns what the JSON record says of the head."""
        return {**super().save(folder, stem), "channels": list(self.task.channels)}


RESULTS: dict[str, type[HeadResult]] = {
    "segmentation": SegmentationResult,
    "depth": DepthResult,
    "regression": RegressionResult,
}
"""The kinds of task whose results have attributes of their own; ``HeadResult`` serves all others."""


def result_files(tasks: Mapping[str, Task], stem: str) -> list[str]:
    """The names of all files that ``Prediction.save`` writes for some heads."""
    files = [
        name
        for head, task in tasks.items()
        for name in RESULTS.get(task.kind, HeadResult).file_names(task, f"{stem}.{head}").values()
    ]
    return [*files, f"{stem}.json"]


def head_result(name: str, task: Task, image: Picture, tiled: TiledLogits, *, label_offset: int = 0) -> HeadResult:
    """The result of a head, of the class that belongs to its task."""
    return RESULTS.get(task.kind, HeadResult)(name, image, tiled, task, label_offset)
