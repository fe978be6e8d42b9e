"""A corrected copy of a data set. Nothing is changed in place or guessed: what cannot be fixed safely is copied.

A fix is safe if it restores the intended numbers beyond doubt: 255 to 1 where only 0 and 255 occur, colours of a known
map, numbers from 1, equal channels, a quarter turn that the sizes prove, nearest resizing at equal aspect, names that
differ only in case. Files that no reader can open and targets without a photo are left out.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from densevit.data.sample import TargetFolder
from densevit.doctor.checks_masks import encoding_fault, stretched, unknown_colours
from densevit.doctor.checks_photos import same_aspect, size_faults
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import Broken, MaskFacts, PhotoFacts, SampleFacts, ShapeFacts, TargetFacts
from densevit.doctor.layout import KINDS, Split
from densevit.doctor.probe import mask_pixels
from densevit.errors import DataError
from densevit.io import make_folder, write_array, write_png
from densevit.io.stored import read_stored, resize_nearest, turn_upright

_FOLDERS: tuple[Literal["images"] | TargetFolder, ...] = ("images", *KINDS)

Fixed = tuple[NDArray[Any], list[str]]
"""The corrected content of a file, and the codes that it settles."""


@dataclass(slots=True)
class Copy:
    """What a corrected copy contains.

    Attributes:
        fixed: files by the code of what was fixed in them.
        left_out: files that the copy lacks, by the code of the reason.
        copied: number of unchanged files.
    """

    fixed: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    copied: int = 0

    def unfixed(self, diagnosis: Diagnosis) -> list[str]:
        """Codes of the errors and warnings that the copy still has."""
        codes = []
        for finding in diagnosis.findings:
            done = {*self.fixed.get(finding.code, ()), *self.left_out.get(finding.code, ())}
            if finding.severity != "note" and not (finding.files and done.issuperset(finding.files)):
                codes.append(finding.code)
        return list(dict.fromkeys(codes))


def write_fixed(diagnosis: Diagnosis, out: Path, *, progress: Callable[[int, int], None] | None = None) -> Copy:
    """Write a copy of the data set with all safe fixes. It appears complete or not at all.

    Args:
        diagnosis: of all files.
        out: a new folder, which gets ``images/<split>/``, ``masks/<split>/`` and so on, and the files of the root.
        progress: called with the number of files done and of all.

    Raises:
        DataError: ``out`` is in use or overlaps the data set, only a part of the files was read, or writing fails.
    """
    context = diagnosis.context
    _refuse(context, out)
    copy = Copy()
    files = list(_files_to_write(context, copy))
    targets = {target.path: (sample, target) for sample, target in context.of(TargetFacts)}
    fault = encoding_fault(context)
    temporary = out.with_name(f".densevit-{uuid.uuid4().hex}")
    try:
        for done, (source, target) in enumerate(files, 1):
            facts = targets.get(str(source))
            fixed = None if facts is None else _fix(context, fault, *facts)
            _write(copy, fixed, source, temporary / target)
            if progress is not None:
                progress(done, len(files))
        make_folder(temporary)
        with suppress(OSError):
            out.rmdir()  # replaces an empty folder
        temporary.rename(out)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror or error}); choose another place, or free some space"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return copy


def _refuse(context: Context, out: Path) -> None:
    if context.sampled:
        raise DataError("a corrected copy needs all files to be read; use --write-fixed without --sample and --fast")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty; a corrected copy goes to a new folder; name another")
    here = out.resolve()
    for split in context.splits:
        folders = [split.config.root, *(split.config.folder(kind) for kind in _FOLDERS)]
        for folder in filter(None, folders):
            if here.is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(here):
                raise DataError(
                    f"{out} overlaps the data set {folder}; a corrected copy goes to a new folder elsewhere"
                )


def _files_to_write(context: Context, copy: Copy) -> Iterator[tuple[Path, Path]]:
    """(file, its place in the copy); notes in ``copy`` what is left out or renamed."""
    left_out: dict[str, str] = {}  # path -> code
    for sample, broken in context.of(Broken):
        left_out |= {facts.path: broken.code for facts in sample.files() if facts.path not in left_out}
    for split in context.splits:
        left_out |= {str(path): "target-orphan" for paths in split.orphans.values() for path in paths}
        left_out |= {str(path): "file-stray" for path in split.strays}
        left_out |= {str(path): "file-dangling" for path in split.dangling}
        renamed = {target: photo.stem for photo, target in split.case}
        for kind, path in _files_of(split):
            if (code := left_out.get(str(path))) is not None:
                copy.left_out.setdefault(code, []).append(str(path))
                continue
            if path in renamed:
                copy.fixed.setdefault("name-case", []).append(str(path))
            yield path, Path(kind, split.name, renamed.get(path, path.stem) + path.suffix)
    root = context.splits[0].config.root
    for coco in [split.coco for split in context.splits if split.coco is not None]:
        if root is not None and coco.parent != root and coco.is_relative_to(root):
            yield coco, coco.relative_to(root)
    for path in sorted(root.iterdir()) if root is not None else ():
        if path.is_file() and not path.name.startswith("."):
            yield path, Path(path.name)


def _files_of(split: Split) -> Iterator[tuple[str, Path]]:
    """(kind, file) of all files of a split, links to nowhere included."""
    for kind in _FOLDERS:
        folder = split.config.folder(kind)
        if folder is not None and folder.is_dir() and (kind == "images" or kind in split.targets):
            for path in sorted(folder.iterdir()):
                if not path.is_dir() and not path.name.startswith("."):
                    yield kind, path


def _write(copy: Copy, fixed: Fixed | None, source: Path, target: Path) -> None:
    make_folder(target.parent)
    if fixed is None:
        shutil.copyfile(source, target)
        copy.copied += 1
        return
    pixels, codes = fixed
    if source.suffix.lower() == ".npy":
        write_array(target, pixels)
    else:
        write_png(target.with_suffix(".png"), pixels)
    for code in codes:
        copy.fixed.setdefault(code, []).append(str(source))


def _fix(context: Context, fault: str | None, sample: SampleFacts, target: TargetFacts) -> Fixed | None:
    """The corrected content of a file; None if there is nothing to fix, or no safe way."""
    codes = [code for code, faulty in size_faults(sample) if faulty is target]
    if isinstance(target, MaskFacts):
        return _fix_mask(context, fault, sample, target, codes)
    if "exif-mask-unturned" not in codes or isinstance(target, ShapeFacts):
        return None
    assert isinstance(sample.photo, PhotoFacts)
    stored = read_stored(Path(target.path))
    pixels = turn_upright(turn_upright(stored.pixels, stored.orientation), sample.photo.orientation)
    if stored.format != "NPY":
        if pixels.dtype.kind not in "iu" or pixels.ndim != 2 or pixels.min() < 0 or pixels.max() > 65535:
            return None  # PNG cannot hold it
        pixels = pixels.astype(np.uint16)
    return pixels, ["exif-mask-unturned"]


def _fix_mask(
    context: Context, fault: str | None, sample: SampleFacts, mask: MaskFacts, size_codes: list[str]
) -> Fixed | None:
    if mask.is_lossy or (mask.colours and unknown_colours(mask, context.colours).size):
        return None
    turn = "exif-mask-unturned" in size_codes
    resize = "mask-size" in size_codes and same_aspect(sample)
    renumber = fault is not None and mask.is_indexed
    if not (turn or resize or mask.has_channels or mask.has_floats or renumber):
        return None
    stored = read_stored(Path(mask.path))
    labels = turn_upright(mask_pixels(stored)[0], stored.orientation).astype(np.int64)
    codes = ["mask-colours"] if mask.has_channels else ["mask-floats"] if mask.has_floats else []
    if mask.colours:
        colours, numbers = np.array(sorted(context.colours.items()), np.int64).T
        labels = numbers[np.searchsorted(colours, labels)]
    elif fault is not None:
        if fault != "mask-0-255" or 255 in mask.values:
            codes.append(fault)
        labels = _renumber(labels, fault, context)
    assert isinstance(sample.photo, PhotoFacts)
    if turn:
        labels = turn_upright(labels, sample.photo.orientation)
        codes.append("exif-mask-unturned")
    if resize:
        labels = resize_nearest(labels, sample.photo.upright_size)
        codes.append("mask-size")
    if not codes or labels.min() < 0 or labels.max() > 65535:
        return None
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16), codes


def _renumber(labels: NDArray[np.int64], fault: str, context: Context) -> NDArray[np.int64]:
    if fault == "mask-0-255":
        return np.where(labels == 255, 1, labels)
    if fault == "mask-off-by-one":
        return np.where(labels == context.ignore_index, labels, labels - 1)
    return np.searchsorted(stretched(context.num_classes or 2), labels)
