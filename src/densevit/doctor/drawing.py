"""Masks that are drawn from shapes, by the readers of training, and described for the checks."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from densevit.data.labelme import parse_labelme
from densevit.data.polygons import PassedOver
from densevit.data.shapes import CocoReader, ShapeReader
from densevit.doctor.facts import ShapeFacts
from densevit.errors import DataError
from densevit.limits import limits
from densevit.types import Size


@dataclass(frozen=True, slots=True)
class Drawing:
    """How the mask of one photo is drawn; small enough for every message to a process.

    Attributes:
        reader: that of training; None if the classes are not known, so that shapes can be counted only.
        photo, file: its photo, and the file of shapes.
    """

    reader: ShapeReader | None
    photo: Path
    file: Path

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
        parsed = parse_labelme(self.file)
        return Counter(shape.label for shape in parsed.shapes), parsed.passed_over, parsed.size


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the reader's warnings, which are findings here."""
    log = logging.getLogger("densevit.data.polygons")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def drawing_of(reader: ShapeReader | None, photo: Path, file: Path) -> Drawing:
    """The part of a reader that one photo needs; all annotations of COCO would be too large for a message."""
    if isinstance(reader, CocoReader):
        entry, coco = reader.entries[photo], reader.files[file]
        alone = replace(coco, photos={entry: coco.photos[entry]}, passed_over=PassedOver(), notes=())
        reader = CocoReader({file: alone}, {photo: entry})
    return Drawing(reader, photo, file)
