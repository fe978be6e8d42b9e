"""The metadata of exported files: what is written is read again, and what breaks the contract is refused."""

import json
from typing import Any

import pytest

from densevit_runtime.errors import CheckpointError
from densevit_runtime.metadata import HeadMetadata, Metadata, Verified

STREETS = HeadMetadata(
    task="segmentation", short_side=480, classes=("sky", "road"), palette=((1, 2, 3), (4, 5, 6)), scores=True
)
DEPTH = HeadMetadata(task="depth", short_side=240, unit="m", min_depth_m=0.001, max_depth_m=10.0)
NORMALS = HeadMetadata(task="regression", short_side=240, channels=("x", "y", "z"), unit_vectors=True)
METADATA = Metadata(
    name="tiny",
    heads={"streets": STREETS, "depth": DEPTH, "normals": NORMALS},
    patch_size=(16, 16),
    licence="CC-BY-4.0",
    verified=Verified(sizes=((1, 64, 96),), largest_difference={"depth": 1e-6}, labels_equal={"streets": 1.0}),
    card={"provenance": ["x"]},
)


def broken(path: str, value: Any) -> str:
    """The metadata with one value replaced, or removed if it is ``...``."""
    data = json.loads(METADATA.to_json())
    *parents, last = path.split("/")
    inside = data
    for parent in parents:
        inside = inside[parent]
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    return json.dumps(data)


def test_metadata__survive_a_round_trip() -> None:
    assert Metadata.parse(METADATA.to_json(), "m.onnx") == METADATA


@pytest.mark.parametrize(
    ("facts", "quantity"),
    [({"unit": "m"}, "depth"), ({"relative": True}, "disparity"), ({}, "relative_depth")],
)
def test_quantity__of_depth_follows_from_unit_and_direction(facts: dict[str, Any], quantity: str) -> None:
    assert HeadMetadata(task="depth", short_side=240, **facts).quantity == quantity


def test_outputs__are_the_heads_and_their_scores() -> None:
    assert METADATA.outputs == ("streets", "streets.scores", "depth", "normals")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, r"have format 2; 1 is accepted"),
        ("name", ..., r"lack the key 'name'"),
        ("precision", "int4", r"have precision 'int4'; 'float32' or 'int8' is accepted"),
        ("quality", "best", r"have quality 'best'; 'fast' is accepted"),
        ("colour", 1, r"unknown key 'colour'; name, heads, .* are accepted"),
        ("patch_size", [16], r"have patch_size \[16\]; a list of two numbers is accepted"),
        ("patch_size", [16, True], r"positive whole numbers are accepted"),
        ("heads", {}, r"name no head"),
        ("heads/depth/short_side", "240", r"head 'depth' in the metadata of m.onnx have short_side '240'"),
        ("heads/depth/task", "boxes", r"task 'boxes'; 'segmentation' or 'depth' or 'regression' is accepted"),
        ("heads/depth/scores", True, r"scores or entropy with task 'depth'"),
        ("heads/depth/max_depth_m", -1, r"depth from 0.001 to -1.0 m"),
        ("heads/depth/short_side", 10**9, r"up to 1,000,000 are accepted"),
        ("heads/streets/classes", [], r"'segmentation' and 0 classes"),
        ("heads/streets/classes", ["sky", "sky"], r"a class twice"),
        ("heads/streets/palette", [[0, 0, 0]], r"1 colours for 2 classes"),
        ("heads/streets/palette", [[0, 0, 0], [0, 0, 256]], r"numbers from 0 to 255 are accepted"),
        ("heads/streets/ignore_index", 1, r"ignore_index 1, which is also a class"),
        ("heads/normals/channels", ["x"], r"unit_vectors and 1 channels"),
        ("verified/sizes", [[1, 2]], r"a list of three numbers is accepted"),
    ],
)
def test_metadata__that_break_the_contract__are_refused(path: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        Metadata.parse(broken(path, value), "m.onnx")


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a\\b", "", "image", "x" * 101, "a\0b"])
def test_head__whose_name_could_leave_a_folder__is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="head named"):
        Metadata(name="tiny", heads={name: DEPTH}, patch_size=(16, 16))


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 10_000, "null", '{"format": NaN}'])
def test_metadata__that_are_no_mapping__are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"metadata of m\.onnx"):
        Metadata.parse(text, "m.onnx")
