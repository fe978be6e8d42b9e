"""The model that ships."""

import math

import numpy as np
import pytest
from PIL import Image

import densevit
from densevit.checkpoints.hub import DEFAULT
from densevit.checkpoints.native import Header, read_header
from densevit.tasks import Depth, Segmentation
from tests.e2e.scenes import scene

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def header() -> Header:
    """What the file says about itself."""
    return read_header(DEFAULT)


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


def test_default__figures_do_not_fall_back(header):
    metrics = header.card.metrics
    assert metrics["streets"]["mIoU"] >= 0.72
    assert metrics["rooms"]["mIoU"] >= 0.52
    assert metrics["depth"]["delta1"] >= 0.76


def test_default__predicts_labels_and_metres():
    prediction = densevit.load().predict(scene(0).image)
    assert (set(prediction), prediction.primary in {"streets", "rooms"}) == ({"streets", "rooms", "depth"}, True)
    assert np.isfinite(prediction.depth).all()
    assert 0 < prediction.depth.min() <= prediction.depth.max() <= 10


def test_default__is_what_the_command_line_takes_without_being_told(cli, tmp_path):
    Image.fromarray(scene(0).image).save(tmp_path / "photo.png")
    result = cli("predict", tmp_path / "photo.png", "--out", tmp_path / "out")
    assert result.code == 0, result.err
    assert {path.suffixes[0] for path in (tmp_path / "out").glob("*.png")} == {".streets", ".rooms", ".depth"}


def test_default__is_listed_with_licence_and_figures(cli, tmp_path):
    result = cli("models", "--json", tmp_path / "models.json")
    (row,) = (line for line in result.out.splitlines() if "default" in line)
    assert "shipped" in row
    assert all(f"{head}: {figure} 0." in result.out for head, figure in (("streets", "mIoU"), ("depth", "delta1")))
