"""What one pass over the files keeps of each: a few hundred bytes, so that 100,000 photos fit in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data import FolderConfig
from densevit.data.polygons import PassedOver
from densevit.types import Size
from densevit_runtime.io.read import LOSSY_FORMATS

MARKED_SHARE, MARKED_GAP = 0.01, 2.0
"""A largest depth in more than this share of the pixels, and so many times the next, marks a missing measurement."""

THUMB_SIZE: Size = (16, 18)
"""(H, W) of the grey thumbnails by which near-duplicates are found."""


def size_text(size: Size) -> str:
    """A size in words, such as 480 x 640."""
    return f"{size[0]} x {size[1]}"


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be read.

    Attributes:
        code: of its finding: ``empty-file``, ``not-an-image`` or ``unreadable``.
    """

    path: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A photo.

    Attributes:
        size, upright_size: (H, W) as stored, and with the EXIF orientation applied.
        digest: hash of the pixels that training sees, whatever the file format.
        thumb: grey thumbnail of ``THUMB_SIZE``, as bytes.
        grey: red, green and blue are equal everywhere.
        transparent: some pixel is transparent.
        peak: largest value of a 16-bit photo, else 0.
        blank: all pixels are equal.
    """

    path: str
    format: str
    size: Size
    upright_size: Size
    orientation: int
    frames: int
    digest: bytes
    thumb: bytes
    grey: bool
    transparent: bool
    peak: int
    blank: bool

    @property
    def is_dark(self) -> bool:
        """Whether it is probably a 10- or 12-bit photo in a 16-bit file."""
        return 255 < self.peak < 16384


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """A mask, depth map or value map; ``size`` is (H, W) with the EXIF orientation applied."""

    path: str
    size: Size


ClassCounts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Class ids, int64 and sorted, and the pixels of each."""


@dataclass(frozen=True, slots=True)
class MaskFacts(TargetFacts):
    """A mask.

    Attributes:
        values: int64, sorted: class numbers, or 0xRRGGBB if ``colours``; at most ``MAX_VALUES`` of them.
        counts: int64, pixels of each value.
        num_values: number of values, including those beyond ``MAX_VALUES``.
        colours: it has three channels that differ, or four.
        palette: 0xRRGGBB of each of ``values`` in a palette image, else None.
        fits: correlation of its outlines with those of the photo for each of the eight orientations; None if unknown.
        read: what training reads, where stored values stand for classes by a palette or by class_values; None where
            they are the class numbers, or where training refuses them.
    """

    format: str
    mode: str
    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    num_values: int
    colours: bool
    palette: NDArray[np.int64] | None
    fits: tuple[float, ...] | None = None
    read: ClassCounts | None = None

    @property
    def is_lossy(self) -> bool:
        """Whether compression changed its values."""
        return self.format in LOSSY_FORMATS

    @property
    def has_channels(self) -> bool:
        """Whether the reader refuses it for its channels."""
        return (
            self.colours
            or "channels" in self.mode
            or self.mode in {"RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "LAB"}
        )

    @property
    def has_floats(self) -> bool:
        """Whether the reader refuses it for floats, although they are whole numbers; it takes those of ``.npy``."""
        return self.mode == "F"

    @property
    def is_indexed(self) -> bool:
        """Whether its values can be class numbers."""
        return not self.colours and not self.is_lossy and self.read is None


@dataclass(frozen=True, slots=True)
class ShapeFacts(TargetFacts):
    """A mask that is drawn, from shapes or from a file for each class; ``size`` is claimed, or that of the photo.

    Attributes:
        labels: how many shapes of each label are drawn.
        passed_over: those that are not.
        values: int64, sorted: the class numbers that are drawn; empty if it cannot be.
        counts: int64, pixels of each.
    """

    labels: Mapping[str, int]
    passed_over: PassedOver
    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class DepthFacts(TargetFacts):
    """A depth map, in stored units.

    Attributes:
        bits: 8, 16 or 32 for integers, 0 for floats.
        colours: it has more than one channel.
        valid: share of the pixels that are finite and above 0.
        quantiles: 1, 50 and 99 % of the valid pixels, then the smallest and the largest.
        top_share: share of the valid pixels at the largest value.
        below_top: the largest of the other valid values, 0 if there is none.
        lowest: the one value below 0, -inf if there are several, 0 if there is none.
        levels: number of different values, at most 1025.
        slope: correlation of value and row (top to bottom) over the valid pixels.
    """

    bits: int
    colours: bool
    valid: float
    nan: int
    negative: int
    quantiles: tuple[float, ...] = (0.0,) * 5
    top_share: float = 0.0
    below_top: float = 0.0
    lowest: float = 0.0
    levels: int = 0
    slope: float = 0.0

    @property
    def marker(self) -> float | None:
        """The largest value where it seems to mean that nothing was measured: frequent, and far above all others."""
        top = self.quantiles[4]
        if self.top_share <= MARKED_SHARE or self.levels < 2:
            return None
        return top if (self.bits == 16 and top >= 65535) or top > MARKED_GAP * self.below_top else None

    def metres(self, config: FolderConfig) -> NDArray[np.float64]:
        """The quantiles in metres, as the map is read."""
        return np.array(self.quantiles) * (config.depth_scale_m if self.bits == 0 else config.depth_unit_m)


@dataclass(frozen=True, slots=True)
class ValueFacts(TargetFacts):
    """A value map (H, W, channels).

    Attributes:
        finite: share of the numbers that are finite.
        problem: why ``read_values`` would refuse it, or empty.
    """

    channels: int
    finite: float
    problem: str


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """A photo and its targets; None where there is no file."""

    split: str
    stem: str
    photo: PhotoFacts | Broken
    masks: MaskFacts | ShapeFacts | Broken | None = None
    depth: DepthFacts | Broken | None = None
    values: ValueFacts | Broken | None = None

    def files(self) -> tuple[Any, ...]:
        """The facts of its files."""
        return tuple(facts for facts in (self.photo, self.masks, self.depth, self.values) if facts is not None)
