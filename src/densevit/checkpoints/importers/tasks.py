"""The tasks of published models, with the class names of their data sets."""

import logging
from collections.abc import Sequence
from typing import Any

from densevit.data.class_names import ADE20K, CITYSCAPES, PASCAL_CONTEXT
from densevit.tasks import Depth, Segmentation

_log = logging.getLogger(__name__)

CLASS_NAMES = {"ade20k": ADE20K, "cityscapes": CITYSCAPES, "pascal_context": PASCAL_CONTEXT}


def segmentation(
    num_classes: int, *, dataset: str | None = None, classes: Sequence[Any] = (), **settings: Any
) -> Segmentation:
    """Segmentation with the class names of the checkpoint, else those of its data set, else numbers."""
    names = tuple(str(name).strip() for name in classes) or CLASS_NAMES.get(dataset or "", ())
    if len(names) != num_classes or len(set(names)) != num_classes:
        if names:
            _log.warning(
                "there are %d class names for %d classes; classes are numbered instead", len(set(names)), num_classes
            )
        names = tuple(f"class {index}" for index in range(num_classes))
    return Segmentation(classes=names, **settings)


def depth_task(max_depth_m: float | None) -> Depth:
    """Metric depth up to a maximum, or relative inverse depth if there is none."""
    if max_depth_m is None:
        return Depth(quantity="disparity")
    return Depth(quantity="depth", max_depth_m=max_depth_m)
