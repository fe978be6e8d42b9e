"""List the photos that files, folders and globs name."""

import glob
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densevit_runtime.errors import DataError
from densevit_runtime.io.decode import IMAGE_SUFFIXES, reason, require_file
from densevit_runtime.io.zipped import place

_SOURCES = "a photo, a folder of photos or a quoted glob such as 'photos/**/*.jpg' is accepted"


@dataclass(frozen=True)
class FoundPhotos:
    """The photos that some sources name, and what else is there.

    Attributes:
        photos: in natural order (``img2`` before ``img10``), each once.
        passed_over: the other entries of folders and globs, hidden ones apart, with the reason.
    """

    photos: list[Path]
    passed_over: dict[Path, str]


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """The photos that files, folders and globs name, in natural order; see ``find_photos``."""
    return find_photos(sources).photos


def find_photos(sources: Sequence[str | Path]) -> FoundPhotos:
    """List the photos that files, folders and globs name.

    A folder stands for the images directly in it, by ``IMAGE_SUFFIXES`` and without hidden files; the glob
    ``folder/**`` reaches subfolders. A glob (``*``, ``?``, ``[``; ``**`` spans folders) is filtered in the same way. A
    named file is kept whatever its extension, and a name that exists is never treated as a glob.

    Raises:
        DataError: no source is given, or one of them matches nothing.
    """
    sources = [sources] if isinstance(sources, str | Path) else sources
    if not sources:
        raise DataError(f"no photo was named; {_SOURCES}")
    passed_over: dict[Path, str] = {}
    photos = [path for source in sources for path in _matches(place(source), passed_over)]
    # Links are not resolved: a link next to its target is a second photo with its own name.
    unique = {os.path.normpath(path.absolute()): path for path in reversed(photos)}
    return FoundPhotos(sorted(unique.values(), key=natural_key), passed_over)


def _matches(source: Path, passed_over: dict[Path, str]) -> list[Path]:
    """The photos of one source; what else it has is entered in ``passed_over``."""
    try:
        source = source.expanduser()
        if source.is_dir():
            candidates = list(source.iterdir())
        elif glob.has_magic(str(source)) and not source.exists():
            candidates = [Path(name) for name in glob.iglob(str(source), recursive=True)]  # noqa: PTH207 -- or absolute
        elif source.is_file():
            return [source]  # also an empty file, which must not fail the whole list
        elif not source.exists():
            raise DataError(f"{source} does not exist; {_SOURCES}; check the path")
        else:
            require_file(source)
            return [source]
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{source} cannot be listed ({reason(error)}); {_SOURCES}; check the permissions") from error
    is_folder = source.is_dir()
    # A glob with ** goes into folders, so they are not passed over.
    shown = [path for path in candidates if not path.name.startswith(".") and (is_folder or not path.is_dir())]
    others = {path: _other_kind(path) for path in shown}
    photos = [path for path, kind in others.items() if kind is None]
    if not photos:
        kinds = ", ".join(f"{path.name} is {kind}" for path, kind in list(others.items())[:3])
        raise DataError(
            f"{source} is {'a folder' if is_folder else 'a glob'} without a photo (by extension, among "
            f"{len(candidates)} entries{f': {kinds}' if kinds else ''}); {_SOURCES}; check the name, or reach "
            "subfolders with '**'"
        )
    passed_over |= {path: kind for path, kind in others.items() if kind is not None}
    return photos


def _other_kind(path: Path) -> str | None:
    """What an entry of a folder is, if it is not a photo by its name."""
    if path.is_dir():
        return "a folder"
    if path.suffix.lower() in IMAGE_SUFFIXES:
        if path.is_file():
            return None
        return "a link whose target is missing" if path.is_symlink() else "a device or a pipe"
    return f"{path.suffix.lower()}, which is not a format that is read" if path.suffix else "without an extension"


def natural_key(path: Path) -> tuple[list[str | int], str]:
    """Sort key of natural order: runs of digits are numbers; text and numbers alternate, so that they compare."""
    parts = re.split("([0-9]+)", path.as_posix().casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)


def unique_stems(photos: Sequence[Path]) -> list[str]:
    """A file name stem for the results of every photo: its own, with suffix or folder where stems repeat."""
    names = [photo.stem for photo in photos]
    for longer in (lambda p: p.name, lambda p: f"{p.parent.name}_{p.name}", lambda p: "_".join(p.absolute().parts[1:])):
        counts = Counter(name.lower() for name in names)
        names = [longer(p) if counts[n.lower()] > 1 else n for p, n in zip(photos, names, strict=True)]
    taken: set[str] = set()
    unique: list[str] = []
    for name in names:
        while name.lower() in taken:  # x/a.jpg and x_a.jpg may still meet
            name += "_"
        taken.add(name.lower())
        unique.append(name)
    return unique
