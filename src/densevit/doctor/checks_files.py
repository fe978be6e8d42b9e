"""Names, folders, and files that cannot be read."""

from pathlib import Path

from densevit.data import ClassTable, FolderConfig
from densevit.data.folder import read_classes
from densevit.doctor.context import TRAIN, Material
from densevit.doctor.layout import KINDS, WORDS, Kind, Split
from densevit.doctor.rules import Findings
from densevit.errors import DataError


def check_classes(config: FolderConfig, splits: list[Split], found: Findings) -> ClassTable | None:
    """The class table of a data set; what is wrong with it goes to ``found``."""
    masks = any(split.targets.get("masks") for split in splits)
    try:
        table = read_classes(config)
    except DataError as error:
        path = str(config.root / "classes.json") if config.root is not None else ""
        found.add("classes-broken", str(error), [path])
        return None
    if table is None:
        if masks:
            found.add("classes-missing", "there are masks and no class names")
        return None
    names = [name.strip().casefold() for name in table.names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        found.add("classes-twice", f"the class list has {', '.join(twice)} more than once")
    if 0 <= table.ignore_index < len(table.names):
        name = table.names[table.ignore_index]
        found.add("ignore-is-class", f"ignore_index is {table.ignore_index}, the number of class {name!r}")
    return table


def check_names(splits: list[Split], found: Findings) -> None:
    """What the listing of each split shows."""
    for split in splits:
        total = len(split.photos)
        here = {"split": split.name}
        if not total:
            deeper = f"; {split.deeper} photos lie in folders below, which are not read" if split.deeper else ""
            hint = "Move them up, or give the pattern folder by folder." if split.deeper else ""
            found.add("split-empty", f"there is no photo{deeper}", [_folder(split)], hint=hint, **here)
            continue
        if not split.polygons and not any(split.targets.values()) and not any(split.missing.values()):
            found.add("no-targets", f"{total} photos have neither masks nor depth nor values", **here)
        for kind, stems in split.missing.items():
            if stems:
                what = f"{len(stems)} of {total} photos have no {WORDS[kind]} of the same name"
                found.add("target-missing", what, [split.photos[stem] for stem in stems], **here)
        for kind, paths in split.orphans.items():
            if paths:
                what = f"{len(paths)} {_plural(kind)} belong to no photo"
                found.add("target-orphan", what, paths, **here)
        if split.case:
            photo, target = split.case[0]
            what = f"{len(split.case)} targets are named like their photo but for upper and lower case"
            hint = f"{target.name} belongs to {photo.name}:"
            found.add("name-case", what, [target for _, target in split.case], hint=hint, **here)
        if split.twins:
            what = f"{len(split.twins)} files have the same name as another up to the suffix"
            found.add("name-twice", what, [path for pair in split.twins for path in pair], **here)
        if split.strays:
            what = f"{len(split.strays)} files are neither photo nor target, by their suffix"
            found.add("file-stray", what, split.strays, **here)
        if split.dangling:
            found.add("file-dangling", f"{len(split.dangling)} links lead nowhere", split.dangling, **here)


def check_folders(root: Path | None, splits: list[Split], found: Findings) -> None:
    """Splits that only some kinds of file have."""
    if root is None:
        return
    photos = {split.name for split in splits}
    if "" in photos:
        return
    for kind in KINDS:
        folder = root / kind
        names = (
            {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")} if folder.is_dir() else ()
        )
        for name in sorted(set(names) - {p.name for p in (root / "images").iterdir()}):
            found.add("split-without-photos", f"{kind}/{name} has no images/{name} beside it", [folder / name])
    if photos & set(TRAIN) and len(photos) == 1 and not _has_val(root):
        found.add("split-missing", f"{', '.join(photos)} is the only split")


def check_reading(material: Material, found: Findings) -> None:
    """Files that no reader can make sense of, by what is wrong with them."""
    words = {
        "empty-file": "{} files are empty (0 bytes)",
        "not-an-image": "{} files are something else than their suffix says",
        "unreadable": "{} files cannot be read",
    }
    for code, text in words.items():
        broken = [facts for _, facts in material.broken() if facts.code == code]
        if broken:
            hint = "" if code == "empty-file" else f"{Path(broken[0].path).name} {_first_clause(broken[0].reason)}."
            found.add(code, text.format(len(broken)), [facts.path for facts in broken], hint=hint)


def _has_val(root: Path) -> bool:
    return sum(path.is_dir() for path in (root / "images").iterdir()) > 1


def _first_clause(reason: str) -> str:
    return reason.split(";")[0]


def _folder(split: Split) -> str:
    return str(split.config.folder("images"))


def _plural(kind: Kind) -> str:
    return {"masks": "masks", "depth": "depth maps", "values": "value maps"}[kind]
