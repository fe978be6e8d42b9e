"""A world to learn in seconds: rectangles whose colour gives their class and whose row gives their depth."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from densevit.checkpoints.native import Bundle, Card, save_bundle
from densevit.data import ClassTable, Sample
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel, ModelConfig
from densevit.tasks import parse_task
from densevit.types import Size

CLASSES = ("wall", "red", "green", "blue")
COLOURS = ((120, 120, 120), (210, 50, 40), (50, 190, 60), (50, 70, 220))
COARSE = ("background", "thing")
TO_COARSE = (0, 1, 1, 1)
CLASSES_JSON: dict[str, Any] = {"classes": CLASSES, "ignore_index": 255, "classes2": COARSE, "to_2": TO_COARSE}
SIZE: Size = (48, 64)
WALL_M, NEAREST_M, SPAN_M = 5.0, 1.0, 3.0


class Scene(NamedTuple):
    image: NDArray[np.uint8]  # (H, W, 3)
    labels: NDArray[np.uint8]  # (H, W), 255 in the last column
    depth_mm: NDArray[np.uint16]  # (H, W), 0 in the first row


def scene(seed: int, size: Size = SIZE) -> Scene:
    """Three rectangles before a wall; the lower one stands, the nearer it is."""
    draw = np.random.default_rng(seed)
    height, width = size
    labels = np.zeros(size, np.uint8)
    depth_m = np.full(size, WALL_M)
    for label in draw.permutation([1, 2, 3]):
        h, w = draw.integers(height // 4, height // 2), draw.integers(width // 4, width // 2)
        top, left = draw.integers(height - h), draw.integers(width - w)
        labels[top : top + h, left : left + w] = label
        depth_m[top : top + h, left : left + w] = NEAREST_M + SPAN_M * (1 - (top + h / 2) / height)
    image = np.array(COLOURS)[labels] + draw.integers(-12, 13, (*size, 3))
    labels[:, -1] = 255
    depth_m[0] = 0
    return Scene(image.clip(0, 255).astype(np.uint8), labels, np.rint(depth_m * 1000).astype(np.uint16))


def write_dataset(root: Path, *, train: int = 6, val: int = 3, val_size: Size = SIZE) -> Path:
    """A data set in the folder layout, with a coarser view of its classes; val scenes are others than train's."""
    for split, seeds, size in (("train", range(train), SIZE), ("val", range(100, 100 + val), val_size)):
        for kind in ("images", "masks", "depth"):
            (root / kind / split).mkdir(parents=True)
        for seed in seeds:
            image, labels, depth_mm = scene(seed, size)
            Image.fromarray(image).save(root / "images" / split / f"{seed:03}.png")
            Image.fromarray(labels).save(root / "masks" / split / f"{seed:03}.png")
            Image.fromarray(depth_mm).save(root / "depth" / split / f"{seed:03}.png")
    (root / "classes.json").write_text(json.dumps(CLASSES_JSON), encoding="utf-8")
    return root


ENCODER: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "patch_size": 8,
    "positions": {"kind": "learned", "grid": [6, 8], "num_prefix": 1},
    "taps": [0, 1, 2],
}
_DPT: dict[str, Any] = {"kind": "dpt", "channels": [8, 8, 8, 8], "fusion_channels": 16, "readout": "ignore"}
_SIGMOID = {"kind": "depth", "hidden_channels": 8, "activation": "sigmoid", "max_depth_m": 8.0}

HEADS: dict[str, dict[str, Any]] = {
    "setr": {"decoder": {"kind": "setr_mla", "channels": 16, "head_channels": 16}},
    "segmenter": {"decoder": {"kind": "segmenter_mask", "num_heads": 2}},
    "dpt": {"taps": [0, 1, 2, 2], "decoder": {**_DPT, "batch_norm": True, "head": {"kind": "segmentation"}}},
    "coarse": {"decoder": {"kind": "segmenter_linear"}},
    "depth": {"taps": [0, 1, 2, 2], "decoder": {**_DPT, "head": _SIGMOID}},
}
TASKS: dict[str, dict[str, Any]] = {
    **{head: {"kind": "segmentation", "classes": CLASSES} for head in ("setr", "segmenter", "dpt")},
    "coarse": {"kind": "segmentation", "classes": COARSE},
    "depth": {"kind": "depth", "max_depth_m": 8.0},
}


def recipe(root: Path, *heads: str, iterations: int, **facts: Any) -> dict[str, Any]:
    """The config of a training run on a data set of ``write_dataset``; class names are left to the data."""
    tasks: dict[str, dict[str, Any]] = {head: dict(TASKS[head]) for head in heads}
    for head in {"setr", "segmenter", "dpt"} & set(heads):
        del tasks[head]["classes"]
    splits = {split: {"root": str(root), "split": split} for split in ("train", "val")}
    return {
        "model": {"encoder": ENCODER, "heads": {head: HEADS[head] for head in heads}},
        "tasks": tasks,
        "sources": [{**splits, "batch_size": 4}],
        "fit": {"short_side": SIZE[0]},
        "augment": {"crop": list(SIZE), "scale": [1.0, 1.0], "colour": 0.0, "cat_max_ratio": 1.0},
        "optim": {"lr": 3e-3, "head_lr_mult": 4.0},
        "iterations": iterations,
        "log_every": 1,
        **facts,
    }


def write_model(
    path: Path, *heads: str, tasks: Mapping[str, Mapping[str, Any]] | None = None, seed: int = 0, **facts: Any
) -> Path:
    """A native checkpoint with random weights and the heads of ``HEADS`` that are named."""
    chosen = {head: parse_task((tasks or TASKS)[head]) for head in heads}
    described = {head: {**HEADS[head], "out_channels": chosen[head].out_channels} for head in heads}
    torch.manual_seed(seed)
    config = ModelConfig.parse({"encoder": ENCODER | facts, "heads": described}, source="tiny model")
    card = Card(name="tiny", licence="Apache-2.0")
    save_bundle(Bundle(DenseModel(config), chosen, InferenceConfig(short_side=SIZE[0]), card), path)
    return path


class Scenes:
    """A data set as a user may write one."""

    def __init__(self, seeds: range) -> None:
        self.seeds, self.classes = seeds, ClassTable(CLASSES)

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int, /) -> Sample:
        image, labels, _ = scene(self.seeds[index])
        return Sample(f"{index}", image, labels=labels.astype(np.int32))
