"""Small files that follow the contract of exported files, written with onnx and openvino directly."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from densevit_runtime.metadata import KEY, HeadMetadata, Metadata

CLASSES = ("dark", "bright")
PALETTE = ((10, 20, 30), (200, 210, 220))
STREETS = HeadMetadata(task="segmentation", short_side=32, classes=CLASSES, palette=PALETTE, scores=True, entropy=True)
DEPTH = HeadMetadata(task="depth", short_side=32, unit="m", min_depth_m=0.001, max_depth_m=10.0)
NORMALS = HeadMetadata(task="regression", short_side=32, channels=("x", "y", "z"))
METADATA = Metadata(
    name="tiny", heads={"streets": STREETS, "depth": DEPTH, "normals": NORMALS}, patch_size=(16, 16), licence="CC0-1.0"
)

Change = Callable[[onnx.ModelProto], Any]


def tiny_model(metadata: Metadata | str = METADATA) -> onnx.ModelProto:
    """Bright where the mean of red, green and blue is at least 128; depth is that mean in metres over 25."""
    node = helper.make_node
    constants = {
        "half": np.array(128, np.float32),
        "per_metre": np.array(25, np.float32),
        "full": np.array(255, np.float32),
        "channels": np.array([3]),
        "sides": np.array([1, 2]),
    }
    nodes = [
        node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        node("ReduceMean", ["pixels", "channels"], ["grey"], keepdims=0),
        node("GreaterOrEqual", ["grey", "half"], ["is_bright"]),
        node("Cast", ["is_bright"], ["streets"], to=TensorProto.UINT8),
        node("Div", ["grey", "full"], ["streets.scores"]),
        node("ReduceMean", ["streets.scores", "sides"], ["streets.entropy"], keepdims=0),
        node("Div", ["grey", "per_metre"], ["depth"]),
        node("Transpose", ["pixels"], ["normals"], perm=[0, 3, 1, 2]),
    ]
    maps = ["B", "H", "W"]
    outputs = [
        helper.make_tensor_value_info("streets", TensorProto.UINT8, maps),
        helper.make_tensor_value_info("streets.scores", TensorProto.FLOAT, maps),
        helper.make_tensor_value_info("streets.entropy", TensorProto.FLOAT, ["B"]),
        helper.make_tensor_value_info("depth", TensorProto.FLOAT, maps),
        helper.make_tensor_value_info("normals", TensorProto.FLOAT, ["B", 3, "H", "W"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="tests", ir_version=10)
    text = metadata if isinstance(metadata, str) else metadata.to_json()
    model.metadata_props.add(key=KEY, value=text)
    return model


def write_onnx(path: Path, metadata: Metadata | str = METADATA, changes: Sequence[Change] = ()) -> Path:
    """An ONNX file, after some changes to its model."""
    model = tiny_model(metadata)
    for change in changes:
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


def write_openvino(path: Path, metadata: Metadata | str = METADATA) -> Path:
    """The same graph for OpenVINO, an .xml and its .bin."""
    import openvino

    source = write_onnx(path.with_suffix(".onnx"), metadata)
    model = openvino.Core().read_model(str(source))
    text = metadata if isinstance(metadata, str) else metadata.to_json()
    model.set_rt_info(text, KEY)
    openvino.save_model(model, str(path), compress_to_fp16=False)
    source.unlink()
    return path


def expected(image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    """What the graph gives for a photo (H, W, 3)."""
    grey = image.astype(np.float32).mean(axis=2)
    return {"streets": (grey >= 128).astype(np.uint8), "scores": grey / 255, "depth": grey / 25}
