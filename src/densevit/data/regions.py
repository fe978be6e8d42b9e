"""Masks of several files per photo, one for each class or region, and Label Studio's numbers of tasks."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from densevit.data.class_list import default_ignore
from densevit.data.files import name_key, same_size, without_upload_prefix
from densevit.data.sample import ClassTable
from densevit.errors import DataError
from densevit.io import IMAGE_SUFFIXES, read_json, read_region
from densevit.limits import limits, too_much
from densevit.types import Size

_TASKS = "Label Studio's JSON export (a list of tasks with id and data)"


@dataclass(frozen=True)
class RegionReader:
    """Merges the files of each photo: any pixel that is not 0 is of the file's class, and later files are on top.

    Attributes:
        files: photo -> its files with their classes, from bottom to top.
        background: class of the other pixels, or the ignore value.
    """

    files: Mapping[Path, Sequence[tuple[int, Path]]]
    background: int

    def claimed_size(self, photo: Path, file: Path) -> Size | None:
        """None: the files are compared with the photo as they are read."""
        return None

    def draw(self, photo: Path, file: Path, size: Size) -> NDArray[np.int32]:
        """The mask (H, W) of a photo."""
        canvas = np.full(size, self.background, np.int32)
        for index, path in self.files[photo]:
            region = read_region(path)
            same_size(size, region.shape, photo, path)
            canvas[region] = index
        return canvas


def region_classes(regions: Iterable[str], background: str | None, ignore_index: int = 255) -> ClassTable:
    """The classes that ``{class}`` stands for in names of files, sorted, after the background if it has a name.

    Raises:
        DataError: there are more than ``limits`` accept, as where it stands for numbers of objects.
    """
    names = sorted({*regions} - {background})
    listed = (*([background] if background is not None else []), *names)
    if len(listed) > limits().classes:
        raise DataError(too_much(f"the names of the masks have {len(listed)} classes", "classes"))
    return ClassTable(listed, ignore_index if ignore_index != 255 else default_ignore(len(listed)))


def class_indices(regions: Iterable[str], classes: ClassTable, place: str) -> dict[str, int]:
    """``{class}`` -> class; a name of a file may have other signs for spaces, and another case.

    Raises:
        DataError: it is no class.
    """
    by_name = {_loose(name): index for index, name in reversed([*enumerate(classes.names)])}
    by_name |= {name_key(name): index for index, name in enumerate(classes.names)}
    found = {region: by_name.get(region, by_name.get(_loose(region))) for region in dict.fromkeys(regions)}
    if unknown := [region for region, index in found.items() if index is None]:
        raise DataError(
            f"{place} has masks of {', '.join(map(repr, unknown[:4]))} but the classes are "
            f"{', '.join(classes.names[:8])}; add them to the classes, where drop and merge can remove them"
        )
    return {region: index for region, index in found.items() if index is not None}


def task_places(path: Path, photos: Sequence[Path]) -> dict[str, int]:
    """Task number -> place of its photo, by Label Studio's export.

    Photos have the name of the task's file, with or without the prefix that Label Studio puts before uploads.

    Raises:
        DataError: it is no such export, or none of its photos is there.
    """
    tasks = read_json(path, _TASKS)
    if not isinstance(tasks, list) or not all(isinstance(task, Mapping) for task in tasks):
        raise DataError(f"{path} is not {_TASKS}; export the project again, as JSON")
    levels: list[dict[str, list[int]]] = [{}, {}, {}]
    for number, photo in enumerate(photos):
        for level, key in zip(levels, _keys(photo.name), strict=True):
            level.setdefault(key, []).append(number)
    found: dict[str, int] = {}
    for task in tasks:
        names = [*files_of(task)]
        for place, level in enumerate(levels):
            numbers = {n for name in names for n in level.get(_keys(name)[place], [])}
            if len(numbers) > 1:
                shown = ", ".join(str(photos[n]) for n in sorted(numbers)[:4])
                raise DataError(
                    f"task {task.get('id')} of {path} may be of {shown}; photos of different names are accepted"
                )
            if numbers:
                found[str(task.get("id"))] = numbers.pop()
                break
    if not found:
        raise DataError(
            f"{path} has {len(tasks)} tasks, of which none has the name of a photo such as "
            f"{photos[0].name if photos else '(there is none)'}; give the export of these photos"
        )
    return found


def files_of(task: Mapping[str, Any]) -> Iterable[str]:
    """Names of files that a task states: below ``data`` in JSON, next to the id in JSON-MIN."""
    data = task.get("data", task)
    values = [*data.values()] if isinstance(data, Mapping) else []
    for value in (*values, task.get("file_upload")):
        if isinstance(value, str):
            # A photo of a local folder is .../local-files/?d=folder/photo.jpg, others may have a key after "?".
            address = value.partition("?d=")[2] or value.partition("?")[0]
            photo = PurePosixPath(unquote(address).replace("\\", "/"))
            if photo.suffix.lower() in IMAGE_SUFFIXES:
                yield photo.name


def _keys(name: str) -> tuple[str, str, str]:
    """The name as it is, without the prefix of uploads, and also with spaces as uploads have them."""
    name = name_key(name)
    bare = without_upload_prefix(name)
    return name, bare, re.sub(r"[^\w.-]", "_", bare).casefold()


def _loose(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name_key(name)).casefold()
