"""The content of a data set: images with their targets, and the names of the classes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DataError

Target = Literal["labels", "depth", "values"]
"""What is to be predicted for each pixel: the field of ``Sample`` that holds it."""

ALL_TARGETS: frozenset[Target] = frozenset(get_args(Target))

Rgb = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

TargetFolder = Literal["masks", "depth", "values"]

TARGET_FOLDERS: dict[Target, TargetFolder] = {"labels": "masks", "depth": "depth", "values": "values"}
"""The folder of each target in a data set of plain folders, which is also its option on the command line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image and its targets.

    Attributes:
        name: unique in its data set; names files and rows in reports.
        image: uint8 (H, W, 3) RGB; from other cameras uint8, uint16 or float32 in [0, 1] with any number of channels.
        labels: int32 (H, W) class indices, ``ignore_index`` where unknown; None if there is no mask.
        depth: float32 (H, W) metres, 0 where unknown; None if there is no depth map.
        values: float32 (H, W, K) of any dense regression, NaN where unknown; None if there are none.
        normals: the values are surface normals (x, y, z) in the camera's axes, x pointing left or right.
        ignore_index: value of ``labels`` where the class is unknown.
    """

    name: str
    image: NDArray[Any]
    labels: NDArray[np.int32] | None = None
    depth: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None
    normals: bool = False
    ignore_index: int = 255

    @property
    def picture(self) -> NDArray[np.uint8]:
        """The image for display, uint8 (H, W, 3): its first three channels, or the first one as grey.

        Of 16 bits those are shown that it uses, such as 12, but for values above its 99.9th percentile.
        """
        shown = self.image[:, :, :3] if self.image.shape[2] >= 3 else np.repeat(self.image[:, :, :1], 3, axis=2)
        if shown.dtype == np.uint16:
            step = max(max(shown.shape) // 512, 1)
            bits = int(np.percentile(shown[::step, ::step], 99.9)).bit_length()
            return (shown >> max(bits - 8, 0)).clip(0, 255).astype(np.uint8)
        return shown if shown.dtype == np.uint8 else np.rint(shown.clip(0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set, and coarser views of them.

    Attributes:
        names: class names by index.
        ignore_index: the value of pixels without a class.
        views: further class lists, each with the index in it of every class of ``names`` (ignore_index drops one).
        palette: colour of every class, in colour masks and in pictures; empty if not known.
    """

    names: tuple[str, ...]
    ignore_index: int = 255
    views: Mapping[str, tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=dict)
    palette: tuple[Rgb, ...] = ()

    def lookup(self, wanted: tuple[str, ...], *, ignore_index: int = 255) -> NDArray[np.int64] | None:
        """Table from this data set's ids to those of the ``wanted`` class names, or None if no view has these names.

        Ids without a class become ``ignore_index``, among them 255 where it is no class, the ignore value of this
        data set, and the last entry, which is thus also right for ids below 0.
        """
        views = [(self.names, tuple(range(len(self.names)))), *self.views.values()]
        mapping = next((mapping for names, mapping in views if names == wanted), None)
        if mapping is None:
            return None
        size = max(256, self.ignore_index + 1, len(mapping) + 1)
        table = np.full(size, ignore_index, dtype=np.int64)
        table[: len(mapping)] = [ignore_index if m == self.ignore_index else m for m in mapping]
        return table

    def check(self, labels: NDArray[np.int32], name: str) -> None:
        """Refuse a mask with a value that is neither a class nor the ignore value.

        Raises:
            DataError: naming the values.
        """
        outside = ((labels < 0) | (labels >= len(self.names))) & (labels != self.ignore_index)
        if outside.any():
            wrong = np.unique(labels[outside])
            raise DataError(
                f"mask {name} holds class {', '.join(map(str, wrong[:8]))} but the data set has {len(self.names)} "
                f"classes, 0..{len(self.names) - 1}, and {self.ignore_index} for ignored pixels; "
                "fix the mask, or list the missing class in classes.json"
            )


@runtime_checkable
class Dataset(Protocol):
    """Any sequence of samples is a data set; ``classes`` is None without masks."""

    @property
    def classes(self) -> ClassTable | None:
        """The classes of its masks."""
        ...

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int, /) -> Sample:
        """Read one sample."""
        ...
