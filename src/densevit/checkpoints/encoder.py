"""Pre-trained weights of a plain ViT into our encoder, and an encoder's config from such weights."""

import math
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import Tensor

from densevit.blocks import Activation
from densevit.checkpoints.encoder_names import PATCH_WEIGHT, TOKENS, read_encoder, split_positions, stored_tokens
from densevit.checkpoints.rename import LoadReport, Renamed, Row, require_kinds, require_total
from densevit.encoder import EncoderConfig, VisionTransformer
from densevit.encoder.patches import adapt_input_channels, resample_patch_weight
from densevit.encoder.positions import InterpolationMode, LearnedPositions, RotaryPositions, resample_positions
from densevit.errors import CheckpointError
from densevit.types import Size

__all__ = ["LoadReport", "encoder_config_from_state", "load_encoder_weights"]


def load_encoder_weights(
    encoder: VisionTransformer,
    state: Mapping[str, Tensor],
    *,
    source: str,
    grid: Size | None = None,
    ignore: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Copy pre-trained weights, under the names of timm, DINOv2 or DINOv3, into the encoder: all of them or none.

    What differs but can be carried over is, and is reported as adapted: the position grid (with the config's mode and
    offset), the rows of prefix tokens before it, the patch size, the input channels, and biases that are zero on one
    side and not built on the other.

    Args:
        encoder: the model to fill.
        state: weights by name, bare or all under one prefix such as ``backbone.``; what stands beside it is left out.
        source: what to call the weights in the report and in messages.
        grid: (h, w) of the stored position grid, where it is neither square nor the encoder's own.
        ignore: names or patterns of tensors to leave out knowingly, such as ``blocks.*.attn.q_norm.*``.
        allow_missing: names or patterns of parameters that may keep their initial value.

    Raises:
        CheckpointError: if a tensor of the file has no place in the encoder, or the other way round, or shapes differ.
    """
    config = encoder.config
    found = read_encoder(state, source)
    targets = encoder.state_dict()
    notes: dict[str, str] = {}
    if isinstance(config.positions, RotaryPositions):
        _check_periods(state, config.positions.base, source)
    if not _listed("pos_embed", ignore):
        _adapt_positions(found.tensors, config, grid, notes, source)
    _adapt_patches(found.tensors, config, notes)
    found, rows = _leave_out(found, config, ignore)
    for name in targets:
        if name not in found.tensors and name.endswith(("attn.qkv.bias", "patch_embed.proj.bias")):
            found.tensors[name], notes[name] = torch.zeros_like(targets[name]), "zero, the file has none"
        elif name not in found.tensors and _listed(name, allow_missing):
            found.tensors[name] = targets[name]
            rows.append(Row(name, "missing", "keeps its initial value"))
    require_total(
        found,
        {name: tensor.shape for name, tensor in targets.items()},
        source=source,
        advice="make the encoder's config agree (encoder_config_from_state reads it from the weights), "
        "or name tensors in ignore or allow_missing",
    )
    require_kinds(found, source=source)
    missing = {row.name for row in rows if row.status == "missing"}
    for name, tensor in targets.items():  # these share their memory with the parameters
        tensor.copy_(found.tensors[name])
        if name not in missing:
            rows.append(Row(name, "adapted" if name in notes else "loaded", notes.get(name, "")))
    return LoadReport(source, tuple(rows))


def _listed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _leave_out(found: Renamed, config: EncoderConfig, ignore: Sequence[str]) -> tuple[Renamed, list[Row]]:
    """Part the tensors that the encoder takes from those left out for a reason."""
    reasons = dict(found.ignored)
    tensors = {}
    for name, tensor in found.tensors.items():
        asked = all(_listed(key, ignore) for key in found.sources[name])
        reason = "as asked" if asked else _not_built(name, tensor, config)
        if reason is None:
            tensors[name] = tensor
        else:
            reasons[name] = reason
    reasons |= {name: "as asked" for name in found.unused if _listed(name, ignore)}
    unused = tuple(name for name in found.unused if name not in reasons)
    rows = [Row(name, "ignored", reason) for name, reason in reasons.items()]
    return Renamed(tensors, found.sources, reasons, unused), rows


def _not_built(name: str, tensor: Tensor, config: EncoderConfig) -> str | None:
    """Why the encoder rightly has no place for a tensor, if it has none."""
    if (match := re.match(r"blocks\.(\d+)\.", name)) and config.taps[-1] < int(match[1]) < config.depth:
        return f"after the last tap, {config.taps[-1]}"
    if name.startswith("norm.") and not config.final_norm:
        return "final_norm is off"
    if name == "cls_token" and not config.cls_token:
        return "cls_token is off"
    unbuilt = {"attn.qkv.bias": not config.qkv_bias, "patch_embed.proj.bias": not config.patch_bias}
    if any(off and name.endswith(end) for end, off in unbuilt.items()) and not tensor.any():
        return "zero, and the encoder has none"
    return None


def _check_periods(state: Mapping[str, Tensor], base: float, source: str) -> None:
    for key, stored in state.items():
        if key.endswith("rope_embed.periods"):
            expected = base ** (torch.arange(stored.numel()) / stored.numel())
            if not torch.allclose(stored.float(), expected, rtol=0.02):  # DINOv3 stores them in bfloat16
                raise CheckpointError(
                    f"{source} has rotary periods up to {stored.max():.4g}, but positions.base {base:g} gives up to "
                    f"{expected.max():.4g}; both must agree; set positions.base"
                )


def _adapt_patches(tensors: dict[str, Tensor], config: EncoderConfig, notes: dict[str, str]) -> None:
    weight = tensors[PATCH_WEIGHT]
    if weight.ndim != 4 or config.stem is not None:
        return
    changes = []
    stored_size = (weight.shape[2], weight.shape[3])
    if weight.shape[1] != config.in_channels:
        changes.append(f"{weight.shape[1]} -> {config.in_channels} input channels")
        weight = adapt_input_channels(weight.float(), config.in_channels)
    if stored_size != config.patch_size:
        changes.append(f"patch {_by(stored_size)} -> {_by(config.patch_size)}")
        weight = resample_patch_weight(weight.float(), config.patch_size)
    if changes:
        tensors[PATCH_WEIGHT], notes[PATCH_WEIGHT] = weight, ", ".join(changes)


def _adapt_positions(
    tensors: dict[str, Tensor], config: EncoderConfig, grid: Size | None, notes: dict[str, str], source: str
) -> None:
    """Bring the stored grid, and the rows of prefix tokens before it, to the form of the config.

    Rows change without loss: one is added to its token where the config keeps none, and is zero where the file has
    none.
    """
    rule, stored = config.positions, tensors.get("pos_embed")
    if stored is None or stored.ndim != 3 or not isinstance(rule, LearnedPositions):
        return
    tokens = stored_tokens(tensors)
    grids = (rule.grid, None) if grid is None else (grid,)
    num_prefix, grid = split_positions(stored.shape[1], tokens, source, grids=grids)
    changes = []
    stored = stored.float()
    patches = resample_positions(stored[:, num_prefix:], grid, rule.grid, mode=rule.mode, offset=rule.offset)
    if grid != rule.grid:
        offset = f", offset {rule.offset:g}" if rule.offset else ""
        changes.append(f"grid {_by(grid)} -> {_by(rule.grid)} ({rule.mode}{offset})")
    rows = {token: stored[:, index] for index, token in enumerate(tokens[:num_prefix])}  # each (1, C)
    built = _built_tokens(config)
    kept = built[: rule.num_prefix]
    for (name, index), row in rows.items():
        if (name, index) not in built:
            changes.append(f"row of {name} dropped")
        elif (name, index) not in kept:
            added = torch.zeros_like(tensors[name], dtype=torch.float32)
            added[:, index] = row
            tensors[name], notes[name] = tensors[name] + added, "its row of pos_embed added"
            changes.append(f"row of {name} moved into it")
    changes += [f"zero row for {token[0]}" for token in kept if token not in rows]
    if changes:
        zero = torch.zeros_like(stored[:, 0])
        prefix = [rows.get(token, zero)[:, None] for token in kept]
        tensors["pos_embed"] = torch.cat([*prefix, patches], dim=1)
        notes["pos_embed"] = ", ".join(dict.fromkeys(changes))


def _built_tokens(config: EncoderConfig) -> list[tuple[str, int]]:
    counts = (int(config.cls_token), int(config.dist_token), config.num_registers)
    return [(name, index) for name, count in zip(TOKENS, counts, strict=True) for index in range(count)]


def _by(size: Size) -> str:
    return f"{size[0]} x {size[1]}"


def encoder_config_from_state(
    state: Mapping[str, Tensor],
    *,
    source: str,
    num_heads: int | None = None,
    norm_eps: float | None = None,
    activation: Activation | None = None,
    mode: InterpolationMode | None = None,
    offset: float = 0.0,
    base: float = 100.0,
    grid: Size | None = None,
    taps: tuple[int, ...] | None = None,
    final_norm: bool = False,
) -> EncoderConfig:
    """Read from the shapes of pre-trained weights which encoder they belong to.

    Args:
        state: weights as ``load_encoder_weights`` takes them. Without a pos_embed, positions are rotary.
        source: what to call the weights in messages.
        num_heads: shapes cannot tell; must be given.
        norm_eps: shapes cannot tell; must be given.
        activation: of an MLP; shapes cannot tell; must be given unless the feed-forward is SwiGLU.
        mode: how learned positions are interpolated; must be given where there are any.
        offset: of learned positions.
        base: of rotary positions.
        grid: (h, w) of learned positions, where it is not square.
        taps: the last block by default.
        final_norm: apply it to the taps.

    Raises:
        CheckpointError: if a needed argument is absent, or the weights are not those of a plain ViT.
        ConfigError: if the facts contradict one another.
    """
    tensors = read_encoder(state, source).tensors
    shapes = _shape_facts(tensors, source)
    positions = tensors.get("pos_embed")
    needed: dict[str, object] = {"num_heads": num_heads, "norm_eps": norm_eps}
    if shapes["mlp"] == "mlp":
        needed["activation"] = activation
    absent = [name for name, value in needed.items() if value is None]
    absent += ["mode"] if positions is not None and mode is None else []
    if absent:
        raise CheckpointError(
            f"{source} has weights whose shapes do not tell {', '.join(absent)}; they are facts of the architecture; "
            "pass them as keyword arguments"
        )
    rule: dict[str, object] = {"kind": "rotary", "base": base}
    if positions is not None:
        num_prefix, grid = split_positions(positions.shape[1], stored_tokens(tensors), source, grids=(grid,))
        rule = {"kind": "learned", "grid": grid, "num_prefix": num_prefix, "mode": mode, "offset": offset}
    last = (cast(int, shapes["depth"]) - 1,)
    facts = shapes | needed | {"positions": rule, "taps": taps or last, "final_norm": final_norm}
    return EncoderConfig.parse(facts, source=f"the config read from {source}")


def _shape_facts(tensors: Mapping[str, Tensor], source: str) -> dict[str, object]:
    """What names and shapes tell about an encoder, positions aside."""
    blocks = [int(match[1]) for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))]
    weight, fc1, fc2 = map(tensors.get, (PATCH_WEIGHT, "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight"))
    if weight is None or weight.ndim != 4 or fc1 is None or fc2 is None or "patch_embed.stem_conv.weight" in tensors:
        raise CheckpointError(
            f"{source} is no plain ViT with a patch projection and blocks.0.mlp; "
            "only of that can the config be read from shapes; write the EncoderConfig by hand"
        )
    dim, hidden_dim = fc2.shape
    return {
        "embed_dim": dim,
        "depth": max(blocks) + 1,
        "patch_size": (weight.shape[2], weight.shape[3]),
        "in_channels": weight.shape[1],
        "mlp": "swiglu" if fc1.shape[0] == 2 * hidden_dim else "mlp",
        "mlp_ratio": mlp_ratio(hidden_dim, dim),
        "pre_norm": "norm_pre.weight" in tensors,
        "patch_bias": "patch_embed.proj.bias" in tensors,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in tensors else None,  # DINOv2's; the weights overwrite it
        "cls_token": "cls_token" in tensors,
        "dist_token": "dist_token" in tensors,
        "num_registers": sum(name == "reg_token" for name, _ in stored_tokens(tensors)),
    }


def mlp_ratio(hidden_dim: int, dim: int) -> float:
    """The mlp_ratio that gives exactly hidden_dim when multiplied by dim and rounded down."""
    ratio = hidden_dim / dim
    return ratio if int(dim * ratio) == hidden_dim else math.nextafter(ratio, math.inf)
