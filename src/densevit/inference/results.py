"""What a prediction is: typed results, computed from the logits when asked for, in the photo's own size."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from densevit.inference.decode import decode, entropy, mean_entropy, scores
from densevit.inference.tiled_logits import TiledLogits, full
from densevit.io import write_array, write_depth_mm, write_labels, write_png
from densevit.tasks import Depth, Regression, Segmentation, Task
from densevit.tasks.colour import overlay

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class HeadResult:
    """The result of one head on one photo.

    Attributes:
        name: of the head.
        image: uint8 (H, W, 3), the photo.
        source: logits (K, h', w') float32 at the decoder's stride; or a field of the photo's size, which windows,
            scales or a protocol gave.
        align_corners: how logits at the decoder's stride are resized to the photo.
    """

    name: str
    image: Picture
    source: Tensor | TiledLogits
    align_corners: bool

    @cached_property
    def logits(self) -> Tensor:
        """(K, h', w') float32 at the decoder's stride; of windows, scales or a protocol (K, H, W), made when asked."""
        return full(self.source).cpu() if isinstance(self.source, TiledLogits) else self.source

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the photo."""
        return self.image.shape[0], self.image.shape[1]


@dataclass(frozen=True)
class SegmentationResult(HeadResult):
    """Labels and how sure they are.

    Attributes:
        label_offset: what the program whose protocol was followed adds to every label that it writes.
    """

    task: Segmentation
    label_offset: int = 0

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return self.task.classes

    @cached_property
    def labels(self) -> NDArray[Any]:
        """(H, W) uint8 (int32 beyond 256 classes): the most likely class."""
        return decode(self.task, self.source, self.size, align_corners=self.align_corners).cpu().numpy()

    @property
    def source_labels(self) -> NDArray[Any]:
        """(H, W): labels as the program whose protocol was followed numbers them; ``class_names`` number otherwise."""
        return self.labels.astype(np.int32) + self.label_offset

    @cached_property
    def scores(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: softmax probability of the label; not calibrated."""
        return scores(self.source, self.size, align_corners=self.align_corners).cpu().numpy()

    @cached_property
    def entropy(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: entropy of the softmax over that of a uniform one."""
        return entropy(self.source, self.size, align_corners=self.align_corners).cpu().numpy()

    @cached_property
    def shares(self) -> dict[str, float]:
        """Share of the photo that each class covers, by name; they sum to one."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.class_names))
        return {name: float(n) / self.labels.size for name, n in zip(self.class_names, counts, strict=True)}

    @cached_property
    def mean_entropy(self) -> float:
        """In [0, 1]: how unsure the head is of the photo as a whole."""
        return mean_entropy(self.task, self.source, align_corners=self.align_corners)

    @property
    def excess_entropy(self) -> float:
        """How far ``mean_entropy`` lies above what is typical of the head on photos of its own kind."""
        return self.mean_entropy - self.task.typical_entropy

    def colours(self) -> Picture:
        """(H, W, 3): labels in the palette's colours."""
        return self.task.colourise(self.labels)

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the photo, with edges between labels."""
        return overlay(self.image, self.colours(), alpha=alpha, labels=self.labels)

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.labels.png`` (indexed) and ``.overlay.png``; returns what the JSON record says."""
        base = Path(folder) / f"{stem}.{self.name}"
        labels, picture = Path(f"{base}.labels.png"), Path(f"{base}.overlay.png")
        write_labels(labels, self.labels, self.task.palette)
        write_png(picture, self.overlay())
        return {
            "task": "segmentation",
            "labels": labels.name,
            "overlay": picture.name,
            "classes": list(self.class_names),
            "shares": {name: round(share, 6) for name, share in self.shares.items()},
            "mean_entropy": round(self.mean_entropy, 4),
        }


@dataclass(frozen=True)
class DepthResult(HeadResult):
    """Depth with its quantity and unit."""

    task: Depth

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """(H, W) float32: metres for "depth" (larger is farther), no unit for "disparity" (larger is nearer)."""
        return decode(self.task, self.source, self.size, align_corners=self.align_corners).cpu().numpy()

    @property
    def quantity(self) -> Literal["depth", "disparity"]:
        """What the values are."""
        return self.task.quantity

    @property
    def unit(self) -> str:
        """Metres, "m", for depth; "" for disparity."""
        return self.task.unit

    def colours(self) -> Picture:
        """(H, W, 3): near is bright."""
        return self.task.colourise(self.depth)

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the photo."""
        return overlay(self.image, self.colours(), alpha=alpha)

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.mm.png`` (16-bit, millimetres) or ``.disparity.png`` (over its range), and a picture.

        The picture is ``<stem>.<head>.colours.png``. Returns what the JSON record says.
        """
        base = Path(folder) / f"{stem}.{self.name}"
        low, high = float(self.depth.min()), float(self.depth.max())
        if self.quantity == "depth":
            values = Path(f"{base}.mm.png")
            write_depth_mm(values, self.depth)
        else:
            values = Path(f"{base}.disparity.png")
            scaled = (self.depth - low) / max(high - low, 1e-12) * 65535
            write_png(values, scaled.round().astype(np.uint16))
        colours = Path(f"{base}.colours.png")
        write_png(colours, self.colours())
        return {
            "task": "depth",
            "quantity": self.quantity,
            "unit": self.unit,
            "values": values.name,
            "colours": colours.name,
            "min": round(low, 4),
            "max": round(high, 4),
            "mean": round(float(self.depth.mean()), 4),
        }


@dataclass(frozen=True)
class RegressionResult(HeadResult):
    """Any values per pixel."""

    task: Regression

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """(K, H, W) float32."""
        return decode(self.task, self.source, self.size, align_corners=self.align_corners).cpu().numpy()

    def colours(self) -> Picture:
        """(H, W, 3): the first three channels."""
        return self.task.colourise(self.values)

    def overlay(self, alpha: float = 0.55) -> Picture:
        """(H, W, 3): the colours over the photo."""
        return overlay(self.image, self.colours(), alpha=alpha)

    def save(self, folder: Path | str, stem: str) -> dict[str, Any]:
        """Write ``<stem>.<head>.npy`` (K, H, W) and ``.colours.png``."""
        base = Path(folder) / f"{stem}.{self.name}"
        values, colours = Path(f"{base}.npy"), Path(f"{base}.colours.png")
        write_array(values, self.values)
        write_png(colours, self.colours())
        return {
            "task": "regression",
            "values": values.name,
            "colours": colours.name,
            "channels": list(self.task.channels),
        }


def head_result(
    name: str, task: Task, image: Picture, source: Tensor | TiledLogits, *, align_corners: bool, label_offset: int = 0
) -> HeadResult:
    """The result class that belongs to a task."""
    if isinstance(task, Segmentation):
        return SegmentationResult(name, image, source, align_corners, task, label_offset)
    if isinstance(task, Depth):
        return DepthResult(name, image, source, align_corners, task)
    if isinstance(task, Regression):
        return RegressionResult(name, image, source, align_corners, task)
    raise TypeError(f"task {type(task).__name__} has no result class")
