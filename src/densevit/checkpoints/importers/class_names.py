"""Class names of the data sets that published models were trained on, and the tasks made of them."""

import logging
from collections.abc import Sequence
from typing import Any

from densevit.data.class_names import ADE20K, CITYSCAPES, PASCAL_CONTEXT
from densevit.tasks import Depth, Segmentation

_log = logging.getLogger(__name__)

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "ade20k": ADE20K,
    "cityscapes": CITYSCAPES,
    "pascal_context": PASCAL_CONTEXT,
}


def segmentation(
    num_classes: int, *, dataset: str | None = None, classes: Sequence[Any] = (), **facts: Any
) -> Segmentation:
    """The task of a model of so many classes.

    Names are those that the source states, else those of its data set, else numbers.
    """
    names = tuple(str(name).strip() for name in classes) or CLASS_NAMES.get(dataset or "", ())
    if len(names) != num_classes or len(set(names)) != num_classes:
        if names:
            _log.warning("%d class names for %d classes do not fit; classes are numbered", len(set(names)), num_classes)
        names = tuple(f"class {index}" for index in range(num_classes))
    return Segmentation(classes=names, **facts)


def disparity() -> Depth:
    """Relative inverse depth."""
    return Depth(quantity="disparity")


def metres(max_depth_m: float) -> Depth:
    """Metric depth."""
    return Depth(quantity="depth", max_depth_m=max_depth_m)
