"""The names under which timm, DINOv2 and DINOv3 store a plain ViT, and what its shapes say.

Our own parameters bear timm's names, so most rules only say what is known; DINOv3's are those of timm's Eva class.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densevit.checkpoints.rename import Renamed, Rule, collapse, rename
from densevit.errors import CheckpointError
from densevit.types import Size

PATCH_WEIGHT = "patch_embed.proj.weight"
TOKENS = ("cls_token", "dist_token", "reg_token")

_HEAD = "head of the pre-training task"
_PRETRAINING = "used in pre-training only"
_ROTARY = "follows from positions.base"

ENCODER_RULES = (
    Rule("cls_token", "cls_token"),
    Rule("dist_token", "dist_token"),
    Rule("reg_token", "reg_token"),
    Rule("register_tokens", "reg_token"),  # DINOv2
    Rule("storage_tokens", "reg_token"),  # DINOv3
    Rule("pos_embed", "pos_embed"),
    Rule("patch_embed.proj.{param}", "patch_embed.proj.{param}"),
    Rule("patch_embed.backbone.stem.{layer}.{param}", "patch_embed.stem_{layer}.{param}"),
    Rule("patch_embed.backbone.stages.{i}.blocks.{j}.{rest}", "patch_embed.stages.{i}.{j}.{rest}"),
    Rule("norm_pre.{param}", "norm_pre.{param}"),
    Rule("norm.{param}", "norm.{param}"),
    Rule("blocks.{i}.gamma_{j}", "blocks.{i}.ls{j}.gamma"),  # timm's Eva
    Rule("blocks.{i}.attn.q_bias", "blocks.{i}.attn.qkv.bias", part=(0, 3)),
    Rule("blocks.{i}.attn.k_bias", "blocks.{i}.attn.qkv.bias", part=(1, 3)),
    Rule("blocks.{i}.attn.v_bias", "blocks.{i}.attn.qkv.bias", part=(2, 3)),
    Rule("blocks.{i}.attn.qkv.bias_mask", reason="already applied to qkv.bias"),
    Rule("blocks.{i}.mlp.fc1_g.{param}", "blocks.{i}.mlp.fc1.{param}", part=(0, 2)),
    Rule("blocks.{i}.mlp.fc1_x.{param}", "blocks.{i}.mlp.fc1.{param}", part=(1, 2)),
    Rule("blocks.{i}.mlp.w12.{param}", "blocks.{i}.mlp.fc1.{param}"),  # DINOv2, packed SwiGLU
    Rule("blocks.{i}.mlp.w1.{param}", "blocks.{i}.mlp.fc1.{param}", part=(0, 2)),  # DINOv3
    Rule("blocks.{i}.mlp.w2.{param}", "blocks.{i}.mlp.fc1.{param}", part=(1, 2)),
    Rule("blocks.{i}.mlp.w3.{param}", "blocks.{i}.mlp.fc2.{param}"),
    Rule("blocks.{i}.{rest}", "blocks.{i}.{rest}"),
    Rule("head.{rest}", reason=_HEAD),
    Rule("head_dist.{rest}", reason=_HEAD),
    Rule("pre_logits.{rest}", reason=_HEAD),
    Rule("fc_norm.{param}", reason=_HEAD),
    Rule("attn_pool.{rest}", reason=_HEAD),
    Rule("mask_token", reason=_PRETRAINING),
    Rule("local_cls_norm.{param}", reason=_PRETRAINING),
    Rule("rope_embed.periods", reason=_ROTARY),
)


def read_encoder(state: Mapping[str, Tensor], source: str) -> Renamed:
    """Find the encoder in a state dict and give its tensors our names; their values and shapes stay as stored.

    Raises:
        CheckpointError: if there is no encoder with such names, or more than one.
    """
    prefixes = {key.removesuffix(PATCH_WEIGHT) for key in state if re.search(rf"(^|\.){re.escape(PATCH_WEIGHT)}$", key)}
    if len(prefixes) != 1:
        where = f"{len(prefixes)} encoders (under {', '.join(sorted(prefixes))})" if prefixes else "no encoder"
        raise CheckpointError(
            f"{source} has {where}; one with the names of timm or DINO is needed, such as {PATCH_WEIGHT}; "
            f"pass that part alone (names there: {', '.join(collapse(state)[:4])}, ...)"
        )
    (prefix,) = prefixes
    # DINOv2 trains its blocks in chunks, but numbers them throughout: blocks.1.7 is block 7.
    inside = {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key.removeprefix(prefix)): tensor
        for key, tensor in state.items()
        if key.startswith(prefix)
    }
    outside = {key: f"not under {prefix}" for key in state if not key.startswith(prefix)}
    renamed = rename(_with_key_biases(inside), ENCODER_RULES)
    return Renamed(renamed.tensors, renamed.sources, outside | renamed.ignored, renamed.unused)


def _with_key_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys have no bias in DINOv3: timm stores none, the original stores one and a mask that removes it."""
    completed = dict(state)
    for name, tensor in state.items():
        if name.endswith(".attn.q_bias"):
            completed[name.replace("q_bias", "k_bias")] = torch.zeros_like(tensor)
        if name.endswith(".attn.qkv.bias") and name + "_mask" in state:
            query, key, value = tensor.chunk(3)
            completed[name] = torch.cat([query, torch.zeros_like(key), value])
    return completed


def stored_tokens(tensors: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """The prefix tokens of a file, (name, index) in the order of the sequence."""
    return [(name, index) for name in TOKENS if name in tensors for index in range(tensors[name].shape[1])]


def split_positions(
    length: int, tokens: Sequence[tuple[str, int]], source: str, *, grids: Sequence[Size | None]
) -> tuple[int, Size]:
    """How many rows of a stored pos_embed belong to prefix tokens, and the (h, w) of the others.

    Args:
        length: rows of pos_embed.
        tokens: the prefix tokens stored beside it.
        source: what to call the weights in the message.
        grids: (h, w) to be tried in turn; none is any square one.

    Raises:
        CheckpointError: if no number of prefix rows leaves such a grid.
    """
    # Registers have no position in DINOv2; timm's models without positions for any prefix token say 0.
    without_registers = sum(name != "reg_token" for name, _ in tokens)
    for grid in grids:
        for count in dict.fromkeys((without_registers, len(tokens), 0)):
            side = math.isqrt(max(length - count, 0))
            h, w = grid or (side, side)
            if h * w and count + h * w == length:
                return count, (h, w)
    wanted = " or ".join(f"grid of {grid[0]} x {grid[1]}" if grid else "square grid" for grid in grids)
    raise CheckpointError(
        f"{source} has a pos_embed of {length} rows and {len(tokens)} prefix tokens, which leaves no {wanted}; "
        "the grid of the pre-training images must be known; give its (h, w) in patches as grid"
    )
