"""Typed results of the heads of an exported file, at the size of the photo; named as densevit's own."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit_runtime import records
from densevit_runtime.colour import Picture, colourise_depth, colourise_labels, colourise_values, overlay
from densevit_runtime.errors import CheckpointError
from densevit_runtime.metadata import HeadMetadata, Quantity, output_names


@dataclass(frozen=True)
class HeadResult(ABC):
    """The result of one head for one photo.

    Attributes:
        name: of the head.
        image: uint8 (H, W, 3).
        about: meaning of the head.
        prediction: labels or depth (H, W), or values (C, H, W).
    """

    name: str
    image: Picture
    about: HeadMetadata
    prediction: NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.image.shape[0], self.image.shape[1]

    @abstractmethod
    def colours(self) -> Picture:
        """(H, W, 3): the prediction in colours."""

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the photo, with edges between labels."""
        return overlay(self.image, self.colours(), alpha=alpha)

    @staticmethod
    @abstractmethod
    def file_names(about: HeadMetadata, base: str) -> dict[str, str]:
        """Entry of the record -> name of the file that ``save`` writes; ``base`` is stem and head."""

    @abstractmethod
    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write the prediction and a picture of it; returns what the JSON record says of the head."""


@dataclass(frozen=True)
class SegmentationResult(HeadResult):
    """Labels.

    Attributes:
        scores: (H, W) float32 in [0, 1], the probability of each label; None if the file has no scores.
        mean_entropy: in [0, 1], how unsure the head is of the photo as a whole; None if the file does not give it.
    """

    scores: NDArray[np.float32] | None = None
    mean_entropy: float | None = None

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W) uint8, uint16 or int32: the most likely class."""
        return self.prediction

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return self.about.classes

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the photo that each class covers, by name; they sum to one."""
        return records.class_shares(self.class_names, records.count_labels(self.labels, len(self.class_names)))

    def colours(self) -> Picture:
        """(H, W, 3): labels in the palette's colours."""
        return colourise_labels(self.labels, self.about.palette, ignore_index=self.about.ignore_index)

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the photo, with edges between labels."""
        return overlay(self.image, self.colours(), alpha=alpha, labels=self.labels)

    @staticmethod
    def file_names(about: HeadMetadata, base: str) -> dict[str, str]:
        """Labels and overlay."""
        return records.label_files(base)

    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.labels.png`` (indexed) and ``.overlay.png``."""
        entries = records.write_label_files(
            folder, f"{stem}.{self.name}", self.labels, self.overlay(), self.class_names, self.about.palette
        )
        entropy = {} if self.mean_entropy is None else {"mean_entropy": round(self.mean_entropy, 4)}
        return {"task": "segmentation", "classes": list(self.class_names)} | entries | entropy


@dataclass(frozen=True)
class DepthResult(HeadResult):
    """Depth with its quantity and unit."""

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) float32: metres for "depth"; no unit for "relative_depth", and for "disparity" (larger is nearer)."""
        return self.prediction

    @property
    def quantity(self) -> Quantity:
        """What the values are."""
        return self.about.quantity

    @property
    def unit(self) -> str:
        """Metres, "m", for depth; "" for what is relative."""
        return self.about.unit or ""

    def colours(self) -> Picture:
        """(H, W, 3): near is bright."""
        return colourise_depth(self.depth, near="large" if self.about.relative else "small")

    @staticmethod
    def file_names(about: HeadMetadata, base: str) -> dict[str, str]:
        """Values and colours."""
        return records.depth_files(base, about.quantity)

    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.mm.png`` (16-bit, millimetres) or ``.disparity.png`` (over its range), and colours.

        ``.relative_depth.png`` takes the place of the latter for values without unit that are larger farther away.
        """
        focal = self.about.canonical_focal_px
        entries = records.write_depth_files(folder, f"{stem}.{self.name}", self.depth, self.colours(), self.quantity)
        about = {"task": "depth", "quantity": self.quantity, "unit": self.unit}
        return about | ({} if focal is None else {"canonical_focal_px": focal}) | entries


@dataclass(frozen=True)
class RegressionResult(HeadResult):
    """Any values per pixel."""

    @property
    def values(self) -> NDArray[np.float32]:
        """(C, H, W) float32."""
        return self.prediction

    def colours(self) -> Picture:
        """(H, W, 3): the first three channels as red, green and blue."""
        return colourise_values(self.values, unit_vectors=self.about.unit_vectors)

    @staticmethod
    def file_names(about: HeadMetadata, base: str) -> dict[str, str]:
        """Values and colours."""
        return records.value_files(base)

    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.npy`` (C, H, W) and ``.colours.png``."""
        entries = records.write_value_files(folder, f"{stem}.{self.name}", self.values, self.colours())
        return {"task": "regression"} | entries | {"channels": list(self.about.channels)}


RESULTS: dict[str, type[HeadResult]] = {
    "segmentation": SegmentationResult,
    "depth": DepthResult,
    "regression": RegressionResult,
}


def result_files(heads: Mapping[str, HeadMetadata], stem: str) -> list[str]:
    """The names of all files that ``Prediction.save`` writes for some heads."""
    files = [
        name
        for head, about in heads.items()
        for name in RESULTS[about.task].file_names(about, f"{stem}.{head}").values()
    ]
    return [*files, f"{stem}.json"]


def head_result(
    name: str, about: HeadMetadata, image: Picture, outputs: Mapping[str, NDArray[Any]], number: int = 0
) -> HeadResult:
    """The result of a head from the outputs of the graph for a batch, of which ``image`` is the one of this number.

    Raises:
        CheckpointError: if an output has another size than the photo, or a label is no class.
    """
    height, width = image.shape[:2]
    for output in output_names(name, about):
        expected: tuple[int, ...] = () if output == f"{name}.entropy" else (height, width)
        expected = (len(about.channels), *expected) if about.task == "regression" else expected
        if (shape := outputs[output][number].shape) != expected:
            raise CheckpointError(
                f"output {output!r} has the shape {shape} for an image of {height} x {width}, where {expected} is "
                "expected; export the model again"
            )
    found = outputs[name][number]
    if about.task != "segmentation":
        return RESULTS[about.task](name, image, about, found)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= len(about.classes):
        raise CheckpointError(
            f"head {name!r} gave label {high if low >= 0 else low} but has {len(about.classes)} classes, 0 to "
            f"{len(about.classes) - 1}; export the model again"
        )
    scores = outputs[f"{name}.scores"][number] if about.scores else None
    entropy = float(outputs[f"{name}.entropy"][number]) if about.entropy else None
    return SegmentationResult(name, image, about, found, scores, entropy)
