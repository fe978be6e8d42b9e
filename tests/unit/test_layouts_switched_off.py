"""Every layout and export depends on its own recogniser and reader: with one switched off, it means something else."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from densevit.data import FolderConfig, FolderDataset
from densevit.data.description import describe
from densevit.data.discover import recognise
from densevit.data.split_roles import split_names
from densevit.errors import DataError
from tests.layouts import LAYOUTS

DISCOVER = "densevit.data.discover."
BY_TOOL = {
    "coco": (
        "roboflow_coco",
        "cvat_coco",
        "label_studio_coco",
        "coco_2017",
        "fiftyone_coco",
        "coco_file_for_each_split",
        "coco_with_folders_of_splits",
    ),
    "brushes": ("label_studio_brushes", "label_studio_json_min"),
    "by_times": ("time_stamps",),
    "by_place": ("sun_rgbd",),
    "by_middle": ("matterport", "kitti_selection"),
    "masks_by_class": (
        "folder_for_each_class",
        "folder_of_masks_for_each_photo",
        "class_in_the_name",
        "folders_and_tails_for_each_class",
    ),
    "masks_by_object": ("folder_with_a_mask_for_each_object", "masks_of_objects_by_photo"),
}
BY_NAMES = ("by_names", "by_folders")
"""Recognisers of all other layouts; what has both suffixes and folders is known by either."""

BY_TABLE = "hugging_face_folder"
REGIONS = (*BY_TOOL["brushes"], *BY_TOOL["masks_by_class"], *BY_TOOL["masks_by_object"], "further_masks")
DEPTH = ("sun_rgbd", "matterport", "kitti_selection")
GREY = ("stare", "isic_with_superpixels")
READERS = {
    "folder.read_coco_files": BY_TOOL["coco"],
    "folder.LabelmeReader": ("labelme_beside_photos", "labelme_in_a_folder"),
    "folder.RegionReader": REGIONS,
    "folder.read_grey": ("extensions_in_one_folder", "jpeg_masks", "jpeg_masks_of_high_quality", *GREY),
    "folder.read_depth": ("rgbd_frames", "scenes_with_depth", "depth_of_one_channel", "time_stamps", *DEPTH),
    "files.read_values": ("surface_normals",),
}
READ_MASK = "folder.read_mask"
"""The reader of all other layouts."""

TABLES = {
    "labelmap.txt": "cvat_masks",
    "_classes.csv": "roboflow_masks",
    "class_mapping.json": "masks_with_a_json_of_numbers",
    "class_mapping.csv": "v7_masks",
    "config.json": "classes_in_a_config",
    "classes._voc": "pascal_voc_palette",
    "recognise.splits_of_photos": "pascal_voc_palette",
    "recognise.unit_of_depth": "scenes_with_depth",
}
"""What reads a file or property that only an export has."""


def meaning(root: Path) -> Any:
    """What the data are and hold, as bytes; None if they are refused."""
    try:
        config = describe(root).config
        assert isinstance(config, FolderConfig)
        held = []
        for split in split_names(config) or [None]:
            dataset = FolderDataset(config.model_copy(update={"split": split}))
            for sample in (dataset[index] for index in range(len(dataset))):
                targets = (sample.labels, sample.depth, sample.values)
                held.append((split, sample.name, [None if one is None else one.tobytes() for one in targets]))
        return config, held
    except DataError:
        return None


def refuse(*_: object, **__: object) -> Any:
    raise DataError("switched off")


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    rows = tuple(row for row in recognise.RECOGNISERS if row[0].__name__ not in names)
    assert len(rows) == len(recognise.RECOGNISERS) - len(names)
    monkeypatch.setattr(recognise, "RECOGNISERS", rows)


def of(table: dict[str, tuple[str, ...]], name: str, otherwise: Any) -> Any:
    return next((key for key, names in table.items() if name in names), otherwise)


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        LAYOUTS[name].make(tmp_path / "data")
        return tmp_path / "data"

    return make


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout__is_not_recognised_without_its_recogniser(name: str, made, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made(name)
    before = describe(root).config

    tool = of(BY_TOOL, name, None)
    if name == BY_TABLE:
        monkeypatch.setattr(recognise, "by_table", lambda *_: None)
    without(monkeypatch, *((tool,) if tool else BY_NAMES))

    try:
        after = describe(root).config
    except DataError:
        return
    assert after != before


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout__is_not_read_without_its_reader(name: str, made, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made(name)
    before = meaning(root)
    assert before is not None

    monkeypatch.setattr(f"densevit.data.{of(READERS, name, READ_MASK)}", refuse)

    assert meaning(root) is None


@pytest.mark.parametrize("reader", TABLES)
def test_export__means_something_else_without_its_table(reader: str, made, monkeypatch: pytest.MonkeyPatch) -> None:
    root = made(TABLES[reader])
    before = meaning(root)
    if "." in reader and reader.rpartition(".")[2] in ("txt", "csv", "json"):
        (module,) = (one for name, one in sys.modules.items() if name.startswith(DISCOVER) and hasattr(one, "_LISTS"))
        monkeypatch.setattr(module, "_LISTS", tuple(row for row in module._LISTS if not row[0](reader)))
    else:
        nothing = None if reader == "classes._voc" else ({}, [])
        monkeypatch.setattr(f"{DISCOVER}{reader}", lambda *_: nothing)

    after = meaning(root)

    assert before is not None
    assert after is None or after[0] != before[0]
