"""Annotations of predictions: read by the readers of data sets they are the prediction, pixel for pixel."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densevit.data.coco import read_coco
from densevit.data.description import describe
from densevit.data.folder import FolderDataset
from densevit.data.folder_config import FolderConfig
from densevit.errors import ConfigError, DataError
from densevit.inference.annotations import (
    ANNOTATION_KINDS,
    LabelledPhoto,
    LabelSet,
    annotation_files,
    cvat_labelmap,
    photo_names,
    write_annotations,
)
from densevit.inference.prediction import Prediction
from densevit.inference.results import HeadResult, head_result
from densevit.inference.tiled_logits import resized_logits
from densevit.io import write_png
from densevit.tasks import Depth, Segmentation, Task

SIZE = (21, 34)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
STREETS = Segmentation(classes=("road", "sky", "tree"))
CELLS = Segmentation(classes=("nucleus", "_Background_", "cytoplasm"), palette=((0, 0, 0), (9, 9, 9), (200, 0, 0)))


def labels(seed: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, 3, SIZE).astype(np.int32)


def head_of(task: Task, channels: int) -> HeadResult:
    """The result of a head with random logits."""
    logits = torch.randn(channels, 5, 8, generator=torch.Generator().manual_seed(0)).abs()
    return head_result("main", task, IMAGE, resized_logits(logits, SIZE, align_corners=True))


def photos(folder: Path) -> list[LabelledPhoto]:
    """Two photos in folders, with random labels."""
    paths = [folder / "in" / name for name in ("one/a.png", "two/b.png")]
    for path in paths:
        path.parent.mkdir(parents=True)
        write_png(path, IMAGE)
    names = photo_names(paths)
    return [
        LabelledPhoto(path, *name, seed + 1, lambda seed=seed: labels(seed))  # type: ignore[misc]
        for seed, (path, name) in enumerate(zip(paths, names, strict=True))
    ]


def reads(config: dict[str, Any]) -> NDArray[np.int32]:
    found = FolderDataset(FolderConfig.parse(config))[0].labels
    assert found is not None
    return found


@pytest.mark.parametrize("task", [STREETS, CELLS], ids=["all classes", "background"])
@pytest.mark.parametrize("kind", ANNOTATION_KINDS)
def test_annotations__are_read_as_the_labels_that_were_written(kind, task, tmp_path):
    classes, written = LabelSet.of(task), photos(tmp_path)

    write_annotations(kind, tmp_path / "out", written, classes)

    known = {"classes": task.classes, "background": "_Background_" if task is CELLS else None}
    for seed, photo in enumerate(written):
        masks: dict[str, Any] = {
            "coco": {"masks": tmp_path / "out" / "annotations.json"},
            "labelme": {"masks": (tmp_path / "out" / f"{photo.stem}.json").parent},
            "cvat": {
                "masks": (tmp_path / "out" / "SegmentationClass" / f"{photo.stem}.png").parent,
                "palette": classes.colours,
                "background": None,
            },
        }[kind]
        assert (reads({"images": photo.path.parent, **known, **masks}) == labels(seed)).all()


@pytest.mark.parametrize(("kind", "masks"), [("coco", "annotations.json"), ("labelme", ""), ("cvat", "")])
def test_annotations__are_recognised_with_their_classes(kind, masks, tmp_path):
    write_annotations(kind, tmp_path / "out", photos(tmp_path), LabelSet.of(CELLS))
    background = {} if kind == "cvat" else {"background": "_Background_"}

    found = describe(None, images=tmp_path / "in", masks=tmp_path / "out" / masks, **background).config

    dataset = FolderDataset(found.model_copy(update={"splits": None}))
    assert dataset.classes is not None
    for seed in range(2):
        read = dataset[seed].labels
        assert read is not None
        assert np.array_equal(np.array(dataset.classes.names)[read], np.array(CELLS.classes)[labels(seed)])


def test_coco__by_itself_gives_the_classes_in_their_order(tmp_path):
    write_annotations("coco", tmp_path / "out", photos(tmp_path), LabelSet.of(CELLS))

    coco = read_coco(tmp_path / "out" / "annotations.json", None, "_Background_")

    assert (coco.classes.names, coco.passed_over.total, coco.notes) == (CELLS.classes, 0, ())
    assert list(coco.photos) == ["one/a.png", "two/b.png"]


def test_coco__has_ids_that_are_used_once_and_say_whose_they_are(tmp_path):
    write_annotations("coco", tmp_path / "out", photos(tmp_path), LabelSet.of(STREETS))

    data = json.loads((tmp_path / "out" / "annotations.json").read_text())

    ids = [row["id"] for row in data["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert {row["id"] for row in data["images"]} == {row["image_id"] for row in data["annotations"]} == {1, 2}
    assert sum(row["area"] for row in data["annotations"]) == 2 * SIZE[0] * SIZE[1]


def test_labelme__names_the_photo_as_seen_from_its_file(tmp_path):
    write_annotations("labelme", tmp_path / "out", photos(tmp_path), LabelSet.of(STREETS))

    for name in ("one/a", "two/b"):
        path = tmp_path / "out" / f"{name}.json"
        assert (path.parent / json.loads(path.read_text())["imagePath"]).samefile(tmp_path / "in" / f"{name}.png")


def test_labelme__groups_the_pieces_of_a_region_with_a_hole():
    ring = np.ones((3, 3), np.int32)
    ring[1, 1] = 0
    shapes = Prediction(IMAGE, {"main": of(ring, CELLS)}).annotations("labelme", head="main")["shapes"]

    assert [(shape["label"], shape["group_id"]) for shape in shapes] == [("nucleus", None)]

    shapes = Prediction(IMAGE, {"main": of(1 - ring, CELLS)}).annotations("labelme", head="main")["shapes"]
    assert [shape["label"] for shape in shapes] == ["nucleus", "nucleus"]
    assert shapes[0]["group_id"] == shapes[1]["group_id"] == 1


def of(wanted: NDArray[np.int32], task: Segmentation) -> Any:
    """A result with these labels."""
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(wanted).long(), 3).permute(2, 0, 1).float()
    image = np.zeros((*wanted.shape, 3), np.uint8)
    return head_result("main", task, image, resized_logits(one_hot, wanted.shape, align_corners=False))


def test_cvat__lists_every_photo_and_colour(tmp_path):
    write_annotations("cvat", tmp_path / "out", photos(tmp_path), LabelSet.of(CELLS))

    assert (tmp_path / "out" / "ImageSets" / "Segmentation" / "default.txt").read_text() == "one/a\ntwo/b\n"
    rows = (tmp_path / "out" / "labelmap.txt").read_text().splitlines()
    # Black is the background's alone, so the nucleus got the first of Pascal VOC's colours.
    assert rows == [
        "# label:color_rgb:parts:actions",
        "nucleus:128,0,0::",
        "_Background_:0,0,0::",
        "cytoplasm:200,0,0::",
    ]


def test_label_set__has_different_colours_where_the_palette_has_not():
    task = Segmentation(classes=tuple("abcd"), palette=((1, 1, 1), (1, 1, 1), (128, 0, 0), (0, 0, 0)))

    assert LabelSet.of(task).colours == ((1, 1, 1), (0, 128, 0), (128, 0, 0), (128, 128, 0))


@pytest.mark.parametrize("name", ["a:b", "a\nb", "#a"])
def test_cvat__refuses_a_name_that_breaks_its_rows(name, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be written to CVAT's labelmap.txt"):
        write_annotations("cvat", tmp_path, [], LabelSet.of(Segmentation(classes=(name, "b"))))


@pytest.mark.parametrize("kind", ANNOTATION_KINDS)
def test_annotations__that_somebody_corrected_are_kept(kind, tmp_path):
    classes, written = LabelSet.of(STREETS), photos(tmp_path)
    write_annotations(kind, tmp_path / "out", written, classes)
    write_annotations(kind, tmp_path / "out", written, classes)  # its own are replaced
    corrected = annotation_files(kind, tmp_path / "out", [photo.stem for photo in written])[-1]
    corrected.write_bytes(b"corrected")

    with pytest.raises(DataError, match="densevit did not write what is there now"):
        write_annotations(kind, tmp_path / "out", written, classes)

    assert corrected.read_bytes() == b"corrected"
    write_annotations(kind, tmp_path / "out", written, classes, overwrite=True)
    assert corrected.read_bytes() != b"corrected"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/d/a.jpg"], [("a.jpg", "a")]),
        (["/d/x/a.jpg", "/d/y/a.jpg"], [("x/a.jpg", "x/a"), ("y/a.jpg", "y/a")]),
        (["/d/a.jpg", "/d/a.png", "/d/b.png"], [("a.jpg", "a.jpg"), ("a.png", "a.png"), ("b.png", "b")]),
        (["/d/a.jpg", "/d/a.png", "/d/a.jpg.png"], [(n, n) for n in ("a.jpg", "a.png", "a.jpg.png")]),
        ([], []),
    ],
)
def test_photo_names__are_relative_and_different(paths, expected):
    assert photo_names([Path(path) for path in paths]) == expected


# In Python


def test_prediction__gives_coco_of_its_primary_head():
    prediction = Prediction(IMAGE, {"streets": head_of(STREETS, 3), "depth": head_of(Depth(), 1)})

    coco = prediction.annotations(photo="in/room.jpg")

    assert coco["images"] == [{"id": 1, "file_name": "in/room.jpg", "height": SIZE[0], "width": SIZE[1]}]
    assert [row["name"] for row in coco["categories"]] == ["road", "sky", "tree"]
    assert sum(row["area"] for row in coco["annotations"]) == SIZE[0] * SIZE[1]


def test_prediction__gives_cvat_as_text_and_colours():
    prediction = Prediction(IMAGE, {"streets": head_of(STREETS, 3)})

    files = prediction.annotations("cvat", photo="in/room.jpg")

    assert files["labelmap.txt"] == cvat_labelmap(LabelSet.of(STREETS))
    assert (files["SegmentationClass/room.png"] == np.array(STREETS.palette)[prediction.labels]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cocoa"}, "there are no annotations of kind 'cocoa'; did you mean 'coco'?"),
        ({"head": "depth"}, "annotations are of classes, but the head does depth; name a segmentation head"),
    ],
)
def test_prediction__refuses_what_has_no_annotations(arguments, message):
    prediction = Prediction(IMAGE, {"streets": head_of(STREETS, 3), "depth": head_of(Depth(), 1)})

    with pytest.raises(ConfigError) as error:
        prediction.annotations(**arguments)

    assert str(error.value) == message
