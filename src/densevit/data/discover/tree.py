"""The files of a folder or zip archive, walked once."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from densevit.data.files import as_stored, check_forms
from densevit.errors import DataError
from densevit.io import IMAGE_SUFFIXES, ZipPath, place, walk

PIXEL_SUFFIXES = IMAGE_SUFFIXES | {".npy", ".exr"}

_PAPERS = {".md", ".rst", ".txt", ".pdf", ".html", ".docx", ""}
"""Extensions of what may be beside the one folder of a download, such as README.md and LICENSE."""


@dataclass(frozen=True, slots=True)
class File:
    """A file by its folders and name, both below the root of its tree; the name is ``stem`` and ``suffix``."""

    folders: tuple[str, ...]
    stem: str
    suffix: str

    @property
    def name(self) -> str:
        """The name with its extension as written."""
        return self.stem + self.suffix

    @property
    def inside(self) -> str:
        """The path below the root, with slashes."""
        return "/".join((*self.folders, self.name))


@dataclass
class Tree:
    """All files of a data set.

    Attributes:
        root: folder or archive.
        paths: of the files, by the names that they have below the root.
        litter: number of files that file managers and archivers left, such as ``._*`` and Thumbs.db.
    """

    root: Path
    paths: dict[str, Path] = field(default_factory=dict)
    litter: int = 0

    @cached_property
    def files(self) -> list[File]:
        """All files, litter apart."""
        split = (name.split("/") for name in self.paths)
        return [File(tuple(parts[:-1]), *os.path.splitext(parts[-1])) for parts in split]  # noqa: PTH122 -- many names

    @cached_property
    def pixels(self) -> list[File]:
        """The images and arrays, by their extensions."""
        return [file for file in self.files if file.suffix.lower() in PIXEL_SUFFIXES]

    def path(self, file: File) -> Path:
        """Where a file is."""
        return self.paths[file.inside]

    def having(self, *suffixes: str) -> list[File]:
        """The files with one of some extensions, given in lower case."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def named(self, fits: Callable[[str], bool]) -> list[File]:
        """The files whose name in lower case fits, those nearest to the root first."""
        return sorted((file for file in self.files if fits(file.name.lower())), key=lambda file: len(file.folders))


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 photo, 2,000 photos."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def walk_tree(root: Path) -> Tree:
    """List a folder or archive; the one folder or archive around everything else, as downloads have, is entered.

    Raises:
        DataError: it is no folder, cannot be listed, or holds more files than ``limits`` accept.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder or zip archive; the root of a data set is accepted; check the path")
    listing = walk(root)
    check_forms(listing.files)
    tree = Tree(root, listing.files, len(listing.litter))
    archives = [] if isinstance(root, ZipPath) else tree.having(".zip")
    if len(archives) == 1 and all(file.suffix.lower() in (".zip", *_PAPERS) for file in tree.files):
        return walk_tree(place(tree.path(archives[0])))
    while (wrapper := _wrapper(tree)) is not None:
        inner = {name.removeprefix(f"{wrapper}/"): path for name, path in tree.paths.items() if "/" in name}
        tree = Tree(as_stored(tree.root / wrapper), inner, tree.litter)
    return tree


def entered(root: Path) -> Path:
    """The folder or archive that a layout is looked for in: below those that hold nothing else."""
    return walk_tree(root).root


def tree_of(*places: Path) -> Tree:
    """The tree of some folders and files only, below the folder that they have in common."""
    absolute = [path.absolute() for path in places]
    root = Path(os.path.commonpath([path if path.is_dir() else path.parent for path in absolute]))
    tree = Tree(root)
    for path in absolute:
        inside = path.relative_to(root).as_posix().removeprefix(".")
        if not path.is_dir():
            tree.paths[inside] = path
            continue
        listing = walk(path)
        tree.litter += len(listing.litter)
        tree.paths.update({f"{inside}/{name}".lstrip("/"): file for name, file in listing.files.items()})
    return tree


def _wrapper(tree: Tree) -> str | None:
    """The only folder at the top, where nothing but papers is beside it, and not a list of a split."""
    tops = {file.folders[0] for file in tree.files if file.folders}
    beside = [file for file in tree.files if not file.folders]
    if len(tops) != 1 or any(file.suffix.lower() not in _PAPERS for file in beside):
        return None
    if len({_top(tree, file) for file in tree.files if file.folders}) > 1:  # of one name in two Unicode forms
        return None
    return None if any(file.suffix.lower() == ".txt" for file in beside) else tops.pop()


def _top(tree: Tree, file: File) -> str:
    """The top folder of a file as it is stored."""
    return tree.path(file).as_posix().removeprefix(tree.root.as_posix()).lstrip("/").partition("/")[0]
