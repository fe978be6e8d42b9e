"""Shapes on a canvas: polygons, run lengths, and what of a file of shapes is passed over.

A pixel belongs to a polygon if its centre is inside by the even-odd rule; the first pixel has its centre at (0.5, 0.5).

One rule holds for all files of shapes: what has an area, a listed image and a listed class is drawn, cut off at the
edges of the image; everything else is passed over and counted by reason; a file of which nothing can be drawn although
it has shapes, or that lacks its lists, is an error.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.limits import limits, too_much
from densevit.types import Size

_CHUNK = 1 << 20
"""Crossings of edges and rows that are computed at once."""

_FAR = 1e7
"""Coordinates beyond this are no pixels."""

_log = logging.getLogger(__name__)


class NoShape(Exception):
    """Why something is passed over, in words that follow a number: "3 have no outline"."""


@dataclass
class PassedOver:
    """What of a file, or of several, is not drawn: how many by reason, with the first as an example."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, reason: str, example: str, number: int = 1) -> None:
        """Count one more."""
        self.counts[reason] = self.counts.get(reason, 0) + number
        self.examples.setdefault(reason, example)

    @property
    def total(self) -> int:
        """How many are not drawn."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason} (such as {self.examples[reason]})" for reason, count in self.counts.items())


_warned: set[tuple[str, ...]] = set()
"""What this process has warned of; a data set is opened several times, and its files are read in every epoch."""


def warn_once(message: str, *about: str) -> None:
    """Log a warning, once per process for what it is ``about``, by default for its text."""
    if (key := about or (message,)) not in _warned:
        _warned.add(key)
        _log.warning("%s", message)


def fill_polygon(canvas: NDArray[np.int32], points: NDArray[np.float64], value: int) -> None:
    """Set the pixels of ``canvas`` (H, W) whose centre is in the polygon ``points`` (N, 2), x and y in pixels."""
    height, width = canvas.shape
    (x0, y0), (x1, y1) = points.T, np.roll(points, -1, axis=0).T
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    last = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    left, right = np.ceil(np.array([points[:, 0].min(), points[:, 0].max()]) - 0.5).clip(0, width).astype(int).tolist()
    top, bottom = int(first.min()), int(last.max())
    if top >= bottom or left >= right:
        return
    # Each edge crosses some rows; in a row, pixels right of an odd number of crossings are inside.
    crossings = np.zeros((bottom - top, right - left + 1), np.int64)
    counts = last - first  # rows that each edge crosses
    per_chunk = max(_CHUNK // (bottom - top), 1)
    for start in range(0, len(points), per_chunk):
        part = slice(start, start + per_chunk)
        edges = np.repeat(np.arange(len(points))[part], counts[part])
        offsets = np.arange(len(edges)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        rows = first[edges] + offsets
        x = x0[edges] + (rows + 0.5 - y0[edges]) * (x1[edges] - x0[edges]) / (y1[edges] - y0[edges])
        columns = np.ceil(x - 0.5).clip(left, right).astype(np.int64)
        np.add.at(crossings, (rows - top, columns - left), 1)
    inside = crossings.cumsum(axis=1)[:, :-1] % 2 == 1
    canvas[top:bottom, left:right][inside] = value


def fill_runs(canvas: NDArray[np.int32], lengths: NDArray[np.int64], value: int) -> None:
    """Set the pixels of ``canvas`` (H, W) in the odd ones of ``run_lengths``."""
    height, width = canvas.shape
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    canvas[flat.reshape(width, height).T] = value


def run_lengths(counts: Any, size: Size) -> NDArray[np.int64]:
    """COCO's run lengths: alternate runs of 0 and 1, 0 first, down the columns from left to right.

    Text is compressed: five bits per character from ASCII 48 on, low ones first, and the sixth bit says that more
    follow. Numbers are signed; from the third on they are differences to the run before the last.

    Raises:
        NoShape: they are no run lengths, or do not fill the size.
    """
    area = size[0] * size[1]
    try:
        runs = _decompress(counts) if isinstance(counts, str | bytes) else np.array(counts, np.float64)
        whole = runs.ndim == 1 and bool(((runs >= 0) & (runs <= area)).all()) and bool((runs == np.rint(runs)).all())
    except (ValueError, TypeError, OverflowError):
        whole = False
    # Each is checked before: a sum of huge runs could wrap around to the right number.
    if not whole or int(runs.sum()) != area:
        raise NoShape("with run lengths that do not fill the size")
    return runs.astype(np.int64)


def _decompress(text: str | bytes) -> NDArray[np.int64]:
    """The signed numbers of compressed run lengths, added up; raises ValueError for other text."""
    codes = np.frombuffer(text.encode("latin-1", "replace") if isinstance(text, str) else text, np.uint8)
    bits = codes.astype(np.int64) - 48
    last = (bits & 32) == 0  # the last character of each number
    if not len(bits) or not last[-1] or not ((bits >= 0) & (bits < 64)).all():
        raise ValueError("not COCO's text")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(bits)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 7:  # 40 bits, far more than pixels
        raise ValueError("a number without end")
    numbers = np.add.reduceat((bits & 31) << (5 * places), starts)
    numbers -= ((bits[ends] >> 4) & 1) << (5 * (ends - starts + 1))  # two's complement
    for first in (1, 2):
        numbers[first::2] = numbers[first::2].cumsum()
    return numbers


def points_of(raw: Any) -> NDArray[np.float64]:
    """(N, 2) from pairs of x and y, or from a flat list x, y, x, y.

    Raises:
        NoShape: anything else, or numbers that are no pixels.
    """
    try:
        points = np.array(raw, np.float64)
    except (ValueError, TypeError, OverflowError):
        raise NoShape("with points that are not pairs of numbers") from None
    if points.ndim == 1 and len(points) % 2 == 0:
        points = points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2 or not (np.abs(points) < _FAR).all():
        raise NoShape("with points that are not finite pairs (x, y)")
    return points


def area_of(points: NDArray[np.float64]) -> float:
    """The area of a polygon (N, 2)."""
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def whole(value: Any) -> int:
    """A whole number of a JSON file, also as text.

    Raises:
        ValueError: it is no whole number; also for what ``int`` refuses otherwise.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{type(value).__name__} instead of a whole number")
    try:
        number = int(value)
    except OverflowError:
        raise ValueError(f"{value} instead of a whole number") from None
    if isinstance(value, float) and number != value:
        raise ValueError(f"{value} instead of a whole number")
    return number


def shown(number: int) -> str:
    """A number for messages; JSON can hold thousands of digits."""
    return str(number) if abs(number) < 10**18 else "(over 18 digits)"


def claimed_size(record: Mapping[str, Any], height: str, width: str, name: str) -> Size | None:
    """The size that a record claims, None if it claims none.

    Raises:
        DataError: it is no size of an image.
    """
    if record.get(height) is None or record.get(width) is None:
        return None
    try:
        size = (whole(record[height]), whole(record[width]))
    except ValueError as error:
        raise DataError(f"{name}: {height} or {width} is {error}; both in pixels are accepted; fix it") from None
    text = f"{name} gives the size {shown(size[0])} x {shown(size[1])}"
    if min(size) < 1:
        raise DataError(f"{text}; a height and width of 1 and more are accepted; fix it")
    if size[0] * size[1] > limits().pixels:
        raise DataError(too_much(text, "pixels"))
    return size


def background_index(classes: ClassTable, background: str | None) -> int:
    """The class of pixels outside all shapes; the ignore value if ``background`` is None.

    Raises:
        DataError: if there is no such class.
    """
    if background is None:
        return classes.ignore_index
    if background not in classes.names:
        raise DataError(
            f"background is {background!r} but the classes are {', '.join(classes.names[:8])}; one of them is "
            "accepted; add it to the classes"
        )
    return classes.names.index(background)
