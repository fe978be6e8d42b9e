"""Names of a plain ViT's tensors in timm, DINOv2, DINOv3, transformers and mmsegmentation.

Our parameters have timm's names, so most rules for timm and DINO change nothing and only list the names that are known.
timm's DINOv3 has the names of its Eva class.
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
PATCH_WEIGHTS = (
    PATCH_WEIGHT,
    "embeddings.patch_embeddings.projection.weight",  # transformers
    "embeddings.patch_embeddings.weight",  # its DINOv3
    "patch_embed.projection.weight",  # mmsegmentation
)
TOKENS = ("cls_token", "dist_token", "reg_token")

PRETRAINING_HEAD = "head of the pre-training task"
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
    Rule("blocks.{i}.attn.q_proj.{param}", "blocks.{i}.attn.qkv.{param}", part=(0, 3)),
    Rule("blocks.{i}.attn.k_proj.{param}", "blocks.{i}.attn.qkv.{param}", part=(1, 3)),
    Rule("blocks.{i}.attn.v_proj.{param}", "blocks.{i}.attn.qkv.{param}", part=(2, 3)),
    Rule("blocks.{i}.attn.qkv.bias_mask", reason="already applied to qkv.bias"),
    Rule("blocks.{i}.mlp.fc1_g.{param}", "blocks.{i}.mlp.fc1.{param}", part=(0, 2)),
    Rule("blocks.{i}.mlp.fc1_x.{param}", "blocks.{i}.mlp.fc1.{param}", part=(1, 2)),
    Rule("blocks.{i}.mlp.w12.{param}", "blocks.{i}.mlp.fc1.{param}"),  # DINOv2, packed SwiGLU
    Rule("blocks.{i}.mlp.w1.{param}", "blocks.{i}.mlp.fc1.{param}", part=(0, 2)),  # DINOv3
    Rule("blocks.{i}.mlp.w2.{param}", "blocks.{i}.mlp.fc1.{param}", part=(1, 2)),
    Rule("blocks.{i}.mlp.w3.{param}", "blocks.{i}.mlp.fc2.{param}"),
    Rule("blocks.{i}.{rest}", "blocks.{i}.{rest}"),
    Rule("head.{rest}", reason=PRETRAINING_HEAD),
    Rule("head_dist.{rest}", reason=PRETRAINING_HEAD),
    Rule("pre_logits.{rest}", reason=PRETRAINING_HEAD),
    Rule("fc_norm.{param}", reason=PRETRAINING_HEAD),
    Rule("attn_pool.{rest}", reason=PRETRAINING_HEAD),
    Rule("decoder_{rest}", reason=_PRETRAINING),  # MAE
    Rule("mask_token", reason=_PRETRAINING),
    Rule("local_cls_norm.{param}", reason=_PRETRAINING),
    Rule("rope_embed.periods", reason=_ROTARY),
)

MMSEG_BLOCK = (
    Rule("layers.{i}.ln{j}.{param}", "blocks.{i}.norm{j}.{param}"),
    Rule("layers.{i}.attn.attn.in_proj_{param}", "blocks.{i}.attn.qkv.{param}"),
    Rule("layers.{i}.attn.attn.out_proj.{param}", "blocks.{i}.attn.proj.{param}"),
    Rule("layers.{i}.ffn.layers.0.0.{param}", "blocks.{i}.mlp.fc1.{param}"),
    Rule("layers.{i}.ffn.layers.1.{param}", "blocks.{i}.mlp.fc2.{param}"),
)

MMSEG_RULES = (
    Rule("patch_embed.projection.{param}", "patch_embed.proj.{param}"),
    *MMSEG_BLOCK,
    Rule("ln1.{param}", "norm.{param}"),
    *ENCODER_RULES,
)

# A block of transformers: target and part -> its names on the hub, and those that release 5 has in memory.
_HF_BLOCK = {
    ("attn.qkv", (0, 3)): ("attention.attention.query", "attention.q_proj"),
    ("attn.qkv", (1, 3)): ("attention.attention.key", "attention.k_proj"),
    ("attn.qkv", (2, 3)): ("attention.attention.value", "attention.v_proj"),
    ("attn.proj", (0, 1)): ("attention.output.dense", "attention.o_proj"),
    ("norm1", (0, 1)): ("layernorm_before",),
    ("norm2", (0, 1)): ("layernorm_after",),
    ("norm{j}", (0, 1)): ("norm{j}",),
    ("mlp.fc1", (0, 1)): ("intermediate.dense", "mlp.fc1", "mlp.weights_in"),
    ("mlp.fc1", (0, 2)): ("mlp.gate_proj",),
    ("mlp.fc2", (0, 1)): ("output.dense", "mlp.fc2", "mlp.weights_out", "mlp.down_proj"),
}


def hf_rules(*, gated: bool) -> tuple[Rule, ...]:
    """transformers' ViT, DeiT, DPT, DINOv2 and DINOv3; ``gated`` if the feed-forward is SwiGLU."""
    rules = [
        Rule("embeddings.cls_token", "cls_token"),
        Rule("embeddings.distillation_token", "dist_token"),
        Rule("embeddings.register_tokens", "reg_token"),
        Rule("embeddings.position_embeddings", "pos_embed"),
        Rule("embeddings.mask_token", reason=_PRETRAINING),
        Rule("embeddings.patch_embeddings.projection.{param}", "patch_embed.proj.{param}"),
        Rule("embeddings.patch_embeddings.{param}", "patch_embed.proj.{param}"),
        Rule("layernorm.{param}", "norm.{param}"),
        Rule("pooler.{rest}", reason=PRETRAINING_HEAD),
    ]
    block = [(name, target, part) for (target, part), names in _HF_BLOCK.items() for name in names]
    block.append(("mlp.up_proj", "mlp.fc1", (1, 2) if gated else (0, 1)))
    for layer in ("encoder.layer.{i}", "model.layer.{i}", "layer.{i}", "layers.{i}"):
        rules.append(Rule(f"{layer}.layer_scale{{j}}.lambda1", "blocks.{i}.ls{j}.gamma"))
        for name, target, part in block:
            rules.append(Rule(f"{layer}.{name}.{{param}}", f"blocks.{{i}}.{target}.{{param}}", part=part))
    return tuple(rules)


def _rules_for(state: Mapping[str, Tensor]) -> tuple[Rule, ...]:
    """The rules for the program that the name of the patch projection belongs to."""
    if "patch_embed.projection.weight" in state:
        return MMSEG_RULES
    if any(name.startswith("embeddings.") for name in state):
        return (*hf_rules(gated=any(".mlp.gate_proj." in name for name in state)), *ENCODER_RULES)
    return ENCODER_RULES


def looks_like_encoder(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has exactly one plain ViT under names that ``read_encoder`` knows."""
    return len(_prefixes(state)) == 1


def _prefixes(state: Mapping[str, Tensor]) -> set[str]:
    """The prefix of every encoder in a state dict."""
    pattern = re.compile(rf"(|.*\.)({'|'.join(map(re.escape, PATCH_WEIGHTS))})")
    return {match[1] for key in state if (match := pattern.fullmatch(key))}


def read_encoder(state: Mapping[str, Tensor], source: str) -> Renamed:
    """Rename the tensors of the encoder in a state dict; values and shapes stay as stored.

    Raises:
        CheckpointError: if there is no encoder with known names, or more than one.
    """
    prefixes = _prefixes(state)
    if len(prefixes) != 1:
        where = f"{len(prefixes)} encoders (under {', '.join(sorted(prefixes))})" if prefixes else "no encoder"
        raise CheckpointError(
            f"{source} has {where}; one with the names of timm or DINO is needed, such as {PATCH_WEIGHT}; "
            f"pass only that part (names in the file: {', '.join(collapse(state)[:4])}, ...)"
        )
    (prefix,) = prefixes
    # DINOv2 trains its blocks in chunks, but numbers them throughout: blocks.1.7 is block 7.
    inside = {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", key.removeprefix(prefix)): tensor
        for key, tensor in state.items()
        if key.startswith(prefix)
    }
    outside = {key: f"not under {prefix}" for key in state if not key.startswith(prefix)}
    completed = with_zero_biases(inside)
    renamed = rename(completed, _rules_for(completed))
    # transformers' DINOv3 without registers stores a tensor without rows.
    empty = [name for name in TOKENS if name in renamed.tensors and not renamed.tensors[name].numel()]
    tensors = {name: tensor for name, tensor in renamed.tensors.items() if name not in empty}
    ignored = {key: "holds no token" for name in empty for key in renamed.sources[name]}
    return Renamed(tensors, renamed.sources, outside | renamed.ignored | ignored, renamed.unused)


_BIASES = re.compile(r"(.*\.)([qkv])(_bias|_proj\.bias)")


def with_zero_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add zero biases where only some of queries, keys and values have one.

    EVA-02 and DINOv3 have none of the keys; the original DINOv3 stores one and a mask that removes it.
    """
    completed = dict(state)
    for name, tensor in state.items():
        if match := _BIASES.fullmatch(name):
            for letter in "qkv":
                completed.setdefault(match[1] + letter + match[3], torch.zeros_like(tensor))
        if name.endswith(".attn.qkv.bias") and name + "_mask" in state:
            query, key, value = tensor.chunk(3)
            completed[name] = torch.cat([query, torch.zeros_like(key), value])
    return completed


def stored_tokens(tensors: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """The prefix tokens of a file as (name, index), in the order of the sequence."""
    return [(name, index) for name in TOKENS if name in tensors for index in range(tensors[name].shape[1])]


def split_positions(
    length: int, tokens: Sequence[tuple[str, int]], source: str, *, grids: Sequence[Size | None]
) -> tuple[int, Size]:
    """The number of rows of a stored pos_embed that belong to prefix tokens, and the (h, w) of the others.

    Args:
        length: rows of pos_embed.
        tokens: the prefix tokens of the file.
        source: what the message calls the weights.
        grids: (h, w) to be tried in turn; None is any square.

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
