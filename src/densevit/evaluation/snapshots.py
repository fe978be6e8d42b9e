"""What an evaluation showed, in the run folder: ``evaluations/ITERATION/`` with details.json and pictures."""

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
"""Evaluations that stay in the folder: the first, the last, and others as evenly between them as can be."""


def save_evaluation(out: Path, iteration: int, watch: EvaluationRecorder) -> Path:
    """Write what ``watch`` has seen; details.json comes last, so a folder that has it is whole.

    Raises:
        DataError: a file cannot be written.
    """
    folder = out / FOLDER / f"{iteration:08d}"
    heads = {}
    for head, kept in watch.heads.items():
        heads[head] = watch.facts(head)
        for kind, seen in (("fixed", kept.fixed), ("worst", kept.worst)):
            paths = [picture_path(folder, head, kind, number) for number in range(1, len(seen) + 1)]
            for path, one in zip(paths, seen, strict=True):
                write_bytes_atomic(path, one.jpeg)
            heads[head][kind] = [
                {"name": one.name, "value": one.value, "file": path.name} for path, one in zip(paths, seen, strict=True)
            ]
    write_json(folder / DETAILS, {"iteration": iteration, "heads": heads})
    _thin(out)
    return folder


def picture_path(folder: Path, head: str, kind: str, number: int) -> Path:
    """Where the ``number``-th picture of a head is, of the kind "fixed" or "worst"."""
    return folder / f"{head}-{kind}-{number}.jpg"


def load_evaluation(out: Path, *, until: int) -> tuple[Path, dict[str, Any]] | None:
    """Folder and details of the last whole evaluation up to iteration ``until``; None if there is none."""
    for iteration, folder in sorted(_folders(out), reverse=True):
        if iteration <= until:
            try:
                details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(details, dict) and isinstance(details.get("heads"), dict):
                return folder, details
    return None


def drop_evaluations(out: Path, *, after: int) -> None:
    """Remove those that a resumed run will repeat."""
    for iteration, folder in list(_folders(out)):
        if iteration > after:
            shutil.rmtree(folder, ignore_errors=True)


def _folders(out: Path) -> Iterator[tuple[int, Path]]:
    place = out / FOLDER
    for folder in place.iterdir() if place.is_dir() else ():
        if folder.name.isdecimal() and folder.is_dir():
            yield int(folder.name), folder


def _thin(out: Path) -> None:
    """Remove evaluations beyond ``KEPT``, each time the one that leaves the smallest gap."""
    folders = sorted(_folders(out))
    while len(folders) > KEPT:
        gone = min(range(1, len(folders) - 1), key=lambda i: folders[i + 1][0] - folders[i - 1][0])
        shutil.rmtree(folders.pop(gone)[1], ignore_errors=True)
