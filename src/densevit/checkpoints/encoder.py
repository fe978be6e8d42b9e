"""Load pre-trained weights of a plain ViT into an encoder, or read an encoder's config from them."""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from densevit.blocks import Activation
from densevit.checkpoints.encoder_kinds import antialiases, refuse_other_kinds
from densevit.checkpoints.encoder_names import PATCH_WEIGHT, TOKENS, read_encoder, split_positions, stored_tokens
from densevit.checkpoints.rename import LoadReport, Renamed, Row, require_total
from densevit.checkpoints.shapes import Shapes, encoder_from_shapes
from densevit.checkpoints.timm_names import architecture_of
from densevit.encoder import EncoderConfig, VisionTransformer
from densevit.encoder.patches import adapt_input_channels, resample_patch_weight
from densevit.encoder.positions import InterpolationMode, LearnedPositions, resample_positions
from densevit.errors import CheckpointError
from densevit.types import Size


def load_encoder_weights(
    encoder: VisionTransformer,
    state: Mapping[str, Tensor],
    *,
    source: str,
    grid: Size | None = None,
    ignore: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """Copy pre-trained weights into the encoder: all of them or, on error, none.

    Some differences are adapted and reported: the position grid (with the config's mode and offset), the rows of prefix
    tokens before it, the patch size, the input channels, and biases that are zero on one side and absent on the other.

    Args:
        encoder: the model to fill.
        state: weights under the names of ``encoder_names``, bare or under one prefix such as ``backbone.``; tensors
            outside the prefix are ignored.
        source: what the report and messages call the weights.
        grid: (h, w) of the stored position grid, where it is neither square nor that of the encoder.
        ignore: names or patterns of tensors to ignore, such as ``blocks.*.attn.q_norm.*``.
        allow_missing: names or patterns of parameters that may keep their initial value.

    Raises:
        CheckpointError: if a tensor of the file has no counterpart in the encoder or vice versa, or shapes differ.
    """
    refuse_other_kinds(state, source, encoder.config.rotary)
    return copy_encoder_weights(encoder, state, source=source, grid=grid, ignore=ignore, allow_missing=allow_missing)


def copy_encoder_weights(
    encoder: VisionTransformer,
    state: Mapping[str, Tensor],
    *,
    source: str,
    grid: Size | None = None,
    ignore: Sequence[str] = (),
    allow_missing: Sequence[str] = (),
) -> LoadReport:
    """``load_encoder_weights`` for weights that are known to be of a plain ViT, such as those of another model here."""
    config = encoder.config
    renamed = read_encoder(state, source)
    targets = encoder.state_dict()
    notes: dict[str, str] = {}
    if config.rotary is not None:
        _check_periods(state, config.rotary.base, source)
    if not _listed("pos_embed", ignore):
        _adapt_positions(renamed.tensors, config, grid, notes, source)
    _adapt_patches(renamed.tensors, config, notes)
    renamed, rows = _ignore(renamed, config, ignore)
    tensors = renamed.tensors
    stored = frozenset(tensors)
    for name, target in targets.items():
        if name in tensors:
            continue
        if name.endswith(_ZERO_WHERE_ABSENT) and not _in_another_block(name, stored):
            tensors[name] = torch.zeros_like(target)
            notes[name] = "zero, the file has none"
        elif _listed(name, allow_missing):
            tensors[name] = target
            rows.append(Row(name, "missing", "keeps its initial value"))
    require_total(
        renamed,
        {name: tensor.shape for name, tensor in targets.items()},
        source=source,
        advice="make the encoder's config agree (encoder_config_from_state reads it from the weights), "
        "or keep only the encoder's tensors in the file (in Python, load_encoder_weights can leave out names)",
    )
    missing = {row.name for row in rows if row.status == "missing"}
    for name, target in targets.items():  # these share their memory with the parameters
        target.copy_(tensors[name])
        if name not in missing:
            rows.append(Row(name, "adapted" if name in notes else "loaded", notes.get(name, "")))
    return LoadReport(source, tuple(rows))


_ZERO_WHERE_ABSENT = ("qkv.bias", "attn.proj.bias", "fc1.bias", "fc2.bias", "patch_embed.proj.bias")


def _in_another_block(name: str, stored: Collection[str]) -> bool:
    """Whether the file has the same parameter of another block, so that this one was lost."""
    match = re.match(r"blocks\.\d+\.(.*)", name)
    return match is not None and any(re.fullmatch(rf"blocks\.\d+\.{re.escape(match[1])}", other) for other in stored)


def _listed(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _ignore(renamed: Renamed, config: EncoderConfig, ignore: Sequence[str]) -> tuple[Renamed, list[Row]]:
    """Separate the tensors that the encoder takes from those ignored for a reason."""
    reasons = dict(renamed.ignored)
    tensors = {}
    for name, tensor in renamed.tensors.items():
        requested = all(_listed(key, ignore) for key in renamed.sources[name])
        reason = "as requested" if requested else _not_built(name, tensor, config)
        if reason is None:
            tensors[name] = tensor
        else:
            reasons[name] = reason
    reasons |= {name: "as requested" for name in renamed.unused if _listed(name, ignore)}
    unused = tuple(name for name in renamed.unused if name not in reasons)
    rows = [Row(name, "ignored", reason) for name, reason in reasons.items()]
    return Renamed(tensors, renamed.sources, reasons, unused), rows


def _not_built(name: str, tensor: Tensor, config: EncoderConfig) -> str | None:
    """Why the config builds no parameter for a tensor; None if it builds one or should."""
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
                    f"{expected.max():.4g}; set positions.base to that of the weights"
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
    """Convert the stored grid, and the rows of prefix tokens before it, to the config.

    Rows change without loss: where the config has no row for a token, the stored one is added to the token; where the
    file has none, the row is zero.
    """
    rule, stored = config.positions, tensors.get("pos_embed")
    if stored is None or stored.ndim != 3 or not isinstance(rule, LearnedPositions):
        return
    tokens = stored_tokens(tensors)
    grids = (rule.grid, None) if grid is None else (grid,)
    num_prefix, grid = split_positions(stored.shape[1], tokens, source, grids=grids)
    changes = []
    stored = stored.float()
    patches = resample_positions(
        stored[:, num_prefix:], grid, rule.grid, mode=rule.mode, offset=rule.offset, antialias=rule.antialias
    )
    if grid != rule.grid:
        offset = f", offset {rule.offset:g}" if rule.offset else ""
        antialias = ", antialias" if rule.antialias else ""
        changes.append(f"grid {_by(grid)} -> {_by(rule.grid)} ({rule.mode}{offset}{antialias})")
    rows = {token: stored[:, index] for index, token in enumerate(tokens[:num_prefix])}  # each (1, C)
    counts = (int(config.cls_token), int(config.dist_token), config.num_registers)
    built = [(name, index) for name, count in zip(TOKENS, counts, strict=True) for index in range(count)]
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
    antialias: bool | None = None,
    offset: float = 0.0,
    base: float = 100.0,
    architecture: str | None = None,
    grid: Size | None = None,
    taps: tuple[int, ...] | None = None,
    final_norm: bool = False,
) -> EncoderConfig:
    """Read an encoder's config from the shapes of its pre-trained weights.

    Args:
        state: weights as ``load_encoder_weights`` takes them. Without a pos_embed, positions are rotary.
        source: what messages call the weights.
        num_heads: required without an architecture, since shapes do not tell it.
        norm_eps: required likewise.
        activation: required likewise, unless the feed-forward is SwiGLU.
        mode: how learned positions are interpolated; required likewise where there are any.
        antialias: of learned positions; by default as the program with these names does it: on in timm and in DINOv2
            with registers, for "bicubic" without an offset.
        offset: of learned positions.
        base: of rotary positions, where no architecture is given.
        architecture: timm's name of the model, which tells all of these, and the rotary positions of EVA-02, of
            Perception Encoders and of ``vit_*_rope*``.
        grid: (h, w) of learned positions, where it is not square.
        taps: the last block by default.
        final_norm: apply it to the taps.

    Raises:
        CheckpointError: if a required argument is missing, or the weights are not those of a plain ViT.
        ConfigError: if the values contradict one another.
    """
    known = None if architecture is None else architecture_of(architecture, source)
    rotary = None if known is None else known.rotary
    refuse_other_kinds(state, source, rotary)
    tensors = read_encoder(state, source).tensors
    if "patch_embed.stem_conv.weight" in tensors:
        raise CheckpointError(
            f"{source} has a hybrid encoder, but only the config of a plain ViT can be read from shapes; "
            "write the EncoderConfig by hand"
        )
    config = encoder_from_shapes(Shapes(tensors, source), prefix="")
    if known is not None:
        num_heads = config["embed_dim"] // known.head_dim if num_heads is None else num_heads
        norm_eps = known.norm_eps if norm_eps is None else norm_eps
        activation, mode = activation or known.activation, mode or "bicubic"
    config["num_registers"] = sum(name == "reg_token" for name, _ in stored_tokens(tensors))
    if config["layer_scale"] is not None:
        config["layer_scale"] = 1e-5  # the initial value of DINOv2
    positions = tensors.get("pos_embed")
    required: dict[str, object] = {"num_heads": num_heads, "norm_eps": norm_eps}
    if config["mlp"] == "mlp":
        required["activation"] = activation
    missing = [name for name, value in required.items() if value is None]
    if positions is not None and mode is None:
        missing.append("mode")
    if missing:
        raise CheckpointError(
            f"{source} has weights whose shapes do not tell {', '.join(missing)}; pass them as keyword arguments"
        )
    rule: dict[str, object] = {"kind": "rotary", "base": base} if rotary is None else rotary.plain()
    if positions is not None:
        num_prefix, grid = split_positions(positions.shape[1], stored_tokens(tensors), source, grids=(grid,))
        rule = {"kind": "learned", "grid": grid, "num_prefix": num_prefix, "mode": mode, "offset": offset}
        rule["rotary"] = rotary
        rule["antialias"] = mode == "bicubic" and not offset and antialiases(state) if antialias is None else antialias
    config |= required | {"positions": rule, "taps": taps or (config["depth"] - 1,), "final_norm": final_norm}
    return EncoderConfig.parse(config, source=f"the config read from {source}")
