"""Our encoder gives what DINOv3 of transformers gives with the same random weights, at any size.

Runs where transformers is installed: `make parity`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from densevit.checkpoints.encoder import encoder_config_from_state, load_encoder_weights
from densevit.checkpoints.encoder_side import check_encoder_side
from densevit.checkpoints.files import read_state_dict
from densevit.encoder import VisionTransformer
from tests.tolerances import PARITY, relative_l2

SMALL: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "num_register_tokens": 4,
    "image_size": 64,
}
CASES: dict[str, dict[str, Any]] = {
    "as published": {},
    "no registers": {"num_register_tokens": 0},
    "gated, as H+ and 7B": {"use_gated_mlp": True, "hidden_act": "silu"},
    "keys with a bias": {"key_bias": True},
    "only values with a bias": {"query_bias": False},
    "no bias": {"query_bias": False, "value_bias": False, "mlp_bias": False, "proj_bias": False},
    "gated, no bias": {"use_gated_mlp": True, "hidden_act": "silu", "mlp_bias": False},
    "another base": {"rope_theta": 400.0},
    "another epsilon": {"layer_norm_eps": 1e-3},
    "patch 8 x 4": {"patch_size": (8, 4), "image_size": (32, 16)},
    "tanh": {"hidden_act": "gelu_pytorch_tanh"},
}
SIZES = ((64, 64), (48, 112), (160, 32))


def reference(**facts: Any) -> Any:
    model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**(SMALL | facts))).eval()
    draw = torch.Generator().manual_seed(3)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=draw)
        if tensor.ndim == 1:
            tensor.copy_(0.3 * noise + float(name.endswith(("weight", "lambda1"))))
        else:
            tensor.copy_(noise * (0.5 if "token" in name else tensor[0].numel() ** -0.5))
    return model


def asked(facts: dict[str, Any]) -> dict[str, Any]:
    """What shapes do not tell."""
    activation = {"gelu": "gelu", "silu": None, "gelu_pytorch_tanh": "gelu_tanh"}[facts.get("hidden_act", "gelu")]
    norm_eps, base = facts.get("layer_norm_eps", 1e-5), facts.get("rope_theta", 100.0)
    return {"num_heads": 3, "norm_eps": norm_eps, "base": base, "activation": activation}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_dinov3_of_transformers__is_reproduced_at_any_size(case: str, tmp_path: Path) -> None:
    facts = CASES[case]
    model = reference(**facts)
    model.save_pretrained(tmp_path)
    state = read_state_dict(tmp_path / "model.safetensors")
    config = encoder_config_from_state(state, source="file", taps=(0, 2), final_norm=False, **asked(facts))
    encoder = VisionTransformer(config).eval()

    load_encoder_weights(encoder, state, source="file")

    check_encoder_side(tmp_path / "model.safetensors", "file", config)
    for height, width in SIZES:
        images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
        ours, theirs = encoder(images), model(images, output_hidden_states=True).hidden_states
        for index, block in enumerate((0, 2)):
            sequence = torch.cat((ours.prefix[index], ours.tokens[index]), dim=1)
            assert relative_l2(sequence, theirs[block + 1]) <= PARITY


@torch.no_grad()
def test_final_norm_of_dinov3__is_reproduced() -> None:
    model = reference()
    config = encoder_config_from_state(model.state_dict(), source="file", final_norm=True, **asked({}))
    encoder = VisionTransformer(config).eval()
    load_encoder_weights(encoder, model.state_dict(), source="file")
    images: Tensor = torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(1))

    ours = encoder(images)

    sequence = torch.cat((ours.prefix[0], ours.tokens[0]), dim=1)
    assert relative_l2(sequence, model(images).last_hidden_state) <= PARITY
