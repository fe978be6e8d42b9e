"""Data as people keep them: what the doctor finds there, what it passes over, and the copy that it writes."""

import csv
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import ClassTable, FolderConfig, FolderDataset
from densevit.data.description import describe
from densevit.data.pairs import find_pairs
from densevit.data.splits import SplitConfig
from densevit.doctor.checks_classes import histograms
from densevit.doctor.examine import examine, fast_check
from densevit.doctor.fix import write_fixed
from densevit.doctor.pictures import pictures
from densevit.doctor.report import as_record, tables, unread
from densevit.errors import DataError
from densevit_runtime.io.zipped import place
from tests.e2e.scenes import CLASSES
from tests.unit.doctor.data import codes, each, finding, look, mask, photo, save
from tests.unit.doctor.faults import GREYS, OUTLINE, as_coco, as_labelme, in_colours, in_greys

PALETTE = ((10, 20, 30), (200, 50, 50), (0, 200, 0), (0, 0, 200))

Made = tuple[Path, dict[str, Any]]


def suffixes(root: Path, folder: Path) -> Made:
    """Photos and masks in one folder, told apart by their suffixes."""
    for kind, suffix in (("images", "_photo"), ("masks", "_mask")):
        for path in root.glob(f"{kind}/train/*.png"):
            save(folder / f"{path.stem}{suffix}.png", np.asarray(Image.open(path)))
    return folder, {"images": "{name}_photo.png", "masks": "{name}_mask.png", "classes": CLASSES}


def nested(root: Path, folder: Path) -> Made:
    """Folders of scenes within those of splits, and a word for numbers that mean no class."""
    for kind in ("images", "masks"):
        for path in root.glob(f"{kind}/*/*.png"):
            scene = f"scene{int(path.stem) % 2}" if kind else ""
            save(folder / path.parent.name / scene / f"{path.stem}.{kind}.png", np.asarray(Image.open(path)))
    templates = {"images": "{split}/{folder}/{name}.images.png", "masks": "{split}/{folder}/{name}.masks.png"}
    return folder, {**templates, "classes": CLASSES, "merge": {"red or blue": ["red", "blue"]}, "drop": ["green"]}


def table(root: Path, folder: Path) -> Made:
    """A table with a column of splits."""
    shutil.copytree(root / "images", folder / "a")
    shutil.copytree(root / "masks", folder / "b")
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "split"])
        for path in sorted(folder.glob("a/*/*.png")):
            split = {"train": "train", "val": "valid"}[path.parent.name]
            writer.writerow([f"a/{path.parent.name}/{path.name}", f"b/{path.parent.name}/{path.name}", split])
    return folder, {"pairs": folder / "list.csv", "classes": CLASSES}


def colours(root: Path, folder: Path) -> Made:
    """Masks in colours that only the config knows."""
    each(root, "masks", lambda m: in_colours(np.where(m == 255, 0, m)))
    (root / "classes.json").unlink()
    shutil.copytree(root, folder)
    return folder, {"classes": CLASSES, "palette": PALETTE}


def greys(root: Path, folder: Path) -> Made:
    """Grey masks."""
    each(root, "masks", in_greys)
    (root / "classes.json").unlink()
    shutil.copytree(root, folder)
    return folder, {"classes": CLASSES, "class_values": GREYS}


def coco(root: Path, folder: Path) -> Made:
    """COCO's annotations."""
    as_coco(root, CLASSES, {"category_id": 1, "segmentation": [[[2, 2], [9, 2], [9, 9]]]})
    shutil.copytree(root, folder)
    return folder, {"background": "blue"}


def labelme(root: Path, folder: Path) -> Made:
    """Files of labelme."""
    as_labelme(root, {"label": "red", "points": [[2, 2], [9, 2], [9, 9]]})
    shutil.copytree(root, folder)
    return folder, {"background": "blue"}


def regions(root: Path, folder: Path) -> Made:
    """A file for each class."""
    for path in root.glob("images/train/*.png"):
        shutil.copytree(path.parent, folder / "photos", dirs_exist_ok=True)
        labels = np.asarray(Image.open(root / "masks" / "train" / path.name))
        for number, name in enumerate(CLASSES[1:], 1):
            save(folder / "regions" / f"{path.stem}_{name}.png", (labels == number).astype(np.uint8) * np.uint8(255))
    return folder, {"images": "photos/{name}.png", "masks": "regions/{name}_{class}.png", "background": "wall"}


def drawn_splits(root: Path, folder: Path) -> Made:
    """Plain folders without splits, which are drawn."""
    shutil.copytree(root / "images" / "train", folder / "images")
    shutil.copytree(root / "masks" / "train", folder / "masks")
    return folder, {"classes": CLASSES, "splits": {"val": 0.25, "seed": 3}}


LAYOUTS: list[Callable[[Path, Path], Made]] = [
    *(suffixes, nested, table, colours, greys, coco, labelme, regions, drawn_splits)
]


def config_of(made: Made) -> FolderConfig:
    return FolderConfig.parse({"root": made[0], **made[1]})


def labels_of(config: FolderConfig) -> dict[tuple[str, bytes], NDArray[np.int32]]:
    """The masks by the role of their split and the pixels of their photo."""
    found = {}
    for split in find_pairs(config).splits() or [None]:
        dataset = FolderDataset(config.model_copy(update={"split": split}), targets=frozenset({"labels"}))
        for index in range(len(dataset)):
            sample = dataset[index]
            assert sample.labels is not None
            found[{None: ""}.get(split, str(split)), sample.image.tobytes()] = sample.labels
    return found


def classes_of(config: FolderConfig) -> ClassTable | None:
    split = next(iter(find_pairs(config).splits()), None)
    return FolderDataset(config.model_copy(update={"split": split})).classes


@pytest.fixture(params=LAYOUTS, ids=lambda maker: maker.__name__)
def made(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Made:
    return request.param(root, tmp_path / "theirs")


def test_layout__is_counted_as_training_reads_it(made: Made) -> None:
    config = config_of(made)
    diagnosis = examine(config)
    plain = config.model_copy(update={"merge": {}, "drop": ()})  # the doctor looks at the classes that are stored
    masks = [labels for (split, _), labels in labels_of(plain).items() if split in {"", "train"}]
    histogram = next(iter(histograms(diagnosis.context).values()))

    assert [f.line() for f in diagnosis.findings if f.severity == "error"] == []
    assert histogram.pixels.tolist() == [sum(int((m == i).sum()) for m in masks) for i in range(len(CLASSES))]
    assert histogram.ignored == sum(int((m == 255).sum()) for m in masks)


def test_copy__of_a_layout_gives_the_same_labels(made: Made, tmp_path: Path) -> None:
    config = config_of(made)

    write_fixed(examine(config), tmp_path / "copy")

    theirs, copied = labels_of(config), labels_of(FolderConfig(root=tmp_path / "copy"))
    assert copied.keys() == theirs.keys()
    for key, labels in theirs.items():
        np.testing.assert_array_equal(copied[key], labels)
    classes = [classes_of(c) for c in (config, FolderConfig(root=tmp_path / "copy"))]
    assert classes[0] is not None
    assert classes[1] is not None
    assert classes[1].names == classes[0].names


def test_layout__is_drawn_on_the_page(made: Made) -> None:
    context = examine(config_of(made)).context
    sample = context.samples[0]

    assert len(pictures(sample, context)) == sum(facts is not None for facts in (True, sample.masks, sample.depth))


def test_zip__is_examined_in_place(root: Path, tmp_path: Path) -> None:
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*")):
            file.write(path, path.relative_to(root.parent))
    within = FolderConfig(root=place(archive) / "data")

    assert codes(examine(within)) == set()
    write_fixed(examine(within), tmp_path / "copy")
    assert labels_of(FolderConfig(root=tmp_path / "copy")).keys() == labels_of(FolderConfig(root=root)).keys()


def test_shapes__are_counted_by_label(root: Path, tmp_path: Path) -> None:
    diagnosis = examine(config_of(coco(root, tmp_path / "theirs")))

    assert as_record(diagnosis, "mine")["splits"][0]["shapes"] == {"wall": 12, "red": 1}
    assert "1 shapes" in tables(diagnosis, "mine")[1][2][1][1]


def test_region__without_a_pixel_is_passed_over(root: Path, tmp_path: Path) -> None:
    made = regions(root, tmp_path / "theirs")
    save(made[0] / "regions" / "003_red.png", np.zeros((48, 64), np.uint8))

    found = finding(examine(config_of(made)), "annotations-passed-over")

    assert "1 have no pixel (such as 003_red.png)" in found.what


def test_photo__without_a_region_is_left_out_and_said(root: Path, tmp_path: Path) -> None:
    made = regions(root, tmp_path / "theirs")
    for path in (made[0] / "regions").glob("003_*"):
        path.unlink()

    found = finding(examine(config_of(made)), "target-left-out")

    assert found.what == "1 of 12 photos have no mask and are left out"


def test_leak__is_found_between_drawn_splits(root: Path, tmp_path: Path) -> None:
    folder, keys = drawn_splits(root, tmp_path / "theirs")
    names = [pair.name for pair in find_pairs(config_of((folder, keys))).pairs]
    for kind, array in (("images", photo(3)), ("masks", mask(3))):
        save(folder / kind / "again.png", array)
    lists = SplitConfig(names={"val": ("again",), "test": (names[0],)})

    assert "leak-exact" in codes(examine(config_of((folder, keys | {"splits": lists}))))


def test_name__in_two_lists_is_refused(root: Path, tmp_path: Path) -> None:
    folder, keys = drawn_splits(root, tmp_path / "theirs")
    lists = SplitConfig(names={"val": ("003",), "test": ("003",)})

    with pytest.raises(DataError, match="003 is in the lists of val and test"):
        examine(config_of((folder, keys | {"splits": lists})))


# What was not looked at


def test_files__that_no_template_reaches_are_said(root: Path, tmp_path: Path) -> None:
    made = suffixes(root, tmp_path / "theirs")
    for name in ("pose.txt", "more/a.jpg", "more/b.jpg", "instances.json", "._a.png"):
        (made[0] / name).parent.mkdir(exist_ok=True)
        (made[0] / name).write_bytes(b"0")

    diagnosis = examine(config_of(made))
    lines = unread(diagnosis)

    assert "2 files: no template matches its name (such as instances.json)" in lines
    assert "2 files in more, which belong to no pair: 2 .jpg (such as a.jpg)" in lines
    assert any(line.startswith("1 hidden files") for line in lines)
    assert {item["files"] for item in as_record(diagnosis, "mine")["not_looked_at"]} == {1, 2}


def test_photos__that_were_not_opened_are_said(sound: Path) -> None:
    lines = unread(look(sound, sample=2, only=("train",)))

    assert "10 of 12 photos and their targets, of which only the names were compared" in lines
    assert any(line.startswith("5 photos of other splits") for line in lines)


def test_nothing__is_said_where_all_was_looked_at(root: Path) -> None:
    shutil.rmtree(root / "values")

    assert unread(look(root)) == []


@pytest.mark.parametrize(("most", "found"), [(1e6, ["annotations-broken"]), (10, [])])
def test_fast_check__opens_no_large_annotations(
    most: float, found: list[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, keys = coco(root, tmp_path / "theirs")
    (folder / "annotations" / "train.json").write_text('{"images": []}')
    places = {"train": FolderConfig.parse({"root": folder, "split": "train", **keys})}
    monkeypatch.setattr("densevit.doctor.examine.FAST_ANNOTATIONS", most)

    assert [f.code for f in fast_check(places, kinds=["masks"])] == found


def test_copy__lacks_photos_that_annotations_do_not_list(root: Path, tmp_path: Path) -> None:
    folder, keys = coco(root, tmp_path / "theirs")
    for kind in ("depth", "values"):
        shutil.rmtree(folder / kind)
    save(folder / "images" / "train" / "new.png", photo(77))

    copy = write_fixed(examine(config_of((folder, keys))), tmp_path / "copy")

    assert copy.left_out["target-left-out"] == [str(folder / "images" / "train" / "new.png")]
    assert labels_of(FolderConfig(root=tmp_path / "copy")).keys() == labels_of(config_of((folder, keys))).keys()


def test_copy__keeps_what_depth_means(root: Path, tmp_path: Path) -> None:
    keys = {"depth_unit_m": 0.0002, "depth_invalid": (7.0,)}
    write_fixed(look(root, **keys), tmp_path / "copy")

    config = describe(tmp_path / "copy").config
    assert isinstance(config, FolderConfig)
    assert (config.depth_unit_m, config.depth_invalid) == (0.0002, (7.0,))


def test_folder__without_photos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.txt").write_text("a")

    with pytest.raises(DataError, match=r"has no photos \(passed over: 1 files, such as a.txt"):
        look(tmp_path)


def test_outline__is_one_of_the_photo(root: Path) -> None:
    as_labelme(root, {"label": "red", "points": OUTLINE})
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255}))

    assert histograms(look(root).context)["train"].pixels.tolist()[0] == 0  # the later shape covers the earlier
