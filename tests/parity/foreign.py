"""Checkpoints as people have them, made from the golden fixtures: a weights file with its config beside it."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit_lab.parity.fixture import Fixture, read_fixtures

GOLDEN = Path(__file__).parent / "golden"
FIXTURES = {fixture.name: fixture for fixture in read_fixtures(GOLDEN)}

SEGMENTER = FIXTURES["segmenter-official-linear-p16-distilled"]
MMSEG = FIXTURES["mmseg-setr-naive-aux2convs"]
MMSEG_NO_BIAS = FIXTURES["mmseg-segmenter-linear"]
HF = FIXTURES["hf-dpt-seg-project"]
DPT = FIXTURES["dpt-official-depth-hybrid-kitti"]


def state_of(fixture: Fixture) -> dict[str, Tensor]:
    """A copy of the raw state dict, which a test may change."""
    return dict(fixture.state)


def write_segmenter(folder: Path, fixture: Fixture = SEGMENTER, state: dict[str, Tensor] | None = None) -> Path:
    """``checkpoint.pth`` with its optimiser, and ``variant.yml`` with the tuple that the authors' program writes."""
    config = fixture.config
    height, width = config["image_size"]
    variant = [
        "dataset_kwargs:",
        "  dataset: ade20k",
        f"  crop_size: {height}",
        "inference_kwargs:",
        "  im_size: 512",
        f"  window_size: {height}",
        "net_kwargs:",
        f"  n_heads: {config['n_heads']}",
        "  normalization: deit",
        "  image_size: !!python/tuple",
        f"  - {height}",
        f"  - {width}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "variant.yml").write_text("\n".join(variant) + "\n")
    path = folder / "checkpoint.pth"
    torch.save({"model": state or state_of(fixture), "optimizer": {"state": {}}, "n_cls": 4, "epoch": 63}, path)
    return path


def write_mmseg(path: Path, fixture: Fixture = MMSEG, *, with_meta: bool = True, **changes: Any) -> Path:
    """``{meta, state_dict}``, the config as text inside, as mmsegmentation writes it."""
    model = fixture.description["mmseg_model_cfg"]
    state = {f"module.{key}": tensor for key, tensor in state_of(fixture).items()} | changes
    meta = {"config": f"model = {model!r}\ndataset_type = 'CityscapesDataset'\n", "mmseg_version": "0.30.0"}
    torch.save({"meta": meta if with_meta else {}, "state_dict": state}, path)
    return path


def write_transformers(folder: Path, fixture: Fixture = HF) -> Path:
    """``model.safetensors`` with config.json and preprocessor_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in state_of(fixture).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(fixture.description["hf_config"]))
    processor = {"size": {"height": 64, "width": 64}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
