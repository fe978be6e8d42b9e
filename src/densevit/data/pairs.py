"""Photos and their targets, found by one rule for training, evaluation and the doctor."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from densevit.data.sample import TargetFolder

if TYPE_CHECKING:
    from densevit.data.folder import FolderConfig


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo and its targets.

    Attributes:
        name: unique in its data set, such as "kitchen/0012"; the same for all commands, and in lists of splits.
        image: its file.
        targets: file or files of each kind; several where each shows one class or region.
        split: "" where the data set has none.
    """

    name: str
    image: Path
    targets: dict[TargetFolder, tuple[Path, ...]]
    split: str = ""


@dataclass(slots=True)
class Pairs:
    """The pairs of a data set, and what was left over.

    Attributes:
        pairs: in natural order of their names.
        missing: photos that lack a target, by kind.
        orphans: targets without a photo, by kind.
        twins: files that claim the same place.
        case: (photo, target) whose names differ only in upper and lower case.
        dangling: links to files that do not exist.
        passed_over: the other files, with the reason.
        litter: number of files that file managers and archivers leave, such as ``._*`` and Thumbs.db.
    """

    pairs: list[Pair] = field(default_factory=list)
    missing: dict[TargetFolder, list[Path]] = field(default_factory=dict)
    orphans: dict[TargetFolder, list[Path]] = field(default_factory=dict)
    twins: list[tuple[Path, Path]] = field(default_factory=list)
    case: list[tuple[Path, Path]] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)
    litter: int = 0

    def splits(self) -> list[str]:
        """Names of the splits, train first, then val and its other names, then the rest."""
        raise NotImplementedError


def find_pairs(config: "FolderConfig") -> Pairs:
    """List the files of a data set, of one split if the config names it, and pair them; nothing is opened.

    Raises:
        DataError: there is no such folder, file or split.
    """
    raise NotImplementedError
