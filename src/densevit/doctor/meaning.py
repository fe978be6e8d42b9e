"""What a config says about the numbers in files, beside where they lie."""

import numpy as np
from numpy.typing import NDArray

from densevit.data import FolderConfig
from densevit.doctor.facts import DepthFacts, MaskFacts


def class_ids(mask: MaskFacts, config: FolderConfig, ignore_index: int) -> NDArray[np.int64]:
    """The class numbers of ``mask.values``, as training sees them."""
    labels = np.where(np.isin(mask.values, ignored_values(config)), ignore_index, mask.values)
    if not config.reduce_zero_label:
        return labels
    return np.where((labels == 0) | (labels == ignore_index), ignore_index, labels - 1)


def ignored_values(config: FolderConfig) -> tuple[int, ...]:
    """Numbers in masks that stand for no class, beside the ignore value."""
    return tuple(getattr(config, "ignore_values", ()))


def invalid_depths(config: FolderConfig) -> tuple[float, ...]:
    """Stored depths that stand for no measurement, beside 0 and what is not finite."""
    return tuple(getattr(config, "depth_invalid", ()))


def metres_per_step(depth: DepthFacts, config: FolderConfig) -> float:
    """Of integers, or of floats, as the map is read."""
    return float(getattr(config, "depth_scale_m", 1.0)) if depth.bits == 0 else config.depth_unit_m


def has_bands(config: FolderConfig) -> bool:
    """Photos are read band by band, which is not looked at."""
    return getattr(config, "bands", None) is not None


def palette_of(config: FolderConfig) -> dict[int, int]:
    """Class number by colour, where the config itself gives the colours."""
    colours = getattr(config, "palette", None) or ()
    return {red << 16 | green << 8 | blue: index for index, (red, green, blue) in enumerate(colours)}


def reads_colours() -> bool:
    """Masks in the colours of a palette are read as they are."""
    return "palette" in FolderConfig.model_fields
