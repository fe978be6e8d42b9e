"""Files that list the classes of masks, as tools and people write them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densevit.data.discover.tree import File, Tree
from densevit.data.sample import Rgb
from densevit.errors import DataError
from densevit.io import read_json, read_lines, read_rows
from densevit.limits import limits


@dataclass(frozen=True)
class Listed:
    """Classes as a file lists them.

    Attributes:
        source: the file.
        names: of the classes.
        palette: their colours, or empty.
        values: their numbers in masks, or empty.
    """

    source: str
    names: tuple[str, ...]
    palette: tuple[Rgb, ...] = ()
    values: tuple[int, ...] = ()


def listed_classes(tree: Tree) -> tuple[Listed | None, list[str]]:
    """The first list of classes that the data set has, and sentences on those that cannot be read."""
    remarks: list[str] = []
    for fits, read in _LISTS:
        for file in tree.named(fits):
            try:
                listed = read(tree, file)
            except (ValueError, IndexError):
                continue
            except DataError as error:
                remarks.append(f"a list of classes is passed over: {error}")
                continue
            if listed is not None and 0 < len(listed.names) <= limits().classes:
                return listed, remarks
    return None, remarks


def _labelmap(tree: Tree, file: File) -> Listed | None:
    """CVAT's labelmap.txt: name:red,green,blue:parts:actions."""
    rows = [line.split(":") for line in read_lines(tree.path(file), "labels") if not line.startswith("#")]
    colours = [tuple(int(part) for part in row[1].split(",")) for row in rows]
    if any(len(colour) != 3 for colour in colours):
        return None
    return Listed(file.inside, tuple(row[0] for row in rows), tuple((c[0], c[1], c[2]) for c in colours))


def _table(tree: Tree, file: File) -> Listed | None:
    """A table of names with numbers (Roboflow's Pixel Value, Class), or with red, green and blue."""
    rows = read_rows(tree.path(file), "a table of classes")[1]
    head = [cell.lower() for cell in rows[0]]
    name, value, *parts = (next((i for i, cell in enumerate(head) if cell in words), None) for words in _COLUMNS)
    if name is None:
        return _of_lines(file.inside, [" ".join(row) for row in rows])
    names = tuple(row[name] for row in rows[1:])
    red, green, blue = parts
    if red is not None and green is not None and blue is not None:
        return Listed(file.inside, names, tuple((int(row[red]), int(row[green]), int(row[blue])) for row in rows[1:]))
    if value is None:
        return None
    cells = [re.findall(r"\d+", row[value]) for row in rows[1:]]
    if all(len(numbers) == 3 for numbers in cells):  # V7 writes colours as 255 0 0
        return Listed(file.inside, names, tuple((int(r), int(g), int(b)) for r, g, b in cells))
    found = sorted((int(row[value]), row[name]) for row in rows[1:])
    return Listed(file.inside, tuple(text for _, text in found), values=tuple(number for number, _ in found))


def _text(tree: Tree, file: File) -> Listed | None:
    """A class on each line: its name, also with its number before it, or with red, green and blue on either side."""
    lines = [line for line in read_lines(tree.path(file), "names of classes") if not line.startswith("#")]
    return _of_lines(file.inside, lines) or Listed(file.inside, tuple(lines))


def _colours(tree: Tree, file: File) -> Listed | None:
    """A text of colours and names, such as CamVid's label_colors.txt."""
    return _of_lines(file.inside, read_lines(tree.path(file), "colours and names of classes"))


def _json(tree: Tree, file: File) -> Listed | None:
    """{"cell": 1}, {"cell": [255, 0, 0]}, {"1": "cell"}, or rows with name or title, and id or color."""
    data = read_json(tree.path(file), "a list of classes")
    lists = [
        data[key] for key in ("classes", "labels") if isinstance(data, Mapping) and isinstance(data.get(key), list)
    ]
    rows = lists[0] if lists else data
    if isinstance(rows, Mapping):
        pairs = [(value, key) if isinstance(value, str) else (key, value) for key, value in rows.items()]
    elif isinstance(rows, list) and all(isinstance(row, Mapping) for row in rows):
        pairs = [(_first(row, "name", "title", "label"), _first(row, "id", "value", "color", "colour")) for row in rows]
    else:
        return None
    if not pairs or not all(isinstance(name, str) for name, _ in pairs):
        return None
    if all(isinstance(value, list) and len(value) == 3 for _, value in pairs):
        colours = tuple((int(red), int(green), int(blue)) for _, (red, green, blue) in pairs)
        return Listed(file.inside, tuple(name for name, _ in pairs), colours)
    if not all(re.fullmatch(r"\d{1,5}", str(value)) for _, value in pairs):
        return None
    found = sorted((int(value), name) for name, value in pairs)
    return Listed(file.inside, tuple(name for _, name in found), values=tuple(value for value, _ in found))


def _first(row: Mapping[str, Any], *keys: str) -> Any:
    return next((row[key] for key in keys if key in row), None)


def _of_lines(source: str, lines: Sequence[str]) -> Listed | None:
    """The classes of lines of one form; None if some differ."""
    for form in _LINES:
        found = [form.fullmatch(line) for line in lines]
        rows = [one.groupdict() for one in found if one is not None]
        if not rows or len(rows) < len(lines):
            continue
        names = tuple(row["name"].strip() for row in rows)
        numbers = [re.match(r"\d+(?=[\s,:;=.]+\D)", name) for name in names]
        if [number and int(number[0]) for number in numbers] == [*range(len(names))]:  # 0 void 0 0 0
            names = tuple(name.lstrip("0123456789 \t,:;=.") for name in names)
        if "value" in rows[0]:
            return Listed(source, names, values=tuple(int(row["value"]) for row in rows))
        return Listed(source, names, tuple((int(row["r"]), int(row["g"]), int(row["b"])) for row in rows))
    return None


_RGB = r"(?P<r>\d{1,3})[\s,]+(?P<g>\d{1,3})[\s,]+(?P<b>\d{1,3})"
_LINES = (
    re.compile(rf"[\[(]?{_RGB}[\])]?[\s,:;=]+(?P<name>[^\s\d].*)"),
    re.compile(rf"(?P<name>.*?\S)[\s,:;=]+[\[(]?{_RGB}[\])]?"),
    re.compile(r"(?P<value>\d{1,5})[\s,:;=.]+(?P<name>[^\s\d].*)"),
)
"""Lines with a colour or number of the class; others are names."""

_COLUMNS = (
    ("name", "class", "label", "class_name", "class name", "label_name"),
    ("pixel value", "value", "id", "index", "class_id", "label_id", "pixel_value", "class_color"),
    ("r", "red"),
    ("g", "green"),
    ("b", "blue"),
)
_TEXTS = ("classes.txt", "labels.txt", "codes.txt", "class_names.txt", "names.txt", "obj.names")

_LISTS: tuple[tuple[Callable[[str], bool], Callable[[Tree, File], Listed | None]], ...] = (
    (lambda name: name == "labelmap.txt", _labelmap),
    (lambda name: name == "_classes.csv", _table),
    (lambda name: name.endswith(".csv") and bool(re.search("class|label.*colou?r|colou?r.*label", name)), _table),
    (lambda name: name.endswith(".txt") and bool(re.search("colou?r", name)), _colours),
    (lambda name: name in _TEXTS, _text),
    (lambda name: bool(re.search(r"(class|label|colou?r|palette).*\.json\Z|\Aconfig\.json\Z", name)), _json),
)
"""Files that list classes by their names, in order of preference."""
