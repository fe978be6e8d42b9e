"""What the doctor did not look at, so that silence about it is not taken for praise."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densevit.data import FolderConfig
from densevit.data.pairs import Pairs
from densevit.doctor.layout import Split
from densevit.doctor.rules import listed
from densevit.io import walk

_KNOWN = {"classes.json", "dataset.yaml"}


@dataclass(frozen=True, slots=True)
class Unread:
    """Files that were not looked at.

    Attributes:
        what: what they are, or why they were not, in words that follow their number.
        count: how many.
        example: one of them; None where there is no single one.
    """

    what: str
    count: int
    example: Path | None = None

    def line(self) -> str:
        """In words."""
        return f"{self.count} {self.what}" + (f" (such as {self.example.name})" if self.example is not None else "")


def not_looked_at(
    config: FolderConfig, pairs: Pairs, splits: Sequence[Split], read: int, only: Sequence[str] = ()
) -> list[Unread]:
    """What was passed over, is not of the pairs, or was left out on request.

    Args:
        config: the data set.
        pairs: its files.
        splits: those that were examined.
        read: number of photos that were opened.
        only: names of the splits to which the examination was restricted.
    """
    found = _by_reason(pairs)
    found += _elsewhere(config, pairs)
    if pairs.litter:
        found.append(Unread("hidden files and the like, which file managers and archivers leave", pairs.litter))
    if only:
        others = [pair.image for pair in pairs.pairs if pair.split not in only]
        found += [Unread("photos of other splits", len(others), others[0])] if others else []
    total = sum(len(split.photos) for split in splits)
    if read < total:
        targets = sum(len(paths) for split in splits for paths in split.targets.values())
        of_them = " and their targets" if targets else ""
        found.append(Unread(f"of {total} photos{of_them}, of which only the names were compared", total - read))
    return found


def _by_reason(pairs: Pairs) -> list[Unread]:
    """The files that were passed over."""
    reasons: dict[str, list[Path]] = {}
    for path, reason in pairs.passed_over.items():
        reasons.setdefault(reason, []).append(path)
    return [Unread(f"files: {reason}", len(paths), paths[0]) for reason, paths in reasons.items()]


def _elsewhere(config: FolderConfig, pairs: Pairs) -> list[Unread]:
    """The files below the root that no folder or template reaches, by folder and suffix."""
    if config.root is None or not config.root.is_dir():
        return []
    known = {path for pair in pairs.pairs for path in (pair.image, *sum(pair.targets.values(), ()))}
    known |= {*pairs.passed_over, *pairs.dangling, *(path for paths in pairs.orphans.values() for path in paths)}
    known |= {path for pair in pairs.twins for path in pair}
    known |= {path for path in (config.pairs, config.tasks) if path is not None}
    groups: dict[str, list[Path]] = {}
    for relative, path in walk(config.root).files.items():
        if path not in known and relative not in _KNOWN:
            folder = relative.partition("/")[0] if "/" in relative else ""
            groups.setdefault(folder, []).append(path)
    return [
        Unread(f"files in {folder or 'the root'}, which belong to no pair: {_suffixes(paths)}", len(paths), paths[0])
        for folder, paths in groups.items()
    ]


def _suffixes(paths: Sequence[Path]) -> str:
    """How many files have each suffix."""
    counts = Counter(path.suffix.lower() or "without suffix" for path in paths)
    return listed([f"{count} {suffix}" for suffix, count in counts.most_common()], 4)
