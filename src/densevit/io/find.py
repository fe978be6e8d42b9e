"""List the photos that files, folders and globs name."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from densevit.errors import DataError
from densevit.io.decode import IMAGE_SUFFIXES, reason, require_file
from densevit.io.zipped import place

_SOURCES = "a photo, a folder of photos or a quoted glob such as 'photos/**/*.jpg' is accepted"


def find_images(sources: Sequence[str | Path]) -> list[Path]:
    """List the photos that files, folders and globs name, in natural order (``img2`` before ``img10``), each once.

    A folder stands for the images directly in it, by ``IMAGE_SUFFIXES`` and without hidden files; the glob
    ``folder/**`` reaches subfolders. A glob (``*``, ``?``, ``[``; ``**`` spans folders) is filtered in the same way. A
    named file is kept whatever its extension, and a name that exists is never treated as a glob.

    Raises:
        DataError: no source is given, or one of them matches nothing.
    """
    sources = [sources] if isinstance(sources, str | Path) else sources
    if not sources:
        raise DataError(f"no photo was named; {_SOURCES}")
    photos = [path for source in sources for path in _matches(place(source))]
    # Links are not resolved: a link next to its target is a second photo with its own name.
    unique = {os.path.normpath(path.absolute()): path for path in reversed(photos)}
    return sorted(unique.values(), key=_natural)


def _matches(source: Path) -> list[Path]:
    """The photos of one source."""
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
    photos = [path for path in candidates if _is_photo(path)]
    if not photos:
        kind = "a folder" if source.is_dir() else "a glob"
        raise DataError(
            f"{source} is {kind} without a photo (by extension, among {len(candidates)} entries); {_SOURCES}; check the"
            " name, or reach subfolders with '**'"
        )
    return photos


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sort key in which runs of digits are numbers; text and numbers alternate, so that they compare."""
    parts = re.split("([0-9]+)", path.as_posix().casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], str(path)
