"""Parts of COCO's annotations as programs write them: ids, categories and the names of photos."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from densevit.data.files import name_key, without_upload_prefix
from densevit.errors import DataError
from densevit.io import read_json


def rows_of(data: Any, key: str, path: Path) -> list[Any]:
    """A list of the file.

    Raises:
        DataError: it has no such list.
    """
    rows = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(rows, list):
        held = f"it has no list {key}" if isinstance(data, Mapping) else f"it holds a {type(data).__name__}"
        raise DataError(
            f"{path} is not COCO's annotations ({held}); images with id and file_name, categories with id and name, "
            "and annotations with image_id are accepted; export it again"
        )
    return rows


def file_name_of(row: Any) -> str | None:
    """The file name of an entry of ``images``; None without one.

    LVIS has no file_name but the address of the photo, of which the last part is its name.
    """
    name = row.get("file_name", row.get("coco_url")) if isinstance(row, Mapping) else None
    return name if isinstance(name, str) else None


def listed_photos(path: Path) -> list[str]:
    """The file names of the photos that a file of annotations lists.

    Raises:
        DataError: it is no such file.
    """
    rows = rows_of(read_json(path, "COCO's annotations"), "images", path)
    return [name for row in rows if (name := file_name_of(row)) is not None]


def key_of(value: Any) -> str | None:
    """An id, which may be a number or text, as text; None if it is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else None


def id_order(key: str) -> tuple[bool, int, str]:
    """Sort key of ids: numbers by their value, then texts."""
    number = key.removeprefix("-")
    return (False, int(key), "") if number.isdecimal() and number.isascii() else (True, 0, key)


def used_categories(data: Mapping[str, Any]) -> set[str | None]:
    """The ids of the categories that annotations have."""
    rows = data.get("annotations")
    rows = rows if isinstance(rows, list) else []
    return {key_of(row.get("category_id")) for row in rows if isinstance(row, Mapping)}


def unused_roots(data: Mapping[str, Any]) -> list[str]:
    """Names of categories that no annotation has and others name as their supercategory, as Roboflow writes one."""
    rows = [row for row in data["categories"] if isinstance(row, Mapping)]
    used = used_categories(data)
    above = {str(row.get("supercategory")) for row in rows if row.get("supercategory") != row.get("name")}
    names = [(str(row.get("name")), key_of(row.get("id"))) for row in rows]
    return [name for name, key in names if name in above and key not in used]


def photo_names(entry: str) -> Iterator[str]:
    """The names that the photo of a ``file_name`` may have, the likeliest first.

    It may have folders, also with backslashes, be an address with its escapes, and begin with what Label Studio adds to
    uploads.
    """
    names = [PureWindowsPath(entry).name]
    address = urlsplit(entry) if "://" in entry or entry.startswith("/data/") else None
    if address is not None:  # Label Studio's local files are /data/local-files/?d=folder/photo.jpg
        names = [PureWindowsPath(local).name for local in parse_qs(address.query).get("d", [])] + [
            PureWindowsPath(address.path).name,
            *names,
        ]
    names += [PureWindowsPath(unquote(name)).name for name in names]
    names += [without_upload_prefix(name) for name in names]
    yield from dict.fromkeys(name_key(name) for name in names if name)
