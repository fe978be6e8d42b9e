"""Evaluations in the run folder: ``evaluations/ITERATION/`` with details.json and pictures."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from densevit.evaluation.inspection import EvaluationRecorder
from densevit.io import write_bytes_atomic, write_json

FOLDER = "evaluations"
DETAILS = "details.json"
KEPT = 12
"""Largest number of evaluations in the folder: the first, the last, and others evenly between them."""


def save_evaluation(out: Path, iteration: int, recorder: EvaluationRecorder) -> Path:
    """Write what was recorded; details.json comes last, so a folder that has it is complete.

    Raises:
        DataError: a file cannot be written.
    """
    folder = out / FOLDER / f"{iteration:08d}"
    heads = {}
    for head, record in recorder.heads.items():
        heads[head] = recorder.details(head)
        for kind, images in (("fixed", record.fixed), ("worst", record.worst)):
            heads[head][kind] = []
            for number, image in enumerate(images, 1):
                path = picture_path(folder, head, kind, number)
                write_bytes_atomic(path, image.jpeg, internal=True)
                heads[head][kind].append({"name": image.name, "value": image.value, "file": path.name})
    write_json(folder / DETAILS, {"iteration": iteration, "heads": heads}, internal=True)
    _thin(out)
    return folder


def picture_path(folder: Path, head: str, kind: str, number: int) -> Path:
    """The file of the ``number``-th picture of a head, of the kind "fixed" or "worst"."""
    return folder / f"{head}-{kind}-{number}.jpg"


def load_evaluation(out: Path, *, until: int, notes: list[str] | None = None) -> tuple[Path, dict[str, Any]] | None:
    """Folder and details of the last complete evaluation up to iteration ``until``; None if there is none.

    The names of details that are damaged are added to ``notes``.
    """
    for iteration, folder in sorted(_folders(out), reverse=True):
        if iteration <= until:
            try:
                details: Any = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                details = None
            if isinstance(details, dict) and isinstance(details.get("heads"), dict):
                return folder, details
            if notes is not None:
                notes.append(f"{FOLDER}/{folder.name}/{DETAILS}")
    return None


def drop_evaluations(out: Path, *, after: int) -> None:
    """Remove evaluations that a resumed run will repeat."""
    for iteration, folder in list(_folders(out)):
        if iteration > after:
            shutil.rmtree(folder, ignore_errors=True)


def _folders(out: Path) -> Iterator[tuple[int, Path]]:
    for folder in (out / FOLDER).glob("*"):
        if folder.name.isdecimal() and folder.is_dir():
            yield int(folder.name), folder


def _thin(out: Path) -> None:
    """Remove evaluations beyond ``KEPT``, each time the one whose removal leaves the smallest gap."""
    folders = sorted(_folders(out))
    while len(folders) > KEPT:
        index = min(range(1, len(folders) - 1), key=lambda i: folders[i + 1][0] - folders[i - 1][0])
        shutil.rmtree(folders.pop(index)[1], ignore_errors=True)
