"""The model that ships."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import densevit
from densevit.checkpoints.hub import DEFAULT
from densevit.checkpoints.native import Header, read_header
from densevit.tasks import Depth, Segmentation
from tests.e2e.commands import spawn

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def header() -> Header:
    """What the file says about itself."""
    return read_header(DEFAULT)


@pytest.fixture(scope="module")
def street() -> densevit.Prediction:
    """A photo of a street, as Python sees it."""
    return densevit.load().predict(PHOTOS / "street.jpg")


@pytest.fixture(scope="module")
def room_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command line writes for a photo of a room."""
    folder = tmp_path_factory.mktemp("room")
    done = spawn("predict", PHOTOS / "lecture-hall.jpg", "--out", folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture(scope="module")
def room(room_files: Path) -> dict[str, Any]:
    """Its record."""
    return json.loads((room_files / "lecture-hall.json").read_text())


def test_default__fits_into_the_wheel():
    assert DEFAULT.stat().st_size <= 95 * MEGABYTE


def test_default__has_streets_rooms_and_depth(header):
    assert {name: head.out_channels for name, head in header.model.heads.items()} == {
        "streets": 11,
        "rooms": 13,
        "depth": 1,
    }


def test_default__tasks_name_their_classes_and_units(header):
    streets, rooms, depth = (header.tasks[name] for name in ("streets", "rooms", "depth"))
    assert isinstance(streets, Segmentation)
    assert {"road", "building", "car", "pedestrian"} <= set(streets.classes)
    assert isinstance(rooms, Segmentation)
    assert {"wall", "floor", "bed", "window"} <= set(rooms.classes)
    assert isinstance(depth, Depth)
    assert (depth.quantity, depth.unit) == ("depth", "m")


def test_default__card_has_licence_provenance_and_figures(header):
    card = header.card
    assert (card.licence not in {"", "unknown"}, bool(card.data_licence), bool(card.provenance)) == (True, True, True)
    figures = {head: header.tasks[head].headline[0] for head in header.tasks}
    assert all(math.isfinite(card.metrics[head][figure]) for head, figure in figures.items())


def test_default__predicts_what_is_on_a_street(street):
    shares = {name: share for name, share in street["streets"].shares.items() if share > 0.03}
    assert shares == pytest.approx({"building": 0.515, "sky": 0.231, "road": 0.171, "pavement": 0.035}, abs=0.01)
    assert np.quantile(street.depth, (0.1, 0.5, 0.9)) == pytest.approx([2.83, 3.58, 5.29], rel=0.02)


def test_default__predicts_what_is_in_a_room(room):
    shares = {name: share for name, share in room["heads"]["rooms"]["shares"].items() if share > 0.03}
    assert shares == pytest.approx(
        {"wall": 0.352, "ceiling": 0.322, "objects": 0.121, "furniture": 0.075, "window": 0.068, "table": 0.049},
        abs=0.01,
    )
    assert room["heads"]["depth"]["mean"] == pytest.approx(3.40, rel=0.02)
    assert room["quality"] == "fast"


def test_default__at_quality_best_sees_a_room_in_windows():
    best = densevit.load(heads=["rooms"], quality="best").predict(PHOTOS / "lecture-hall.jpg")
    shares = {name: share for name, share in best.shares.items() if share > 0.03}
    assert shares == pytest.approx({"wall": 0.356, "ceiling": 0.312, "objects": 0.245, "furniture": 0.063}, abs=0.01)


def test_default__primary_is_the_head_of_the_kind_of_photo(street, room):
    assert (street.primary, room["primary"]) == ("streets", "rooms")


def test_default__predicts_labels_and_metres(street):
    assert set(street) == {"streets", "rooms", "depth"}
    assert street.labels.shape == street.depth.shape == street.image.shape[:2]
    assert np.isfinite(street.depth).all()
    assert 0 < street.depth.min() <= street.depth.max() <= 10


def test_default__is_what_the_command_line_takes_without_being_told(room, room_files):
    assert set(room["heads"]) == {"streets", "rooms", "depth"}
    assert {path.suffixes[0] for path in room_files.glob("*.png")} == {".streets", ".rooms", ".depth"}


def test_default__is_listed_with_licence_and_figures(cli, tmp_path):
    result = cli("models", "--json", tmp_path / "models.json")
    (row,) = (line for line in result.out.splitlines() if "default" in line)
    assert "shipped" in row
    assert all(f"{head} {figure} 0." in result.out for head, figure in (("streets", "mIoU"), ("depth", "delta1")))
