"""The files of a prediction, and what its JSON record says of them: the same for densevit and for exported files."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.colour import Picture
from densevit_runtime.io.outputs import claim
from densevit_runtime.io.write import make_folder, write_array, write_depth_mm, write_json, write_labels, write_png
from densevit_runtime.typed import Rgb

SAVED_IN = {"depth": "mm", "disparity": "disparity", "relative_depth": "relative_depth"}
"""Part of the name of a file of depth by quantity."""


class Savable(Protocol):
    """The result of a head."""

    def save(self, folder: Path, stem: str) -> dict[str, Any]:
        """Write the files of the head; returns what the record says of it."""


def save_record(
    folder: Path,
    stem: str,
    results: Mapping[str, Savable],
    files: Iterable[str],
    *,
    size: tuple[int, int],
    primary: str | None,
    extra: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write every head's files and, last, ``<stem>.json`` into a folder.

    Args:
        folder: created if it does not exist.
        stem: start of the files' names.
        results: of the heads.
        files: names of all files, that of the record among them.
        size: (H, W) of the photo.
        primary: name of the primary head.
        extra: further entries of the record.
        overwrite: replace files that densevit did not write, or that were changed since.

    Returns:
        The record.

    Raises:
        DataError: if a file cannot be written, or one of these names belongs to a file of somebody else.
    """
    make_folder(folder)
    claim([folder / name for name in files], overwrite=overwrite)
    height, width = size
    record: dict[str, Any] = {
        **(extra or {}),
        "height": height,
        "width": width,
        "primary": primary,
        "heads": {name: result.save(folder, stem) for name, result in results.items()},
    }
    write_json(folder / f"{stem}.json", record)
    return record


def label_files(base: str) -> dict[str, str]:
    """Entry of the record -> name of the file; ``base`` is stem and head."""
    return {"labels": f"{base}.labels.png", "overlay": f"{base}.overlay.png"}


def depth_files(base: str, quantity: str) -> dict[str, str]:
    """Entry of the record -> name of the file."""
    return {"values": f"{base}.{SAVED_IN[quantity]}.png", "colours": f"{base}.colours.png"}


def value_files(base: str) -> dict[str, str]:
    """Entry of the record -> name of the file."""
    return {"values": f"{base}.npy", "colours": f"{base}.colours.png"}


def write_label_files(
    folder: Path, base: str, labels: NDArray[Any], picture: Picture, names: Sequence[str], palette: Sequence[Rgb]
) -> dict[str, Any]:
    """Write labels (H, W), indexed in their palette, and the overlay; names of the files, and the classes' shares.

    Raises:
        DataError: if a file cannot be written.
    """
    files = label_files(base)
    write_labels(folder / files["labels"], labels, palette)
    write_png(folder / files["overlay"], picture)
    shares = class_shares(names, count_labels(labels, len(names)))
    return {**files, "shares": {name: round(share, 6) for name, share in shares.items()}}


def write_depth_files(
    folder: Path, base: str, depth: NDArray[np.float32], picture: Picture, quantity: str
) -> dict[str, Any]:
    """Write depth (H, W) in 16 bits, millimetres or relative values over their range, and a picture; names and range.

    Raises:
        DataError: if a file cannot be written.
    """
    files = depth_files(base, quantity)
    low, high = float(depth.min()), float(depth.max())
    if quantity == "depth":
        write_depth_mm(folder / files["values"], depth)
    else:
        scaled = (depth - low) / max(high - low, 1e-12) * 65535
        write_png(folder / files["values"], scaled.round().astype(np.uint16))
    write_png(folder / files["colours"], picture)
    return {**files, "min": round(low, 4), "max": round(high, 4), "mean": round(float(depth.mean()), 4)}


def write_value_files(folder: Path, base: str, values: NDArray[Any], picture: Picture) -> dict[str, Any]:
    """Write values as ``.npy``, and a picture of them; names of the files.

    Raises:
        DataError: if a file cannot be written.
    """
    files = value_files(base)
    write_array(folder / files["values"], values)
    write_png(folder / files["colours"], picture)
    return dict(files)


def count_labels(labels: NDArray[Any], num_classes: int) -> list[int]:
    """Pixels of each class."""
    counts: list[int] = np.bincount(labels.ravel(), minlength=num_classes).tolist()
    return counts


def class_shares(names: Sequence[str], counts: Sequence[int]) -> dict[str, float]:
    """Share of the labelled pixels that each class covers, by name, from the number of pixels of every class."""
    total = max(sum(counts), 1)
    return {name: count / total for name, count in zip(names, counts, strict=True)}
