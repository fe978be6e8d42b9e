"""A corrected copy of a data set. Nothing is changed in place, nothing is guessed: what is not safe stays as it is.

Safe is what gives back the numbers that were meant, whoever looks: 255 for 1 where nothing but 0 and 255 occurs,
colours of a known map, numbers from 1, equal channels, a quarter turn that the sizes prove, nearest resizing at equal
aspect, names that differ in case alone. Files that no reader can open are left out, and targets without a photo.
"""

import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.doctor.checks_masks import encoding_fault, has_channels, has_floats, stretched, unknown_colours
from densevit.doctor.checks_photos import same_aspect, size_faults
from densevit.doctor.context import LOSSY, Material, is_indexed
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import Broken, DepthFacts, MaskFacts, PhotoFacts, SampleFacts, ValueFacts
from densevit.doctor.layout import ALL_KINDS, Split
from densevit.doctor.probe import mask_pixels
from densevit.errors import DataError
from densevit.io import make_folder, write_array, write_png
from densevit.io.stored import read_stored, resize_nearest, turn_upright


@dataclass(slots=True)
class Copy:
    """What a corrected copy holds.

    Attributes:
        mended: files by the code of what was mended in them.
        left_out: files that the copy lacks, by the code of the reason.
        copied: files that are as they were.
    """

    mended: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    copied: int = 0

    def left_alone(self, diagnosis: Diagnosis) -> list[str]:
        """Codes of errors and warnings that the copy still has."""
        done = {code: Counter(files) for kind in (self.mended, self.left_out) for code, files in kind.items()}
        return list(
            dict.fromkeys(
                finding.code
                for finding in diagnosis.findings
                if finding.severity != "note"
                and not (finding.files and set(finding.files) <= set(done.get(finding.code, ())))
            )
        )


def write_fixed(diagnosis: Diagnosis, out: Path, *, progress: Callable[[int, int], None] | None = None) -> Copy:
    """Write a copy of the data set in which is mended what can be mended safely. It appears whole or not at all.

    Args:
        diagnosis: of all files.
        out: a new folder, which gets ``images/<split>/``, ``masks/<split>/`` and so on, and the files of the root.
        progress: is told how many of how many files are done.

    Raises:
        DataError: if ``out`` is in use or lies in the data set, if a part of the files was read alone, or if writing
            fails.
    """
    material = diagnosis.material
    _refuse(material, out)
    plan = _Plan(material)
    temporary = out.with_name(f".densevit-{uuid.uuid4().hex}")
    try:
        make_folder(temporary)
        for done, (source, target) in enumerate(plan.files, 1):
            _write(plan, source, temporary / target)
            if progress is not None:
                progress(done, len(plan.files))
        with suppress(OSError):
            out.rmdir()  # an empty one may be there
        temporary.rename(out)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written ({error.strerror or error}); a new folder on a disk with free space is needed; "
            "choose another place or make room"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return plan.copy


def _refuse(material: Material, out: Path) -> None:
    if material.sampled:
        raise DataError(
            "a part of the files was read, and a copy needs all; --write-fixed goes without --sample and --fast; "
            "leave them out"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty; a corrected copy goes to a new folder; name another")
    here = out.resolve()
    for split in material.splits:
        for kind in ALL_KINDS:
            folder = split.config.folder(kind)
            root = split.config.root
            for place in filter(None, (folder, root)):
                if here.is_relative_to(place.resolve()) or place.resolve().is_relative_to(here):
                    raise DataError(
                        f"{out} and the data set {place} lie in each other; a corrected copy goes to a folder of its "
                        "own; name another"
                    )


class _Plan:
    """For every file of the data set where it goes, and what is done to it on the way."""

    def __init__(self, material: Material) -> None:
        self.material = material
        self.copy = Copy()
        self.files: list[tuple[Path, Path]] = []
        self.samples: dict[str, SampleFacts] = {}
        self.fault = encoding_fault(material)
        out: dict[str, str] = {}  # path -> code of why it is left out
        for sample in material.samples:
            broken = next((facts for facts in sample.files() if isinstance(facts, Broken)), None)
            for facts in sample.files():
                self.samples[facts.path] = sample
                if broken is not None:
                    out[facts.path] = broken.code
        for split in material.splits:
            out |= {str(p): "target-orphan" for paths in split.orphans.values() for p in paths}
            out |= {str(p): "file-stray" for p in split.strays} | {str(p): "file-dangling" for p in split.dangling}
        for split in material.splits:
            self._add_split(split, out)
        root = material.splits[0].config.root
        for path in sorted(root.iterdir()) if root is not None else ():
            if path.is_file() and not path.name.startswith("."):
                self.files.append((path, Path(path.name)))

    def _add_split(self, split: Split, out: dict[str, str]) -> None:
        renamed = {target: photo.stem for photo, target in split.case}
        for kind in ALL_KINDS:
            folder = split.config.folder(kind)
            if folder is None or not folder.is_dir() or (kind != "images" and kind not in split.targets):
                continue
            for path in sorted(folder.iterdir()):
                if (code := out.get(str(path))) is not None:
                    self.copy.left_out.setdefault(code, []).append(str(path))
                elif path.is_file() and not path.name.startswith("."):
                    name = f"{renamed.get(path, path.stem)}{path.suffix}"
                    if path in renamed:
                        self.copy.mended.setdefault("name-case", []).append(str(path))
                    self.files.append((path, Path(kind, split.name, name)))


def _write(plan: _Plan, source: Path, target: Path) -> None:
    """Copy a file, or what it holds once mended."""
    make_folder(target.parent)
    sample = plan.samples.get(str(source))
    mended: NDArray[Any] | None = None
    codes: list[str] = []
    if sample is not None and isinstance(sample.masks, MaskFacts) and sample.masks.path == str(source):
        mended, codes = _mend_mask(plan, sample, sample.masks)
    elif sample is not None:
        for facts in (sample.depth, sample.values):
            if isinstance(facts, DepthFacts | ValueFacts) and facts.path == str(source):
                mended, codes = _turn(sample, facts)
    if mended is None:
        shutil.copyfile(source, target)
        plan.copy.copied += 1
        return
    if source.suffix.lower() == ".npy":
        write_array(target, mended)
    else:
        write_png(target.with_suffix(".png"), mended)
    for code in codes:
        plan.copy.mended.setdefault(code, []).append(str(source))


def _mend_mask(plan: _Plan, sample: SampleFacts, mask: MaskFacts) -> tuple[NDArray[Any] | None, list[str]]:
    """The mask as it was meant, and the codes that this settles; None where there is nothing to mend or no safe way."""
    material = plan.material
    if mask.format in LOSSY or (
        mask.colours and (not material.colours or unknown_colours(mask, material.colours).size)
    ):
        return None, []
    faults = [code for code, path in size_faults(sample) if path == mask.path]
    turn = "exif-mask-unturned" in faults
    resize = "mask-size" in faults and same_aspect(sample)
    number = plan.fault is not None and is_indexed(mask)
    if not (turn or resize or has_channels(mask) or has_floats(mask) or number):
        return None, []
    stored = read_stored(Path(mask.path))
    labels = turn_upright(mask_pixels(stored)[0], stored.orientation).astype(np.int64)
    codes = ["mask-colours"] if has_channels(mask) else ["mask-floats"] if has_floats(mask) else []
    if mask.colours:
        colours = np.array(sorted(material.colours), np.int64)
        numbers = np.array([material.colours[int(colour)] for colour in colours], np.int64)
        labels = numbers[np.searchsorted(colours, labels)]
    elif plan.fault is not None:
        renumbered = _renumber(labels, plan.fault, material)
        if plan.fault != "mask-0-255" or 255 in mask.values:
            codes.append(plan.fault)
        labels = renumbered
    assert isinstance(sample.photo, PhotoFacts)
    if turn:
        labels = turn_upright(labels, sample.photo.orientation)
        codes.append("exif-mask-unturned")
    if resize:
        labels = resize_nearest(labels, sample.photo.upright_size)
        codes.append("mask-size")
    if not codes or labels.min() < 0 or labels.max() > 65535:
        return None, []
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16), codes


def _renumber(labels: NDArray[np.int64], fault: str, material: Material) -> NDArray[np.int64]:
    if fault == "mask-0-255":
        return np.where(labels == 255, 1, labels)
    if fault == "mask-off-by-one":
        return np.where(labels == material.ignore_index, labels, labels - 1)
    return np.searchsorted(stretched(material.num_classes or 2), labels)


def _turn(sample: SampleFacts, target: DepthFacts | ValueFacts) -> tuple[NDArray[Any] | None, list[str]]:
    """The depth or value map turned like its photo, where the sizes prove that it must be."""
    if ("exif-mask-unturned", target.path) not in list(size_faults(sample)) or not isinstance(sample.photo, PhotoFacts):
        return None, []
    stored = read_stored(Path(target.path))
    pixels = turn_upright(turn_upright(stored.pixels, stored.orientation), sample.photo.orientation)
    if stored.format != "NPY":
        if pixels.dtype.kind not in "iu" or pixels.ndim != 2 or pixels.min() < 0 or pixels.max() > 65535:
            return None, []  # floats in a TIFF, which a PNG can't hold
        pixels = pixels.astype(np.uint16)
    return pixels, ["exif-mask-unturned"]
