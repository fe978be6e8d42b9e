"""A corrected copy of a data set. Nothing is changed in place or guessed: what cannot be fixed safely is copied.

A fix is safe if it restores the intended numbers beyond doubt: 255 to 1 where only 0 and 255 occur, colours of a known
map, numbers from 1, equal channels, a quarter turn that the sizes prove, nearest resizing at equal aspect, names that
differ only in case. Files that no reader can open and targets without a photo are left out.

The copy has the layout ``images/<split>/``, whatever that of the data is. Masks whose meaning a classes.json cannot
hold, such as shapes, or colours and merged classes of a dataset.yaml, become the class numbers that training reads.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densevit.data import ClassTable, FolderConfig, FolderDataset
from densevit.data.labels import merge_classes
from densevit.data.sample import TargetFolder
from densevit.doctor.checks_masks import encoding_fault
from densevit.doctor.context import Context
from densevit.doctor.examine import Diagnosis
from densevit.doctor.facts import Broken, MaskFacts, SampleFacts, TargetFacts
from densevit.doctor.fix_meaning import write_meaning
from densevit.doctor.fix_pixels import Fixed, fix_target
from densevit.doctor.layout import Split
from densevit.errors import DataError
from densevit.io import make_folder, write_array, write_png

_MEANING = (
    *("merge", "drop", "ignore_values", "class_values", "palette", "mask_format", "unknown_colours"),
    *("reduce_zero_label", "stray_values"),
)
"""Keys for whose sake the masks of a copy are written as class numbers."""


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

    def note(self, code: str, files: Iterable[object]) -> None:
        """Add files that were fixed."""
        if paths := [str(file) for file in files]:
            self.fixed.setdefault(code, []).extend(paths)

    def leave_out(self, code: str, files: Iterable[object]) -> None:
        """Add files that the copy lacks."""
        if paths := [str(file) for file in files]:
            self.left_out.setdefault(code, []).extend(paths)

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
        out: a new folder, which gets ``images/<split>/``, ``masks/<split>/`` and so on, classes.json, and of data in
            this layout the other files of the root.
        progress: called with the number of samples done and of all.

    Raises:
        DataError: ``out`` is in use or overlaps the data set, only a part of the files was read, or writing fails.
    """
    context = diagnosis.context
    _refuse(context, out)
    copy = Copy()
    temporary = out.with_name(f".densevit-{uuid.uuid4().hex}")
    try:
        _write_all(context, temporary, copy, progress)
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
    config = context.splits[0].config
    used = {path.parent for pair in context.pairs.pairs for path in (pair.image, *sum(pair.targets.values(), ()))}
    for folder in filter(None, (config.root, *used)):
        if here.is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(here):
            raise DataError(f"{out} overlaps the data set {folder}; a corrected copy goes to a new folder elsewhere")


def _write_all(context: Context, folder: Path, copy: Copy, progress: Callable[[int, int], None] | None) -> None:
    """Write the samples split by split, then what they mean."""
    fault = encoding_fault(context)
    rewritten = any(_is_rewritten(split) for split in context.splits)
    samples = {(sample.split, sample.stem): sample for sample in context.samples}
    _note_left_out(context, copy)
    renamed = {target for _, target in context.pairs.case}
    done = 0
    for split in context.splits:
        labels = _labels_of(split) if rewritten else None
        needed = _needed(split)
        names = _file_names(split)
        for name in split.photos:
            sample = samples[split.name, name]
            done += 1
            if any(name not in split.targets[kind] for kind in needed):
                copy.leave_out("target-left-out", split.files(name).values())  # as training does
            elif not any(isinstance(facts, Broken) for facts in sample.files()):
                place = _Place(folder, split.name, names[name])
                _write_sample(context, split, sample, labels, place, fault, copy)
                copy.note("name-case", [path for path in split.files(name).values() if path in renamed])
            if progress is not None:
                progress(done, len(samples))
    _write_twins(context, folder, copy)
    write_meaning(context, folder, rewritten=rewritten)


def _needed(split: Split) -> list[TargetFolder]:
    """The kinds of targets without which training leaves a photo out."""
    if split.config.missing_targets == "leave_out":
        return [*split.targets]
    return ["masks"] if split.is_drawn and "masks" in split.targets else []


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the files of a sample go."""

    folder: Path
    split: str
    name: str

    def of(self, kind: str, suffix: str) -> Path:
        return self.folder / kind / self.split / f"{self.name}{suffix}"


def _is_rewritten(split: Split) -> bool:
    """Whether masks are written as the class numbers that training reads."""
    config = split.config
    given = any(getattr(config, key) != FolderConfig.model_fields[key].get_default() for key in _MEANING[2:])
    several = any(len(paths) > 1 for paths in split.targets.get("masks", {}).values())
    return "masks" in split.targets and (
        given or bool(config.merge or config.drop) or several or split.shapes is not None
    )


def _labels_of(split: Split) -> Callable[[str], NDArray[np.int32]]:
    """The masks as training reads them, by the name of the pair."""
    config = split.config
    if config.class_values is not None:
        config = config.model_copy(update={"stray_values": "nearest"})
    dataset = FolderDataset(config, targets=frozenset({"labels"}))
    index = {pair.image: number for number, pair in enumerate(dataset.pairs)}
    return lambda name: dataset.labels(index[split.photos[name]])


def _file_names(split: Split) -> dict[str, str]:
    """The name of each pair's files, without folders."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for name in split.photos:
        plain = name.removeprefix(f"{split.name}/").replace("/", "_")
        unique = next(
            text for text in (plain, *(f"{plain}_{i}" for i in range(1, len(taken) + 2))) if text not in taken
        )
        taken.add(unique)
        names[name] = unique
    return names


def _note_left_out(context: Context, copy: Copy) -> None:
    """Record the files that the copy lacks."""
    for sample, broken in context.of(Broken):
        for facts in sample.files():
            copy.leave_out(broken.code, [facts.path])
    for paths in context.pairs.orphans.values():
        copy.leave_out("target-orphan", paths)
    copy.leave_out("file-stray", context.pairs.passed_over)
    copy.leave_out("file-dangling", context.pairs.dangling)


def _write_sample(
    context: Context,
    split: Split,
    sample: SampleFacts,
    labels: Callable[[str], NDArray[np.int32]] | None,
    place: _Place,
    fault: str | None,
    copy: Copy,
) -> None:
    """Write a photo with its targets, each corrected, as class numbers, or as it is."""
    written: list[tuple[str, Path, Fixed | None]] = []
    for kind, source in split.files(sample.stem).items():
        facts = getattr(sample, kind) if kind != "images" else None
        fixed = fix_target(context, fault, sample, facts) if isinstance(facts, TargetFacts) else None
        if kind == "masks" and labels is not None and fixed is not None:
            fixed = _merged(fixed[0], split.config, context.classes), fixed[1]
        elif kind == "masks" and labels is not None:
            try:
                fixed = _as_png(labels(sample.stem)), _stray_codes(split, facts)
            except DataError:
                copy.leave_out("mask-refused", dict.fromkeys(split.files(sample.stem).values()))
                return
        written.append((kind, source, fixed))
    for kind, source, fixed in written:
        _write(copy, fixed, source, place.of(kind, source.suffix))


def _stray_codes(split: Split, facts: object) -> list[str]:
    """The code of strays that became the nearest class."""
    values = split.config.class_values
    if values is None or split.config.stray_values == "nearest" or not isinstance(facts, MaskFacts):
        return []
    return [] if facts.read is not None else ["mask-strays"]


def _as_png(labels: NDArray[Any]) -> NDArray[Any]:
    return labels.astype(np.uint8 if labels.max() < 256 else np.uint16)


def _merged(labels: NDArray[Any], config: FolderConfig, classes: ClassTable | None) -> NDArray[Any]:
    """Class numbers after merging and dropping."""
    if classes is None:
        return labels
    final = merge_classes(classes, config.merge, config.drop)[1]
    table = np.full(max(int(labels.max()) + 1, len(final)), classes.ignore_index, np.int64)
    table[: len(final)] = final
    return _as_png(table[labels])


def _write(copy: Copy, fixed: Fixed | None, source: Path, target: Path) -> None:
    make_folder(target.parent)
    if fixed is None:
        target.write_bytes(source.read_bytes())
        copy.copied += 1
        return
    pixels, codes = fixed
    if source.suffix.lower() == ".npy" and codes:
        write_array(target, pixels)
    else:
        write_png(target.with_suffix(".png"), pixels)
    for code in codes or ["as-class-numbers"]:
        copy.note(code, [source])


def _write_twins(context: Context, folder: Path, copy: Copy) -> None:
    """Keep files of one name beside the first, since either could be meant."""
    places = {
        path: (split, kind)
        for split in context.splits
        for name in split.photos
        for kind, path in split.files(name).items()
    }
    for first, second in context.pairs.twins:
        if first in places:
            split, kind = places[first]
            _write(copy, None, second, folder / kind / split.name / second.name)
