"""What ``densevit predict --annotations`` writes when all photos are done."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from densevit.cli.photo_batch import PhotoBatch
from densevit.errors import ConfigError, DataError
from densevit.inference.annotations import (
    LabelledPhoto,
    LabelSet,
    annotation_files,
    check_cvat_names,
    check_kind,
    photo_names,
    write_annotations,
)
from densevit.inference.exported import ExportedModel
from densevit.inference.predictor import Predictor
from densevit.io import read_labels


class AnnotationOutputs:
    """The annotations of a batch of photos, one folder in its output for each kind, made from the labels on disk.

    Args:
        kinds: as given; none writes nothing.
        batch: planned.

    Raises:
        ConfigError: if there is no such kind, or not one head with classes.
        DataError: if a photo is streamed.
    """

    def __init__(self, kinds: Sequence[str], batch: PhotoBatch) -> None:
        self.kinds = [check_kind(kind) for kind in dict.fromkeys(kinds)]
        self.batch = batch
        if not self.kinds:
            return
        self.head = _head(batch.predictor)
        self.classes = LabelSet.of(batch.predictor.tasks[self.head])
        if "cvat" in self.kinds:
            check_cvat_names(self.classes)
        if streamed := [photo.path for photo in batch.photos if photo.streamed]:
            raise DataError(
                f"{streamed[0]} is streamed, because it is large or georeferenced, and annotations are for photos in "
                "memory; leave it out, or --annotations"
            )
        self.names = photo_names([photo.path for photo in batch.photos])

    def files(self) -> Iterator[Path]:
        """The files of photos that all go well."""
        for kind in self.kinds:
            yield from annotation_files(kind, self.batch.out / kind, [stem for _, stem in self.names])

    def write(self) -> None:
        """Write the annotations of the photos that are done, whether now or by an earlier command."""
        done = {record["source"]: record["heads"][self.head]["labels"] for record in self.batch.records if self.kinds}
        for kind in self.kinds:
            photos = [
                LabelledPhoto(photo.path, *names, number, partial(read_labels, self.batch.out / done[str(photo.path)]))
                for number, (photo, names) in enumerate(zip(self.batch.photos, self.names, strict=True), 1)
                if str(photo.path) in done
            ]
            # What is there now was claimed before the photos were predicted.
            write_annotations(kind, self.batch.out / kind, photos, self.classes)


def _head(predictor: Predictor | ExportedModel) -> str:
    """The one head with classes among those that run."""
    heads = [head for head in predictor.heads if predictor.tasks[head].class_table is not None]
    if len(heads) != 1:
        held = f"{len(heads)} heads with classes run ({', '.join(heads)})" if heads else "no head with classes runs"
        raise ConfigError(f"--annotations are of one head, but {held}; name one with --head")
    return heads[0]
