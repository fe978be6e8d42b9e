"""What a config says about the numbers in files, beside where they lie."""

from collections.abc import Mapping
from dataclasses import replace

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
    return config.ignore_values


def invalid_depths(config: FolderConfig) -> tuple[float, ...]:
    """Stored depths that stand for no measurement, beside 0 and what is not finite."""
    return config.depth_invalid


def metres_per_step(depth: DepthFacts, config: FolderConfig) -> float:
    """Of integers, or of floats, as the map is read."""
    return config.depth_scale_m if depth.bits == 0 else config.depth_unit_m


def has_bands(config: FolderConfig) -> bool:
    """Photos are read band by band, which is not looked at."""
    return config.bands is not None


def palette_of(config: FolderConfig) -> dict[int, int]:
    """Class number by colour, where the config itself gives the colours."""
    return {red << 16 | green << 8 | blue: index for index, (red, green, blue) in enumerate(config.palette or ())}


def as_classes(mask: MaskFacts, config: FolderConfig, colours: Mapping[int, int], ignore_index: int) -> MaskFacts:
    """A mask in the colours of the data set's palette, as the class numbers that its reader makes of them."""
    if not mask.colours or not colours:
        return mask
    unknown = None if config.unknown_colours == "refuse" else ignore_index
    labels = [colours.get(colour, unknown) for colour in mask.values.tolist()]
    if None in labels:
        return mask
    values, places = np.unique(np.array(labels, np.int64), return_inverse=True)
    counts = np.bincount(places, weights=mask.counts, minlength=len(values)).astype(np.int64)
    return replace(mask, values=values, counts=counts, num_values=len(values), colours=False, mode="palette")
