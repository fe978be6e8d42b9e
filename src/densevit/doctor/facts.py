"""What one pass over the files keeps of each: a few hundred bytes, so that 100,000 photos fit in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.types import Size

THUMB_SIZE: Size = (16, 18)
"""Of the grey thumbnail by which near-duplicates are found: (H, W)."""


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be read.

    Attributes:
        path: of the file.
        code: of the finding: ``empty-file``, ``not-an-image`` or ``unreadable``.
        reason: what the reader said.
    """

    path: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class PhotoFacts:
    """A photo.

    Attributes:
        size, upright_size: (H, W) stored, and with the EXIF orientation applied.
        digest: of the pixels that training sees; equal for equal photos whatever the file.
        thumb: grey thumbnail of ``THUMB_SIZE``, as bytes.
        grey: red, green and blue are equal everywhere.
        transparent: some pixel lets white through.
        peak: largest value of a 16-bit photo, else None.
        blank: all pixels are equal.
    """

    path: str
    format: str
    mode: str
    size: Size
    upright_size: Size
    orientation: int
    frames: int
    digest: bytes
    thumb: bytes
    grey: bool
    transparent: bool
    peak: int | None
    blank: bool


@dataclass(frozen=True, slots=True)
class MaskFacts:
    """A mask.

    Attributes:
        size: (H, W) as the readers give it.
        values: int64, sorted: the indices; colours as 0xRRGGBB if ``colours``; at most ``MAX_VALUES`` of them.
        counts: int64, pixels of each.
        num_values: how many there are, also beyond ``MAX_VALUES``.
        colours: it has three channels that differ, or four.
        palette: 0xRRGGBB of each of ``values`` in a palette image, else None.
        fits: how well its outlines lie on those of the photo, for each of the eight ways to turn it; None if unknown.
    """

    path: str
    format: str
    mode: str
    size: Size
    values: NDArray[np.int64]
    counts: NDArray[np.int64]
    num_values: int
    colours: bool
    palette: NDArray[np.int64] | None
    fits: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class DepthFacts:
    """A depth map, in its own units.

    Attributes:
        bits: 8 or 16 or 32 for integers, 0 for floats.
        colours: it has more than one channel.
        valid: share of the pixels that are finite and above 0.
        quantiles: values at 1, 50 and 99 % of the valid pixels, and the least and the largest.
        saturated: share of the valid pixels at the largest value of a 16-bit image.
        levels: number of different values, at most 1025.
        slope: correlation of the value with the row (top to bottom), over the valid pixels.
    """

    path: str
    format: str
    mode: str
    size: Size
    bits: int
    colours: bool
    valid: float
    nan: int
    negative: int
    quantiles: tuple[float, ...] = (0.0,) * 5
    saturated: float = 0.0
    levels: int = 0
    slope: float = 0.0


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """A value map (H, W, channels).

    Attributes:
        finite: share of the numbers that are neither NaN nor infinite.
        problem: why ``read_values`` would refuse it, or empty.
    """

    path: str
    size: Size
    channels: int
    finite: float
    problem: str


@dataclass(frozen=True, slots=True)
class SampleFacts:
    """A photo and its targets; None for what a split doesn't have or the sample lacks."""

    split: str
    stem: str
    photo: PhotoFacts | Broken
    masks: MaskFacts | Broken | None = None
    depth: DepthFacts | Broken | None = None
    values: ValueFacts | Broken | None = None

    def files(self) -> tuple[Any, ...]:
        """The facts of its files."""
        return tuple(f for f in (self.photo, self.masks, self.depth, self.values) if f is not None)
