"""The results of one image, head by head."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DensevitError, MissingNameError
from densevit.inference.annotations import (
    AnnotationKind,
    LabelledPhoto,
    LabelSet,
    check_kind,
    coco_file,
    cvat_labelmap,
    cvat_mask,
    labelme_file,
)
from densevit.inference.results import DepthResult, HeadResult, SegmentationResult, head_result, result_files
from densevit.inference.tiled_logits import TiledLogits
from densevit.tasks import Task
from densevit_runtime.colour import Picture
from densevit_runtime.metadata import Quantity
from densevit_runtime.records import save_record


class Prediction(Mapping[str, HeadResult]):
    """The results of one image by head: ``prediction["depth"].depth``.

    With several segmentation heads, ``labels``, ``scores``, ``entropy``, ``class_names`` and ``overlay`` are those of
    the head that best matches the image's domain (lowest ``excess_entropy``); ``primary`` names it.
    """

    def __init__(self, image: Picture, results: Mapping[str, HeadResult]) -> None:
        self.image = image
        self._results = dict(results)

    def __getitem__(self, name: str) -> HeadResult:
        if name not in self._results:
            raise MissingNameError(f"there is no head {name!r}; this prediction has {', '.join(self._results)}")
        return self._results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        height, width = self.image.shape[:2]
        return f"Prediction({height} x {width}; {', '.join(self._results)})"

    @cached_property
    def primary(self) -> str | None:
        """The segmentation head with the lowest excess entropy; None without one."""
        heads = {name: r.excess_entropy for name, r in self._results.items() if isinstance(r, SegmentationResult)}
        return min(heads, key=lambda name: heads[name]) if heads else None

    @property
    def segmentation(self) -> SegmentationResult:
        """The primary segmentation."""
        result = self._results.get(self.primary or "")
        if not isinstance(result, SegmentationResult):
            raise DensevitError(f"this model has no segmentation head; it has {', '.join(self._results)}")
        return result

    @property
    def labels(self) -> NDArray[Any]:
        """(H, W): the most likely class."""
        return self.segmentation.labels

    @property
    def scores(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: softmax probability of the label."""
        return self.segmentation.scores

    @property
    def entropy(self) -> NDArray[np.float32]:
        """(H, W) in [0, 1]: entropy of the softmax, relative to that of a uniform distribution."""
        return self.segmentation.entropy

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names by label."""
        return self.segmentation.class_names

    @property
    def shares(self) -> dict[str, float]:
        """Share of the image that each class covers."""
        return self.segmentation.shares

    @property
    def depth_result(self) -> DepthResult:
        """The depth head's result."""
        for result in self._results.values():
            if isinstance(result, DepthResult):
                return result
        raise DensevitError(f"this model has no depth head; it has {', '.join(self._results)}")

    @property
    def depth(self) -> NDArray[np.float32]:
        """(H, W): see ``depth_quantity`` and ``depth_unit``."""
        return self.depth_result.depth

    @property
    def depth_quantity(self) -> Quantity:
        """What the values are: "depth" and "relative_depth", larger is farther, or "disparity", larger is nearer."""
        return self.depth_result.quantity

    @property
    def depth_unit(self) -> str:
        """Metres, "m", or "" for what is relative."""
        return self.depth_result.unit

    def overlay(self, head: str | None = None, alpha: float = 0.55) -> Picture:
        """(H, W, 3) uint8: a head's colours over the image; by default the primary segmentation's, else the first's."""
        return self[head or self.primary or next(iter(self))].overlay(alpha)

    def annotations(
        self, kind: AnnotationKind = "coco", *, photo: str | Path = "photo.png", head: str | None = None
    ) -> dict[str, Any]:
        """The labels in the form in which people correct them: connected regions of one class, background apart.

        Args:
            kind: "coco" (polygons, with this image and the classes as categories), "labelme", or "cvat".
            photo: name or path of the photo, as the annotations will quote it.
            head: with classes; by default the primary one.

        Returns:
            Of "coco" and "labelme" the content of their JSON files; of "cvat" ``labelmap.txt`` (text) and
            ``SegmentationClass/<stem>.png`` (uint8 (H, W, 3)).

        Raises:
            ConfigError: if there is no such kind, or the head has no classes.
        """
        result = self.segmentation if head is None else self[head]
        classes, labels, path = LabelSet.of(result.task), result.prediction, Path(photo)
        if check_kind(kind) == "coco":
            described = LabelledPhoto(path, path.as_posix(), path.stem, 1, lambda: labels)
            content: dict[str, Any] = json.loads("".join(coco_file([described], classes)))
            return content
        if kind == "labelme":
            return labelme_file(labels, classes, path.as_posix())
        return {
            "labelmap.txt": cvat_labelmap(classes),
            f"SegmentationClass/{path.stem}.png": cvat_mask(labels, classes),
        }

    def save(
        self,
        folder: Path | str,
        stem: str = "prediction",
        *,
        extra: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Write every head's files and, last, ``<stem>.json`` into a folder.

        Args:
            folder: created if it does not exist.
            stem: start of the files' names.
            extra: further entries of the JSON record.
            overwrite: replace files that densevit did not write, or that were changed since.

        Returns:
            The record.

        Raises:
            DataError: if a file cannot be written, or one of these names belongs to a file of somebody else.
        """
        files = result_files({name: result.task for name, result in self.items()}, stem)
        size = (self.image.shape[0], self.image.shape[1])
        return save_record(
            Path(folder), stem, self, files, size=size, primary=self.primary, extra=extra, overwrite=overwrite
        )


def make_predictions(
    tasks: Mapping[str, Task],
    images: Sequence[Picture],
    outputs: Sequence[Mapping[str, TiledLogits]],
    *,
    label_offset: int = 0,
) -> list[Prediction]:
    """Images and the outputs of their heads -> predictions; see ``HeadResult`` for ``label_offset``."""
    return [
        Prediction(
            image,
            {
                head: head_result(head, tasks[head], image, tiled, label_offset=label_offset)
                for head, tiled in heads.items()
            },
        )
        for image, heads in zip(images, outputs, strict=True)
    ]
