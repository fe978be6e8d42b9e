"""What the checks look at: the files by name, their facts, and the classes; with the few views that several need."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from densevit.data import ClassTable, FolderConfig
from densevit.doctor.facts import Broken, MaskFacts, PhotoFacts, SampleFacts
from densevit.doctor.layout import Split
from densevit.types import Size

_T = TypeVar("_T")

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "test")
LOSSY = {"JPEG", "MPO"}


@dataclass(frozen=True, slots=True)
class Material:
    """All that was found out about a data set.

    Attributes:
        splits: files by name.
        samples: facts of what was read; all of it unless ``sampled``.
        classes: the class table, None if unknown or broken.
        colours: class number by colour 0xRRGGBB, where a colour map is known.
        crop: (height, width) that training cuts out, if known.
        sampled: a part of the files was read, so that nothing may be said of what was not seen.
    """

    splits: list[Split]
    samples: list[SampleFacts]
    classes: ClassTable | None = None
    colours: Mapping[int, int] = field(default_factory=dict)
    crop: Size | None = None
    sampled: bool = False

    @property
    def num_classes(self) -> int | None:
        """How many classes there are; None if unknown."""
        return None if self.classes is None else len(self.classes.names)

    def config(self, split: str) -> FolderConfig:
        """How a split is read."""
        return next(s.config for s in self.splits if s.name == split)

    @property
    def ignore_index(self) -> int:
        """Of the masks as stored."""
        return self.classes.ignore_index if self.classes is not None else self.splits[0].config.ignore_index

    def short(self, path: str) -> str:
        """A path as seen from the root of the data set."""
        root = self.splits[0].config.root
        return str(Path(path).relative_to(root)) if root is not None and Path(path).is_relative_to(root) else path

    def of(self, kind: str, facts: type[_T]) -> Iterator[tuple[SampleFacts, _T]]:
        """(sample, facts of its file) of every file of a kind that could be read."""
        for sample in self.samples:
            found = getattr(sample, kind)
            if isinstance(found, facts):
                yield sample, found

    def photos(self) -> Iterator[tuple[SampleFacts, PhotoFacts]]:
        """Photos that could be read."""
        return self.of("photo", PhotoFacts)

    def masks(self) -> Iterator[tuple[SampleFacts, MaskFacts]]:
        """Masks that could be read."""
        return self.of("masks", MaskFacts)

    def broken(self) -> Iterator[tuple[SampleFacts, Broken]]:
        """Files that could not be read."""
        for sample in self.samples:
            for facts in sample.files():
                if isinstance(facts, Broken):
                    yield sample, facts


def is_indexed(mask: MaskFacts) -> bool:
    """Its values can be meant as class numbers."""
    return not mask.colours and mask.format not in LOSSY
