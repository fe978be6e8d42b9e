"""Names and shapes of the published checkpoints, and what lies beside each of them."""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.checkpoints.importers import ImportOverrides, Source

KEYS = Path(__file__).parent / "published_keys.json.gz"

LARGE: dict[str, Any] = {"num_attention_heads": 16, "backbone_out_indices": [5, 11, 17, 23]}

DINOV2_HEADS = tuple(
    f"dinov2-vit{letter}14-{head}"
    for letter in "sblg"
    for head in ("nyu-linear", "nyu-linear4", "nyu-dpt", "ade20k-linear", "ade20k-ms")
)
"""Heads of DINOv2 with their encoders; those for KITTI have the shapes of those for NYU."""

# What the config.json of each repository on the hub says beyond the defaults, as far as an importer reads it.
HUB_CONFIGS: dict[str, dict[str, Any]] = {
    "da3-large": {"model_name": "da3mono-large"},
    "hf-Intel-dpt-large": {"model_type": "dpt", **LARGE},
    "hf-Intel-dpt-large-ade": {"model_type": "dpt", **LARGE},
    "hf-Intel-dpt-hybrid-midas": {
        "model_type": "dpt",
        "is_hybrid": True,
        "num_attention_heads": 12,
        "backbone_out_indices": [2, 5, 8, 11],
        "backbone_config": {"model_type": "bit", "layer_type": "bottleneck"},
    },
    **{
        f"hf-Depth-Anything-V2-{name}-hf": {
            "model_type": "depth_anything",
            "backbone_config": {"model_type": "dinov2", "num_attention_heads": heads, "out_indices": stages},
        }
        for name, heads, stages in (
            ("Small", 6, [3, 6, 9, 12]),
            ("Base", 12, [3, 6, 9, 12]),
            ("Large", 16, [5, 12, 18, 24]),
        )
    },
}

# Names of released files, which tell releases with equal shapes apart; DPT-Base was never released.
FILES = {
    "official-dpt_large-midas": "dpt_large-midas-2f21e586.pt",
    "official-dpt_hybrid-midas": "dpt_hybrid-midas-501f0c75.pt",
    "official-depth_anything_v2_vits": "depth_anything_v2_vits.pth",
    "official-depth_anything_v2_vitb": "depth_anything_v2_vitb.pth",
    "official-depth_anything_v2_vitl": "depth_anything_v2_vitl.pth",
    **{name: f"{name.replace('-', '_')}_head.pth" for name in DINOV2_HEADS},
}
OVERRIDES: dict[str, dict[str, Any]] = {"official-dpt_base-depth": {"release": "midas"}}


@cache
def published() -> dict[str, dict[str, Any]]:
    """Per checkpoint: source, num_params, shapes."""
    loaded: dict[str, dict[str, Any]] = json.loads(gzip.decompress(KEYS.read_bytes()))
    return loaded


def meta_state(name: str) -> dict[str, Tensor]:
    """The state dict without values."""
    return {
        key: torch.empty(
            shape, dtype=torch.int64 if key.endswith("num_batches_tracked") else torch.float32, device="meta"
        )
        for key, shape in published()[name]["shapes"].items()
    }


def meta_source(name: str) -> Source:
    """The checkpoint as an importer gets it."""
    side = {"config.json": HUB_CONFIGS[name]} if name in HUB_CONFIGS else {}
    return Source(name, meta_state(name), side, ImportOverrides(**OVERRIDES.get(name, {})), FILES.get(name, ""))
