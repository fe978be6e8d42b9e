"""What the checks work on: files by name, the facts of each, and the classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from densevit.data import ClassTable
from densevit.data.labels import LabelRule
from densevit.data.pairs import Pairs
from densevit.doctor.facts import MaskFacts, SampleFacts, ShapeFacts
from densevit.doctor.layout import Split
from densevit.doctor.unread import Unread
from densevit.types import Size

_T = TypeVar("_T")

Labelled = tuple[NDArray[np.int64], NDArray[np.int64], MaskFacts | ShapeFacts]
"""Class ids, pixels of each, and their mask."""

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class Context:
    """All that is known of a data set.

    Attributes:
        pairs: the files by name, and what was left over.
        splits: the pairs by split.
        samples: facts of the files that were read.
        classes: the class table, None if unknown or broken.
        colours: class number by colour 0xRRGGBB, where a colour map is known.
        crop: (height, width) of training crops, if known.
        sampled: only a part of the files was read, so nothing can be said about what is absent.
        unread: what was not looked at.
    """

    pairs: Pairs
    splits: list[Split]
    samples: list[SampleFacts]
    classes: ClassTable | None = None
    colours: Mapping[int, int] = field(default_factory=dict)
    crop: Size | None = None
    sampled: bool = False
    unread: Sequence[Unread] = ()

    @property
    def num_classes(self) -> int | None:
        """Number of classes; None if unknown."""
        return None if self.classes is None else len(self.classes.names)

    @property
    def ignore_index(self) -> int:
        """Value of ignored pixels in the masks."""
        return self.classes.ignore_index if self.classes is not None else self.splits[0].config.ignore_index

    @property
    def reduces_zero(self) -> bool:
        """Whether masks are said to count from 1."""
        return any(split.config.reduce_zero_label for split in self.splits)

    def short(self, path: str) -> str:
        """A path relative to the root of the data set."""
        root = self.splits[0].config.root
        return str(Path(path).relative_to(root)) if root is not None and Path(path).is_relative_to(root) else path

    def of(self, kind: type[_T], split: str | None = None) -> list[tuple[SampleFacts, _T]]:
        """All facts of a kind with their samples, of one split or of all."""
        samples = [sample for sample in self.samples if split is None or sample.split == split]
        return [(sample, facts) for sample in samples for facts in sample.files() if isinstance(facts, kind)]

    def class_counts(self, split: str | None = None) -> list[Labelled]:
        """The classes of all masks that have some, with the pixels of each."""
        indexed = [(ids, mask.counts, mask) for mask, ids in self.indexed_masks(split)]
        read = [(*mask.read, mask) for _, mask in self.of(MaskFacts, split) if mask.read is not None]
        drawn = [(shapes.values, shapes.counts, shapes) for _, shapes in self.of(ShapeFacts, split)]
        return [*indexed, *read, *(item for item in drawn if item[0].size)]

    def indexed_masks(self, split: str | None = None) -> list[tuple[MaskFacts, NDArray[np.int64]]]:
        """Masks whose values can be class numbers, each with the class ids that training sees; unknown numbers stay."""
        rule = partial(LabelRule, None, ignore_index=self.ignore_index)
        rules = {
            s.name: rule(ignored=s.config.ignore_values, reduce_zero=s.config.reduce_zero_label)
            for s in self.splits
            if s.config.class_values is None
        }
        masks = [(sample.split, mask) for sample, mask in self.of(MaskFacts, split) if mask.is_indexed]
        masks = [(name, mask) for name, mask in masks if name in rules]
        return [(mask, rules[name].shift(mask.values)) for name, mask in masks]
