"""Configs of runs of two steps."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.factories import tiny_encoder


def write_run(path: Path, sources: list[dict[str, Any]] | None, head: str = "segmentation", **facts: Any) -> Path:
    """A run of two steps on a tiny encoder with one linear head."""
    channels = facts.pop("in_channels", 3)
    data: dict[str, Any] = {
        "model": {
            "encoder": tiny_encoder(in_channels=channels).plain(),
            "heads": {"main": {"decoder": {"kind": "segmenter_linear"}}},
            "normalisation": {"mean": [0.5] * channels, "std": [0.5] * channels},
        },
        "tasks": {"main": {"kind": head}},
        "augment": {"crop": [16, 16]},
        "fit": {"short_side": 16},
        "iterations": 2,
        **facts,
    }
    if sources is not None:
        data["sources"] = sources
    path.write_text(yaml.safe_dump(json.loads(json.dumps(data))))
    return path
