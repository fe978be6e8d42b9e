"""What the masks and maps of a corrected copy mean: its classes.json, and a dataset.yaml where that is not enough."""

from pathlib import Path
from typing import Any

from densevit.data import ClassTable, FolderConfig
from densevit.data.description import write_description
from densevit.data.labels import merge_classes
from densevit.doctor.checks_masks import spread_values
from densevit.doctor.context import Context
from densevit.io import make_folder, write_json

_KEPT = ("depth_unit_m", "depth_scale_m", "depth_invalid", "normals", "bands", "full_scale", "missing_targets")
"""Keys of a config that a copy needs too, in a dataset.yaml."""


def write_meaning(context: Context, folder: Path, *, rewritten: bool) -> None:
    """Write classes.json and dataset.yaml, or copy the files of the root, which have the same layout."""
    config, classes = context.splits[0].config, context.classes
    root = config.root
    if root is not None and config.images is None and config.pairs is None and config.classes is None:
        for path in sorted(root.iterdir()):
            is_meaning = path.name == "dataset.yaml" or (rewritten and path.name == "classes.json")
            if path.is_file() and not path.name.startswith(".") and not is_meaning:
                make_folder(folder)
                (folder / path.name).write_bytes(path.read_bytes())
    if classes is None and (judged := spread_values(context)) is not None:
        classes = ClassTable(judged.keys["classes"], context.ignore_index)
    if classes is not None and not (folder / "classes.json").exists():
        table = merge_classes(classes, config.merge, config.drop)[0] if rewritten else classes
        make_folder(folder)
        write_json(folder / "classes.json", _class_list(table), internal=True)
    kept = {key: getattr(config, key) for key in _KEPT}
    kept = {key: value for key, value in kept.items() if value != FolderConfig.model_fields[key].get_default()}
    if kept:
        write_description(FolderConfig.parse({"root": folder, **kept}), folder / "dataset.yaml", internal=True)


def _class_list(table: ClassTable) -> dict[str, Any]:
    data: dict[str, Any] = {"classes": [*table.names], "ignore_index": table.ignore_index}
    if table.palette:
        data["palette"] = [[*colour] for colour in table.palette]
    for key, (names, mapping) in table.views.items():
        data |= {key: [*names], f"to_{key.removeprefix('classes')}": [*mapping]}
    return data
