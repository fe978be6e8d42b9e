"""Masks that are drawn from shapes, by the readers of training, and described for the checks."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densevit.data.labelme import parse_labelme
from densevit.data.labels import LabelRule
from densevit.data.polygons import PassedOver
from densevit.data.regions import RegionReader
from densevit.data.shapes import CocoReader, ShapeReader
from densevit.doctor.facts import ClassCounts, ShapeFacts
from densevit.errors import DataError
from densevit.io import read_region
from densevit.limits import limits
from densevit.types import Size


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the mask of one photo is drawn; small enough for every message to a process.

    Attributes:
        reader: that of training; None if the classes are not known, so that shapes can be counted only.
        photo, file: its photo, and the file of shapes.
        names: of the classes.
    """

    reader: ShapeReader | None
    photo: Path
    file: Path
    names: tuple[str, ...] = ()

    def facts(self, photo_size: Size | None) -> ShapeFacts:
        """The facts of the mask, with the pixels of each class as training gets them.

        Raises:
            DataError: the file is broken.
        """
        labels, passed_over, claimed = self._shapes()
        size = claimed or photo_size
        facts = ShapeFacts(str(self.named), size or (0, 0), labels, passed_over)
        if self.reader is None or size is None or size[0] * size[1] > limits().pixels:
            return facts
        try:
            with _quiet():
                drawn = self.reader.draw(self.photo, self.file, size)
        except (DataError, ValueError):  # a label that is no class, say, which has its own check
            if isinstance(self.reader, RegionReader):  # files of different sizes, say
                raise
            return facts
        values, counts = np.unique(drawn, return_counts=True)
        return replace(facts, values=values.astype(np.int64), counts=counts.astype(np.int64))

    @property
    def named(self) -> Path:
        """The file by which the mask is known: of COCO, which has one for many, the photo."""
        return self.photo if isinstance(self.reader, CocoReader) else self.file

    def _shapes(self) -> tuple[Mapping[str, int], PassedOver, Size | None]:
        """How many shapes have each label, what is passed over, and the size that the file claims."""
        if isinstance(self.reader, CocoReader):
            coco = self.reader.files[self.file]
            photo = coco.photos[self.reader.entries[self.photo]]
            labels = Counter(coco.classes.names[shape.index] for shape in photo.shapes if not shape.crowd)
            return labels, PassedOver(), photo.size
        if isinstance(self.reader, RegionReader):
            return self._regions(self.reader)
        parsed = parse_labelme(self.file)
        return Counter(shape.label for shape in parsed.shapes), parsed.passed_over, parsed.size

    def _regions(self, reader: RegionReader) -> tuple[Mapping[str, int], PassedOver, Size]:
        """As ``_shapes``, of the files that show one class or region each."""
        labels: Counter[str] = Counter()
        passed_over, sizes = PassedOver(), []
        for index, path in reader.files[self.photo]:
            region = read_region(path)
            sizes.append((region.shape[0], region.shape[1]))
            if region.any():
                labels[self.names[index]] += 1
            else:
                passed_over.add("have no pixel", path.name)
        return labels, passed_over, sizes[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reader's warnings, which are findings here."""
    log = logging.getLogger("densevit.data.polygons")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@dataclass(frozen=True, slots=True)
class StoredMask:
    """Reads masks that are images as training does; sent to worker processes.

    Attributes:
        read: path -> stored numbers.
        rule: stored numbers -> class ids, before merging and dropping.
    """

    read: Callable[[Path], NDArray[np.int32]]
    rule: LabelRule

    def counts(self, path: Path) -> ClassCounts | None:
        """The classes of a mask; None if training refuses it."""
        try:
            values, counts = np.unique(self.rule(self.read(path), str(path)), return_counts=True)
        except DataError:
            return None
        return values.astype(np.int64), counts.astype(np.int64)


def drawing_of(reader: ShapeReader | None, photo: Path, file: Path, names: tuple[str, ...] = ()) -> Drawing:
    """The part of a reader that one photo needs; all annotations of COCO would be too large for a message."""
    if isinstance(reader, CocoReader):
        entry, coco = reader.entries[photo], reader.files[file]
        alone = replace(coco, photos={entry: coco.photos[entry]}, passed_over=PassedOver(), notes=())
        reader = CocoReader({file: alone}, {photo: entry})
    elif isinstance(reader, RegionReader):
        reader = RegionReader({photo: reader.files[photo]}, reader.background)
    return Drawing(reader, photo, file, names)
