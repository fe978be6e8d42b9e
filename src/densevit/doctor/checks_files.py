"""Names, folders, and files that cannot be read."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from densevit.data import ClassTable, FolderConfig
from densevit.data.columns import WHAT
from densevit.data.folder import read_classes
from densevit.data.pairs import Pairs
from densevit.data.sample import TargetFolder
from densevit.data.splits import split_key
from densevit.data.templates import is_template
from densevit.doctor.context import Context
from densevit.doctor.facts import Broken
from densevit.doctor.layout import KINDS, Split
from densevit.doctor.rules import Findings
from densevit.errors import DataError
from densevit.io import walk


def check_classes(config: FolderConfig, splits: list[Split], findings: Findings) -> ClassTable | None:
    """Read and check the class table of a data set."""
    try:
        table = read_classes(config)
    except DataError as error:
        findings.add("classes-broken", str(error), [config.root / "classes.json"] if config.root is not None else ())
        return None
    if table is None:
        if any(split.targets.get("masks") and split.shapes != "coco" for split in splits):  # COCO names its own
            findings.add("classes-missing", "there are masks but no class names")
        return None
    names = [name.strip().casefold() for name in table.names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        findings.add("classes-twice", f"the class list has {', '.join(twice)} more than once")
    if 0 <= table.ignore_index < len(table.names):
        name = table.names[table.ignore_index]
        findings.add("ignore-is-class", f"ignore_index is {table.ignore_index}, the number of class {name!r}")
    return table


def check_folders(root: Path | None, pairs: Pairs, findings: Findings) -> None:
    """Find splits of plain folders below the root that exist only for some kinds of file, or are empty."""
    if root is None or not (root / "images").is_dir():
        return
    folders = {kind: _folders(root / kind) for kind in ("images", *KINDS)}
    for name in [name for name in folders["images"] if name not in pairs.splits()] if pairs.splits() else ():
        folder = root / "images" / name
        deeper = sum(path.is_relative_to(folder) for path in pairs.passed_over)
        text = f" (in subfolders, which are not read: {deeper})" if deeper else ""
        hint = "Move them up, or name each folder." if deeper else ""
        findings.add("split-empty", f"there are no photos{text}", [folder], split=name, hint=hint)
    for kind in KINDS if folders["images"] else ():
        for name in folders[kind]:
            if name not in folders["images"]:
                text = f"there is a folder {kind}/{name} but no images/{name}"
                findings.add("split-without-photos", text, [root / kind / name])


def _folders(folder: Path) -> list[str]:
    return [name for name in walk(folder, 0).folders if "/" not in name] if folder.is_dir() else []


def check_splits(pairs: Pairs, findings: Findings) -> None:
    """Find that there is nothing to measure with."""
    if len(pairs.splits()) == 1 and split_key(pairs.splits()[0]) == "train":
        findings.add("split-missing", f"{pairs.splits()[0]} is the only split")


def check_names(splits: Sequence[Split], findings: Findings) -> None:
    """Find photos without targets."""
    for split in splits:
        total = len(split.photos)
        if not split.targets:
            findings.add("no-targets", f"none of the {total} photos have masks, depth or values", split=split.name)
        for kind in split.targets:
            text, code = f"photos have no {WHAT[kind]}", "target-missing"
            if split.config.missing_targets == "leave_out" or (kind == "masks" and split.regions):
                text, code = f"{text} and are left out", "target-left-out"
            findings.add_share(code, split.missing(kind), total, text, split=split.name)


def check_left_over(
    config: FolderConfig, pairs: Pairs, findings: Findings, kinds: Iterable[TargetFolder] = KINDS
) -> None:
    """Find files that belong to nothing, or whose names are in doubt."""
    used = {path for pair in pairs.pairs for paths in pair.targets.values() for path in paths}
    total = len(used) + sum(map(len, pairs.orphans.values()))
    for kind in kinds:
        orphans = pairs.orphans.get(kind, [])
        targets = {path for pair in pairs.pairs for path in pair.targets.get(kind, ())}
        text = f"{WHAT[kind]}s belong to no photo"
        findings.add_share("target-orphan", orphans, len(orphans) + len(targets), text)
    if pairs.case:
        photo, target = pairs.case[0]
        text = "targets differ from the name of their photo in upper and lower case"
        hint = f"{target.name} belongs to {photo.name}:"
        findings.add_share("name-case", [path for _, path in pairs.case], total, text, hint=hint)
    same_name = list(dict.fromkeys(path for pair in pairs.twins for path in pair))
    # Templates say which files are meant, so that there are others is no surprise.
    templates = any(is_template(getattr(config, kind)) for kind in ("images", *KINDS))
    strays = [] if templates else [*pairs.passed_over]
    reason = "; ".join(dict.fromkeys(pairs.passed_over[path] for path in strays))
    num_files = total + len(pairs.pairs) + len(pairs.twins) + len(strays) + len(pairs.dangling)
    for code, text, files in (
        ("name-twice", "files have the same name except for the suffix", same_name),
        ("file-stray", f"files are passed over: {reason}", strays),
        ("file-dangling", "files are links to nowhere", pairs.dangling),
    ):
        findings.add_share(code, files, num_files, text)


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
