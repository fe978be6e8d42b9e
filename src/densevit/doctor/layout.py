"""The pairs of a data set by split, as the checks look at them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from densevit.data import FolderConfig
from densevit.data.pairs import Pairs, find_pairs
from densevit.data.sample import TARGET_FOLDERS, TargetFolder
from densevit.data.shapes import ShapeReader
from densevit.doctor.drawing import Drawing, StoredMask, drawing_of
from densevit.errors import DataError

KINDS = tuple(TARGET_FOLDERS.values())


@dataclass(slots=True)
class Split:
    """The photos of a split with their targets.

    Attributes:
        name: "" where a data set has no splits.
        config: where it is and how it is read.
        photos: by the names of their pairs, in order.
        targets: of each kind that the data set has, by the name of the pair; several where each shows one class.
        shapes: whether masks are drawn from COCO's annotations or labelme's files.
        regions: the class of each of several masks, by the name of the pair.
        reader: draws them; None if they are not drawn, or cannot be.
        stored: reads masks that are images, where their numbers are not those of the classes.
        class_names: of the classes, where masks are drawn from several files.
    """

    name: str
    config: FolderConfig
    photos: dict[str, Path] = field(default_factory=dict)
    targets: dict[TargetFolder, dict[str, tuple[Path, ...]]] = field(default_factory=dict)
    shapes: Literal["coco", "labelme"] | None = None
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reader: ShapeReader | None = None
    stored: StoredMask | None = None
    class_names: tuple[str, ...] = ()

    @property
    def is_drawn(self) -> bool:
        """Whether masks are drawn from shapes, or from a file for each class."""
        return self.shapes is not None or bool(self.regions)

    def files(self, name: str) -> dict[str, Path]:
        """The files of a sample by kind; the first of several."""
        targets: dict[str, Path] = {kind: paths[name][0] for kind, paths in self.targets.items() if name in paths}
        return {"images": self.photos[name], **targets}

    def drawing(self, name: str) -> Drawing | None:
        """How the mask of a sample is drawn; None if it is stored."""
        file = self.targets.get("masks", {}).get(name)
        if not self.is_drawn or file is None or (self.shapes is None and self.reader is None):
            return None
        return drawing_of(self.reader, self.photos[name], file[0], self.class_names)

    def missing(self, kind: TargetFolder) -> list[Path]:
        """Photos without a target of a kind."""
        return [photo for name, photo in self.photos.items() if name not in self.targets[kind]]


def read_layout(config: FolderConfig, only: Sequence[str] = ()) -> tuple[Pairs, list[Split]]:
    """Pair the files of a data set, and sort the pairs by split: those in ``only``, else all.

    Raises:
        DataError: there is no such folder, file or split, or there are no photos.
    """
    pairs = find_pairs(config)
    place = config.pairs or config.root or config.images
    if not pairs.pairs:
        raise DataError(f"{place} has no photos{_left(pairs)}; a photo and its mask or depth map are needed; check it")
    names = pairs.splits()
    if unknown := [name for name in only if name not in names]:
        raise DataError(
            f"{place} has no split {unknown[0]!r}; splits found: {', '.join(names) or 'none'}; name one of them"
        )
    has_rest = any(not pair.split for pair in pairs.pairs)
    wanted = [name for name in names if not only or name in only] + [""] * (has_rest and not only)
    return pairs, [split_of(pairs, config, name) for name in wanted]


def split_of(pairs: Pairs, config: FolderConfig, name: str, kinds: Iterable[TargetFolder] = KINDS) -> Split:
    """The pairs of a split."""
    chosen = [pair for pair in pairs.pairs if pair.split == name]
    split = Split(name, config if not name else config.model_copy(update={"split": name}))
    split.photos = {pair.name: pair.image for pair in chosen}
    missing = {kind: {*pairs.missing.get(kind, ())} for kind in kinds}
    has = [kind for kind in kinds if any(kind in pair.targets or pair.image in missing[kind] for pair in chosen)]
    split.shapes = pairs.shapes
    split.regions = {pair.name: pair.regions for pair in chosen if pair.regions}
    split.targets = {kind: {p.name: p.targets[kind] for p in chosen if kind in p.targets} for kind in has}
    return split


def _left(pairs: Pairs) -> str:
    if not pairs.passed_over:
        return ""
    path, reason = next(iter(pairs.passed_over.items()))
    return f" (passed over: {len(pairs.passed_over)} files, such as {path.name}, {reason})"
