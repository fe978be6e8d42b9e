"""The reference programs' own tokens after every block, from their raw state dicts, at two sizes of images."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.checkpoints.files import read_state_dict
from densevit.encoder import VisionTransformer
from tests.tolerances import PARITY, relative_l2

GOLDEN = Path(__file__).parent / "golden" / "encoders"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def description_of(name: str) -> dict[str, Any]:
    return dict(json.loads((GOLDEN / f"{name}.json").read_text()))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_golden_encoder__is_reproduced(name: str) -> None:
    description, tensors = description_of(name), read_state_dict(GOLDEN / f"{name}.safetensors")
    prefix = "state_dict."
    state = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    config = encoder_config_from_state(
        state, source=name, architecture=description.get("architecture"), taps=(0, 1), **description["facts"]
    )
    encoder = VisionTransformer(config).eval()

    load_encoder_weights(encoder, state, source=name)

    for case in ("case0", "case1"):
        for block, ours in enumerate(encoder(tensors[f"{case}.input"]).tokens):
            assert relative_l2(ours, tensors[f"{case}.block{block}"]) <= PARITY


@pytest.mark.parametrize("name", NAMES)
def test_golden_encoder__is_the_file_that_was_recorded(name: str) -> None:
    content = (GOLDEN / f"{name}.safetensors").read_bytes()

    assert hashlib.sha256(content).hexdigest() == description_of(name)["sha256"]
    assert len(content) <= 150_000
