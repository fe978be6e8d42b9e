"""CutMix and ClassMix: parts of one example of a batch, image and targets alike, pasted into another.

CutMix: Yun et al., "CutMix", ICCV 2019 (section 3); for segmentation the pasted pixels bring their own targets, so
nothing is averaged: French et al., BMVC 2020. ClassMix: Olsson et al., WACV 2021 (section 3.2).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from densevit.data.colour_jitter import uniform
from densevit.data.sample import ALL_TARGETS
from densevit.data.transforms import AugmentConfig, Example
from densevit.types import Size


def mix(examples: Sequence[Example], config: AugmentConfig, generators: Sequence[torch.Generator]) -> list[Example]:
    """Paste a part of its neighbour into each example, with the probabilities of the config.

    The examples 0 and 1, 2 and 3, and so on are neighbours, and each draws from its own generator, so a batch that is
    cut into even parts, for accumulation or several processes, is mixed in the same way. The last of an odd number is
    unchanged.

    Args:
        examples: of one size, with the same targets; they are not changed.
        config: the probabilities ``cutmix`` and ``classmix``.
        generators: one per example.
    """
    mixed = list(examples)
    for index in range(len(examples) - len(examples) % 2):
        mask = draw_mask(examples[index ^ 1], config, generators[index])
        if mask is not None:
            mixed[index] = paste(examples[index ^ 1], examples[index], mask)
    return mixed


def draw_mask(donor: Example, config: AugmentConfig, generator: torch.Generator) -> Tensor | None:
    """The part of the donor to paste, bool (H, W); None for nothing, as from ClassMix without labels."""
    coin = float(torch.rand((), generator=generator))
    if coin < config.cutmix:
        return _rectangle((donor.image.shape[-2], donor.image.shape[-1]), generator)
    if coin < config.cutmix + config.classmix and donor.labels is not None:
        return _half_of_the_classes(donor.labels, donor.ignore_index, generator)
    return None


def paste(donor: Example, receiver: Example, mask: Tensor) -> Example:
    """The receiver with the donor's pixels and targets where ``mask``, bool (H, W), is true."""
    pasted: dict[str, Any] = {}
    for name in ("image", *sorted(ALL_TARGETS)):
        source, below = getattr(donor, name), getattr(receiver, name)
        if source is not None and below is not None:
            pasted[name] = torch.where(mask, source, below)
    return replace(receiver, **pasted)


def _rectangle(size: Size, generator: torch.Generator) -> Tensor:
    """A rectangle of the image's aspect whose share of the area is uniform, around a uniform centre, cut at edges."""
    side = uniform(0, 1, generator) ** 0.5
    mask = torch.zeros(size, dtype=torch.bool)
    spans = []
    for length in size:
        centre, half = uniform(0, length, generator), side * length / 2
        spans.append(slice(max(round(centre - half), 0), min(round(centre + half), length)))
    mask[spans[0], spans[1]] = True
    return mask


def _half_of_the_classes(labels: Tensor, ignore_index: int, generator: torch.Generator) -> Tensor | None:
    """The pixels of a random half of the classes, rounded down; None with less than two classes."""
    classes = labels.unique()
    classes = classes[classes != ignore_index]
    if len(classes) < 2:
        return None
    chosen = classes[torch.randperm(len(classes), generator=generator)[: len(classes) // 2]]
    return torch.isin(labels, chosen)
