"""Names, folders, and files that cannot be read."""

from pathlib import Path

from densevit.data import ClassTable, FolderConfig
from densevit.data.folder import read_classes
from densevit.doctor.context import TRAIN, Context
from densevit.doctor.facts import Broken
from densevit.doctor.layout import KINDS, Split
from densevit.doctor.rules import Findings
from densevit.errors import DataError

_NOUNS = {"masks": "mask", "depth": "depth map", "values": "value map"}


def check_classes(config: FolderConfig, splits: list[Split], findings: Findings) -> ClassTable | None:
    """Read and check the class table of a data set."""
    try:
        table = read_classes(config)
    except DataError as error:
        findings.add("classes-broken", str(error), [config.root / "classes.json"] if config.root is not None else ())
        return None
    if table is None:
        if any(split.targets.get("masks") for split in splits):
            findings.add("classes-missing", "there are masks but no class names")
        return None
    names = [name.strip().casefold() for name in table.names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        findings.add("classes-twice", f"the class list has {', '.join(twice)} more than once")
    if 0 <= table.ignore_index < len(table.names):
        name = table.names[table.ignore_index]
        findings.add("ignore-is-class", f"ignore_index is {table.ignore_index}, the number of class {name!r}")
    return table


def check_folders(root: Path | None, splits: list[Split], findings: Findings) -> None:
    """Find splits that exist only for some kinds of file."""
    names = {split.name for split in splits}
    if root is None or "" in names:
        return
    with_photos = {path.name for path in (root / "images").iterdir() if path.is_dir()}
    for kind in KINDS:
        folders = sorted((root / kind).iterdir()) if (root / kind).is_dir() else []
        for folder in folders:
            if folder.is_dir() and not folder.name.startswith(".") and folder.name not in with_photos:
                text = f"there is a folder {kind}/{folder.name} but no images/{folder.name}"
                findings.add("split-without-photos", text, [folder])
    if names & set(TRAIN) and len(names) == len(with_photos) == 1:
        findings.add("split-missing", f"{', '.join(names)} is the only split")


def check_names(splits: list[Split], findings: Findings) -> None:
    """Check each split by its file names."""
    for split in splits:
        if split.photos:
            _check_names(split, findings)
            continue
        deeper = f" (in subfolders, which are not read: {split.deeper})" if split.deeper else ""
        hint = "Move them up, or name each folder." if split.deeper else ""
        folder = split.config.folder("images")
        findings.add("split-empty", f"there are no photos{deeper}", [folder], split=split.name, hint=hint)


def _check_names(split: Split, findings: Findings) -> None:
    name, total = split.name, len(split.photos)
    if split.coco is None and not split.targets:
        findings.add("no-targets", f"none of the {total} photos have masks, depth or values", split=name)
    for kind, targets in split.targets.items():
        noun, orphans = _NOUNS[kind], split.orphans[kind]
        missing = [photo for stem, photo in split.photos.items() if stem not in targets]
        findings.add_share("target-missing", missing, total, f"photos have no {noun} of the same name", split=name)
        num_targets = len(orphans) + len(targets)
        findings.add_share("target-orphan", orphans, num_targets, f"{noun}s belong to no photo", split=name)
    if split.case:
        photo, target = split.case[0]
        num_targets = sum(len(targets) for targets in split.targets.values())
        text = "targets differ from the name of their photo in upper and lower case"
        hint = f"{target.name} belongs to {photo.name}:"
        findings.add_share("name-case", [path for _, path in split.case], num_targets, text, split=name, hint=hint)
    targets_of = (*split.targets.values(), *split.orphans.values())
    num_files = sum(map(len, (split.photos, *targets_of, split.twins, split.strays, split.dangling)))
    same_name = list(dict.fromkeys(path for pair in split.twins for path in pair))
    for code, text, files in (
        ("name-twice", "files have the same name except for the suffix", same_name),
        ("file-stray", "files are neither photo nor target by their suffix", split.strays),
        ("file-dangling", "files are links to nowhere", split.dangling),
    ):
        findings.add_share(code, files, num_files, text, split=name)


def check_reading(context: Context, findings: Findings) -> None:
    """Report the files that could not be read."""
    broken = [facts for _, facts in context.of(Broken)]
    total = sum(len(sample.files()) for sample in context.samples)
    for code, text in (
        ("empty-file", "files are empty (0 bytes)"),
        ("not-an-image", "files are not what their suffix says"),
        ("unreadable", "files cannot be read"),
    ):
        chosen = [facts for facts in broken if facts.code == code]
        first = chosen[0] if chosen and code != "empty-file" else None
        hint = f"{Path(first.path).name} {first.reason.split(';')[0]}." if first else ""
        findings.add_share(code, chosen, total, text, hint=hint)
