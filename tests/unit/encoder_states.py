"""Tiny encoders and what loading weights into them says."""

from typing import Any

import pytest
import torch
from torch import Tensor

from densevit.checkpoints.encoder import load_encoder_weights
from densevit.checkpoints.rename import LoadReport
from densevit.encoder import EncoderConfig, VisionTransformer
from densevit.errors import CheckpointError

State = dict[str, Tensor]


ADVICE = (
    "make the encoder's config agree (encoder_config_from_state reads it from the weights), "
    "or keep only the encoder's tensors in the file (in Python, load_encoder_weights can leave out names)"
)


def config(**facts: Any) -> EncoderConfig:
    learned = {"kind": "learned", "grid": (3, 3)}
    tiny = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, "taps": (1,), "positions": learned}
    return EncoderConfig(**(tiny | {"final_norm": True} | facts))


def learned(**facts: Any) -> dict[str, Any]:
    return {"kind": "learned", "grid": (3, 3)} | facts


def built(seed: int = 0, **facts: Any) -> VisionTransformer:
    encoder = VisionTransformer(config(**facts)).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return encoder


def fresh(**facts: Any) -> VisionTransformer:
    return built(seed=1, **facts)


def load(encoder: VisionTransformer, state: State, **arguments: Any) -> LoadReport:
    return load_encoder_weights(encoder, state, source="w.pth", **arguments)


def refusal(encoder: VisionTransformer, state: State, **arguments: Any) -> str:
    with pytest.raises(CheckpointError) as error:
        load(encoder, state, **arguments)
    return str(error.value)


def misfit(*lines: str) -> str:
    return "\n".join(
        ["w.pth does not fit the model, and nothing was loaded:", *(f"  {line}" for line in lines), ADVICE]
    )


def rows(report: LoadReport, *statuses: str) -> list[tuple[str, str]]:
    return [(row.name, row.note) for row in report.rows if row.status in statuses]


def same(a: VisionTransformer, b: VisionTransformer) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


@torch.no_grad()
def outputs_agree(a: VisionTransformer, b: VisionTransformer) -> bool:
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    ours, theirs = a(images), b(images)
    return torch.allclose(ours.tokens[0], theirs.tokens[0], rtol=1e-4, atol=1e-5)
