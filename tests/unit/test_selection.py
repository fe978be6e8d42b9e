"""Data sets of shapes are evaluated with the background that the head learnt."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.data import parse_data
from densevit.errors import DensevitError
from densevit.evaluation.selection import choose_head, open_for
from densevit.tasks import Segmentation

SIZE = (12, 16)
SQUARE = [[2, 2], [6, 2], [6, 6], [2, 6]]


def write_photo(root: Path) -> None:
    (root / "images").mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / "a.png")


def coco(root: Path) -> None:
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}],
    }
    (root / "annotations.json").write_text(json.dumps(data))


def coco_with_classes(root: Path) -> None:
    coco(root)
    (root / "classes.json").write_text(json.dumps({"classes": ["floor", "cat"]}))


def labelme(root: Path) -> None:
    (root / "masks").mkdir()
    shape = {"label": "cat", "points": SQUARE}
    file = {"imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": [shape]}
    (root / "masks" / "a.json").write_text(json.dumps(file))
    (root / "classes.json").write_text(json.dumps({"classes": ["floor", "cat"]}))


@pytest.mark.parametrize("write", [coco, coco_with_classes, labelme])
@pytest.mark.parametrize("wanted", [None, "labels"])
def test_background__is_that_which_the_head_learnt(write, wanted, tmp_path: Path) -> None:
    write_photo(tmp_path)
    write(tmp_path)
    tasks = {"labels": Segmentation(classes=("floor", "cat"), background="floor")}
    head, dataset = choose_head(tasks, open_for(parse_data({"root": tmp_path}), "segmentation"), "segmentation", wanted)
    assert head == "labels"
    labels = dataset[0].labels
    assert labels is not None
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {0: 192 - 16, 1: 16}


@pytest.mark.parametrize("write", [coco_with_classes, labelme])
def test_background__stays_ignored_where_the_head_has_none(write, tmp_path: Path) -> None:
    write_photo(tmp_path)
    write(tmp_path)
    tasks = {"labels": Segmentation(classes=("floor", "cat"))}
    _, dataset = choose_head(tasks, open_for(parse_data({"root": tmp_path}), "segmentation"), "segmentation", None)
    assert (dataset[0].labels == 255).sum() == 192 - 16


@pytest.mark.parametrize("write", [coco, coco_with_classes, labelme])
def test_background__may_be_named_for_a_head_that_does_not_know_it(write, tmp_path: Path) -> None:
    write_photo(tmp_path)
    write(tmp_path)
    tasks = {"labels": Segmentation(classes=("floor", "cat"))}
    dataset = open_for(parse_data({"root": tmp_path, "background": "floor"}), "segmentation")
    _, dataset = choose_head(tasks, dataset, "segmentation", None)
    labels = dataset[0].labels
    assert labels is not None
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {0: 192 - 16, 1: 16}


def masks(root: Path) -> None:
    (root / "masks").mkdir()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(root / "masks" / "a.png")


@pytest.mark.parametrize(
    ("write", "places", "words"),
    [
        (masks, {"background": "floor"}, "has no shapes of COCO or labelme; leave it out"),
        (coco, {"background": "floor", "kind": "pascal_context"}, "background: Input should be a valid boolean"),
        (coco_with_classes, {"background": "wall"}, "background is 'wall' but the classes are floor, cat"),
    ],
)
def test_background__that_does_not_fit_the_data_is_refused(write, places, words: str, tmp_path: Path) -> None:
    write_photo(tmp_path)
    write(tmp_path)
    with pytest.raises((DensevitError, ValueError)) as error:
        open_for(parse_data({"root": tmp_path, **places}), "segmentation")
    assert words in str(error.value)
