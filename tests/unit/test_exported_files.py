"""Exported files that are wrong, damaged or hostile: refused with a clear error, before memory is taken."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import densevit_runtime
from densevit_runtime.errors import CheckpointError, ConfigError, DataError, DensevitError, EngineError
from densevit_runtime.limits import VARIABLE
from densevit_runtime.onnx_prune import with_outputs
from densevit_runtime.runtime import read_metadata
from tests.exported_files import DEPTH, METADATA, STREETS, tiny_model, write_onnx

PHOTO = np.full((8, 12, 3), 200, np.uint8)
XML = """<?xml version="1.0"?>
<net name="tiny" version="11"><layers>
  <layer id="0" name="w" type="Const" version="opset1">
    <data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/></layer>
</layers><rt_info>{info}</rt_info></net>
"""


def tensor(**fields: Any) -> TensorProto:
    return TensorProto(name="extra", **fields)


def external(location: str) -> TensorProto:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "extra")
    value.ClearField("raw_data")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value=location)
    return value


def initializer(value: TensorProto) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.initializer.append(value)


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.append(helper.make_node(operator, inputs, outputs, **attributes))


def of_size(operator: str, inputs: list[str], sides: list[int]) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(sides), "sides_of_all"))
        model.graph.node.append(helper.make_node(operator, inputs, ["huge"]))

    return change


def in_a_branch(value: TensorProto) -> Callable[[onnx.ModelProto], None]:
    outputs = [helper.make_tensor_value_info("extra", TensorProto.FLOAT, [3])]
    branch = helper.make_graph([], "branch", [], outputs, [value])
    return node("If", ["flag"], ["unused"], then_branch=branch, else_branch=branch)


def without_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.clear()


HUGE = [1_000_000, 1_000_000]
HOSTILE = {
    "data outside its folder": (initializer(external("../../etc/passwd")), r"keeps tensor 'extra' in '../../etc/pas"),
    "data next to it": (initializer(external("weights.bin")), r"files that hold their own weights are accepted"),
    "data without a place": (initializer(tensor(data_location=1, dims=[3], data_type=1)), r"in 'another file'"),
    "data in a branch": (in_a_branch(external("/etc/passwd")), r"keeps tensor 'extra' in '/etc/passwd'"),
    "data of a constant": (node("Constant", [], ["c"], value=external("x")), r"keeps tensor 'extra' in 'x'"),
    "a huge tensor": (initializer(tensor(dims=HUGE, data_type=1)), r"1,000,000,000,000 elements, and up to"),
    "a tensor of many dimensions": (initializer(tensor(dims=[1] * 100, data_type=1)), r"has 100 dimensions, and up to"),
    "a tensor without data": (initializer(tensor(dims=[1000], data_type=1, raw_data=b"1234")), r"4,000 bytes"),
    "a tensor with too much": (initializer(tensor(dims=[1], data_type=1, raw_data=b"12345678")), r"needs 4 bytes"),
    "a huge constant": (of_size("ConstantOfShape", ["sides_of_all"], HUGE), r"operator ConstantOfShape has 1,000,0"),
    "a huge expansion": (of_size("Expand", ["half", "sides_of_all"], HUGE), r"operator Expand has 1,000,000,000,000"),
    "no metadata": (without_metadata, r"without densevit's metadata \(it was made by 'tests'\)"),
    "no graph": (lambda model: model.ClearField("graph"), r"it has 0 graphs; one is accepted"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_onnx__is_refused_before_an_engine_sees_it(
    change: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    path = write_onnx(tmp_path / "m.onnx", changes=[change])
    with pytest.raises(CheckpointError, match=message):
        read_metadata(path)


def test_hostile_onnx__takes_no_memory(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", changes=[initializer(tensor(dims=HUGE, data_type=1))])
    tracemalloc.start()
    with pytest.raises(CheckpointError):
        read_metadata(path)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_onnx__cut_short_anywhere__is_refused(tmp_path: Path) -> None:
    whole = write_onnx(tmp_path / "whole.onnx").read_bytes()
    for length in range(1, len(whole), 13):
        path = tmp_path / "m.onnx"
        path.write_bytes(whole[:length])
        with pytest.raises(DensevitError, match=str(path)):
            densevit_runtime.load(path, threads=1)


@pytest.mark.parametrize(
    "content",
    [b"text", b"\x89PNG\r\n\x1a\n", b"\xff" * 64, b"\x08\x0a" * 8, b"\x3a\xff\xff\xff\xff\x0f", b"\0" * 64, b"PK\3\4"],
)
def test_file_of_another_kind__is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"m\.onnx is not an ONNX file, or is damaged"):
        read_metadata(tmp_path / "m.onnx")


def test_damaged_onnx__meets_no_other_error(tmp_path: Path) -> None:
    whole = bytearray(write_onnx(tmp_path / "whole.onnx").read_bytes())
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            damaged[place] = random.integers(256)
        (tmp_path / "m.onnx").write_bytes(damaged)
        try:
            read_metadata(tmp_path / "m.onnx")
        except DensevitError:
            continue


def test_onnx__with_more_entries_than_the_limit__is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "graph_nodes=20")
    with pytest.raises(CheckpointError, match="up to 20 are accepted"):
        read_metadata(write_onnx(tmp_path / "m.onnx"))


def test_onnx__nested_too_deep__is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, "nesting=6")
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])]
    graph = helper.make_graph([], "inner", [], outputs)
    for _ in range(10):
        branch = helper.make_node("If", ["flag"], ["y"], then_branch=graph)
        graph = helper.make_graph([branch], "outer", [], outputs)
    model = tiny_model()
    model.graph.node.append(helper.make_node("If", ["flag"], ["y"], then_branch=graph))
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="nested deeper, and up to 6 are accepted"):
        read_metadata(tmp_path / "m.onnx")


# What only the engine finds


def renamed(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        for one in [*model.graph.input, *model.graph.output]:
            one.name = new if one.name == old else one.name
        for one in model.graph.node:
            for names in (one.input, one.output):
                names[:] = [new if name == old else name for name in names]

    return change


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (renamed("image", "photo"), CheckpointError, r"inputs 'photo' \(uint8, 4 dim.*'image', uint8 \(B, H, W, 3\)"),
        (renamed("depth", "far"), CheckpointError, r"'depth', float32 with 3 dimensions, is promised"),
        (node("Frobnicate", ["image"], ["z"]), EngineError, r"onnxruntime cannot run .*Frobnicate.*update onnxruntime"),
        (node("Cast", ["nowhere"], ["z"], to=1), EngineError, r"onnxruntime cannot run .*nowhere"),
    ],
)
def test_graph_that_breaks_the_contract__is_refused(
    change: Callable[[onnx.ModelProto], None], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        densevit_runtime.load(write_onnx(tmp_path / "m.onnx", changes=[change]), threads=1)


def test_label_without_a_class__is_refused(tmp_path: Path) -> None:
    one = replace(STREETS, classes=("dark",), palette=((1, 2, 3),))
    path = write_onnx(tmp_path / "m.onnx", replace(METADATA, heads={"streets": one}))
    with pytest.raises(CheckpointError, match="gave label 1 but has 1 classes"):
        densevit_runtime.load(path, threads=1).predict(PHOTO)


@pytest.mark.parametrize("output", ["depth", "streets.scores"])
def test_output_of_another_size__is_refused(output: str, tmp_path: Path) -> None:
    def halve(model: onnx.ModelProto) -> None:
        for one in model.graph.node:
            for names in (one.input, one.output):
                names[:] = ["whole" if name == output else name for name in names]
        for name, value in (("from", [4]), ("to", [2**31]), ("along", [1])):
            model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
        model.graph.node.append(helper.make_node("Slice", ["whole", "from", "to", "along"], [output]))

    path = write_onnx(tmp_path / "m.onnx", changes=[halve])
    with pytest.raises(CheckpointError, match=rf"output '{output}' has the shape \(4, 12\) for an image of 8 x 12"):
        densevit_runtime.load(path, threads=1).predict(PHOTO)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("m.pt", {}, DataError, r"m\.pt does not have the suffix of an exported file; \.onnx and \.xml are accepted"),
        ("none.onnx", {}, DataError, r"none\.onnx does not exist"),
        ("m.onnx", {"engine": "tensorrt"}, ConfigError, r"'tensorrt'.*onnxruntime and openvino are accepted"),
        ("m.onnx", {"threads": 0}, ConfigError, r"threads is 0; a positive number"),
        ("m.onnx", {"heads": ["rooms"]}, ConfigError, r"no head 'rooms'; .* has streets, depth, normals"),
    ],
)
def test_load__refuses(name: str, options: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    write_onnx(tmp_path / "m.onnx")
    with pytest.raises(error, match=message):
        densevit_runtime.load(tmp_path / name, **options)


# OpenVINO


def write_xml(
    folder: Path, *, kind: str = "f32", shape: str = "3, 4", offset: object = 0, size: object = 48, info: str = ""
) -> Path:
    text = XML.format(kind=kind, shape=shape, offset=offset, size=size, info=info)
    (folder / "m.xml").write_text(text, encoding="utf-8")
    (folder / "m.bin").write_bytes(bytes(48))
    return folder / "m.xml"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "without densevit's metadata"),
        ({"offset": 8}, r"constant 'w' ends at byte 56 of m\.bin, which has 48"),
        ({"offset": -1}, "whole numbers are accepted"),
        ({"shape": "1000000, 1000000"}, r"needs 4,000,000,000,000 bytes for \[1000000, 1000000\] and has 48"),
        ({"shape": "9" * 30}, "whole numbers are accepted"),
        ({"shape": ", ".join(["9" * 18] * 60)}, "constant 'w' needs "),
        ({"shape": ", ".join(["1"] * 100)}, "constant 'w' has 100 dimensions, and up to 64 are accepted"),
        ({"info": "<densevit/>"}, "metadata of .* cannot be read"),
        ({"info": "<a>" * 70}, "nested deeper"),
        ({"info": "<b></a>"}, "mismatched tag"),
    ],
)
def test_hostile_xml__is_refused_before_an_engine_sees_it(fields: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_metadata(write_xml(tmp_path, **fields))


def test_xml_without_its_bin__is_refused(tmp_path: Path) -> None:
    path = write_xml(tmp_path)
    (tmp_path / "m.bin").unlink()
    with pytest.raises(DataError, match=r"m\.bin does not exist"):
        read_metadata(path)


def test_xml_with_entities__is_refused(tmp_path: Path) -> None:
    path = write_xml(tmp_path)
    path.write_text('<!DOCTYPE net [<!ENTITY a "aaaa">]><net name="&a;"/>')
    with pytest.raises(CheckpointError, match="document type"):
        read_metadata(path)


@pytest.mark.parametrize("text", ["", "text", "<svg/>", "{}"])
def test_xml_of_another_kind__is_refused(text: str, tmp_path: Path) -> None:
    path = write_xml(tmp_path)
    path.write_text(text)
    with pytest.raises(DensevitError, match=r"m\.xml is"):
        read_metadata(path)


def test_xml__is_not_for_onnxruntime(tmp_path: Path) -> None:
    info = '<densevit value="{}"/>'.format(METADATA.to_json().replace("&", "&amp;").replace('"', "&quot;"))
    path = write_xml(tmp_path, info=info)
    assert read_metadata(path) == METADATA
    with pytest.raises(ConfigError, match="engine onnxruntime does not read"):
        densevit_runtime.load(path, engine="onnxruntime")


# What a prediction has


def test_prediction__has_the_names_of_densevits_own(tmp_path: Path) -> None:
    found = densevit_runtime.load(write_onnx(tmp_path / "m.onnx"), threads=1).predict(PHOTO)

    assert found.shares == {"dark": 0.0, "bright": 1.0}
    assert (found.depth_result.name, found.depth_quantity, found.depth_unit) == ("depth", "depth", "m")
    np.testing.assert_array_equal(found.depth, found["depth"].prediction)
    assert "depth" in found
    assert found.get("rooms") is None
    with pytest.raises(DensevitError, match=r"^there is no head 'rooms'; this prediction has streets, depth, normals$"):
        found["rooms"]


# Some heads of a file


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_head_that_is_not_asked_for__is_not_computed(engine: str, tmp_path: Path) -> None:
    pytest.importorskip(engine)
    path = write_onnx(tmp_path / "m.onnx")
    model = densevit_runtime.load(path, heads=["depth"], engine=engine, threads=1)
    assert list(model.engine.outputs) == ["depth"]
    np.testing.assert_allclose(model.predict(PHOTO)["depth"].prediction, 8.0)


@pytest.mark.parametrize(("head", "operators"), [("depth", 3), ("normals", 2), ("streets", 4)])
def test_file_with_fewer_outputs__has_only_the_nodes_that_they_need(head: str, operators: int, tmp_path: Path) -> None:
    model = onnx.load_from_string(with_outputs(write_onnx(tmp_path / "m.onnx"), {head}))
    onnx.checker.check_model(model)
    assert [one.name for one in model.graph.output] == [head]
    assert len(model.graph.node) == operators
    read = {name for node in model.graph.node for name in node.input}
    assert {one.name for one in model.graph.initializer} <= read


def test_file_with_fewer_outputs__keeps_what_a_subgraph_takes_from_outside(tmp_path: Path) -> None:
    def branch(model: onnx.ModelProto) -> None:
        doubled = helper.make_node("Add", ["grey", "grey"], ["inner"])
        kind = helper.make_tensor_value_info("inner", TensorProto.FLOAT, ["B", "H", "W"])
        either = helper.make_graph([doubled], "branch", [], [kind])
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("If", ["yes"], ["far"], then_branch=either, else_branch=either))
        model.graph.output.append(helper.make_tensor_value_info("far", TensorProto.FLOAT, ["B", "H", "W"]))

    far = {"far": DEPTH}
    path = write_onnx(tmp_path / "m.onnx", replace(METADATA, heads={**METADATA.heads, **far}), [branch])
    found = densevit_runtime.load(path, heads=["far"], engine="onnxruntime", threads=1).predict(PHOTO)
    np.testing.assert_allclose(found["far"].prediction, 400.0)
