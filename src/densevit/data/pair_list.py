"""Pairs that a table lists: a CSV file with a row for each photo."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from densevit.config import nearest
from densevit.data.files import name_key
from densevit.data.sample import TargetFolder
from densevit.errors import DataError
from densevit.io import place, read_rows
from densevit.limits import limits, too_much

COLUMNS = ("image", "mask", "depth", "values", "split")

_ALIASES = {"images": "image", "photo": "image", "masks": "mask", "label": "mask", "value": "values"}
_KINDS: dict[str, TargetFolder] = {"mask": "masks", "depth": "depth", "values": "values"}
_EXPECTED = (
    "a CSV table in UTF-8 with the columns image and any of mask, depth, values and split, separated by comma, "
    "semicolon or tab,"
)


@dataclass(frozen=True, slots=True)
class Row:
    """A photo of the table with its targets; ``split`` is "" without such a column."""

    name: str
    image: Path
    targets: dict[TargetFolder, Path]
    split: str


def read_pair_list(path: Path, root: Path | None = None) -> tuple[list[Row], list[TargetFolder]]:
    """Read the table; its paths are relative to its folder, or else to ``root``.

    Returns:
        The rows, and the kinds of targets that have a column.

    Raises:
        DataError: it is no such table, a file is missing, or a photo is listed twice.
    """
    delimiter, rows = read_rows(path, _EXPECTED)
    if len(rows) > limits().files:
        raise DataError(too_much(f"{path} has {len(rows):,} rows", "files"))
    header = _header(path, rows[0] if rows else [], delimiter)
    kinds = [kind for column, kind in _KINDS.items() if column in header]
    bases = [path.parent, *([root] if root is not None else [])]
    found: list[Row] = []
    missing: list[str] = []
    for number, cells in enumerate(rows[1:], 2):
        if len(cells) > len(header) and any(cells[len(header) :]):
            raise DataError(
                f"{path} has {len(cells)} cells in row {number} but {len(header)} columns; put names that have a "
                "delimiter into quotes"
            )
        row = dict(zip(header, cells, strict=False))
        if not row.get("image"):
            raise DataError(f"{path} has no image in row {number}; each row needs one; add it or remove the row")
        files = {column: _find(text, bases) for column, text in row.items() if column in ("image", *_KINDS) and text}
        missing += [f"{row[column]:.200} (row {number})" for column, file in files.items() if file is None]
        targets = {_KINDS[column]: file for column, file in files.items() if column != "image" and file is not None}
        image = files["image"] or Path(row["image"])
        found.append(Row(_name(row["image"]), image, targets, row.get("split", "")))
    if missing:
        raise DataError(
            f"{path} lists {len(missing)} files that do not exist below {bases[0]}, for example "
            f"{', '.join(missing[:3])}; paths relative to the folder of the table are accepted; correct them"
        )
    if not found:
        raise DataError(f"{path} has no rows below its header; a row for each photo is needed; add them")
    return _unique(found, path), kinds


def column_name(cell: str) -> str:
    """The column that a cell of the header names; ``file_name`` and the like are those of Hugging Face's folders."""
    name = cell.casefold()
    name = "image" if name == "file_name" else name.removesuffix("_file_name")
    return _ALIASES.get(name, name)


def _header(path: Path, cells: Sequence[str], delimiter: str) -> list[str]:
    names = [column_name(cell) for cell in cells]
    if "image" not in names:
        raise DataError(f"{path} has the header {delimiter.join(cells)!r:.80}, without image; {_EXPECTED} is accepted")
    for name in names:
        if name and name not in COLUMNS:
            raise DataError(f"{path} has a column {name!r:.40}{nearest(name, COLUMNS)}")
        if names.count(name) > 1 and name:
            raise DataError(f"{path} has the column {name} twice; each may occur once; remove one")
    if not {*names} & {*_KINDS} and len(names) > 2:
        raise DataError(f"{path} has no target; {_EXPECTED} is accepted")
    return names


def _find(text: str, bases: Sequence[Path]) -> Path | None:
    """The file that a cell names, with slashes or backslashes and in either Unicode form; None if there is none."""
    for form in dict.fromkeys((text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))):
        for written in dict.fromkeys((form, form.replace("\\", "/"))):
            for base in bases:
                file = place(written) if Path(written).is_absolute() else place(base / written)
                if _is_file(file):
                    return file
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _name(text: str) -> str:
    """The name of a photo: its path as written, without suffix and without what leads to other folders."""
    text = PureWindowsPath(text).as_posix() if "\\" in text else text
    text = re.sub(r"^([a-zA-Z]:)?/*(\.{1,2}/+)*", "", name_key(text))
    stem, dot, suffix = text.rpartition(".")
    return stem if dot and stem and "/" not in suffix else text


def _unique(rows: list[Row], path: Path) -> list[Row]:
    """The rows with names that occur once; photos that differ in their suffix keep it."""
    counts: dict[str, int] = {}
    images: set[Path] = set()
    for row in rows:
        if row.image in images:
            raise DataError(f"{path} lists {row.image} twice; each photo may have one row; remove the others")
        images.add(row.image)
        counts[row.name] = counts.get(row.name, 0) + 1
    return [
        row if counts[row.name] == 1 else Row(f"{row.name}{row.image.suffix}", row.image, row.targets, row.split)
        for row in rows
    ]
