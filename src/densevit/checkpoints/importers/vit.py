"""The encoder in the files of others: names of its tensors, and what its shapes tell."""

import math
from dataclasses import replace

from densevit.checkpoints.encoder import mlp_ratio
from densevit.checkpoints.importers.base import Plain, Shapes, Source, update
from densevit.checkpoints.rename import Renamed, Rule
from densevit.encoder import NAMED_SIZES
from densevit.errors import CheckpointError
from densevit.types import Size

HEAD_OF_PRETRAINING = "classifier of the pre-training task"
NORM_NOT_READ = "the taps are read before it"
MASK_TOKEN = "used in pre-training only"

_BLOCKS, _STEM = "encoder.blocks.{i}", "encoder.patch_embed"


def timm_vit(prefix: str) -> tuple[Rule, ...]:
    """timm's names, which are ours."""
    return (
        *(Rule(f"{prefix}{name}", f"encoder.{name}") for name in ("cls_token", "dist_token", "pos_embed")),
        Rule(f"{prefix}patch_embed.proj.{{param}}", f"{_STEM}.proj.{{param}}"),
        Rule(f"{prefix}patch_embed.backbone.stem.{{layer}}.{{param}}", f"{_STEM}.stem_{{layer}}.{{param}}"),
        Rule(
            f"{prefix}patch_embed.backbone.stages.{{i}}.blocks.{{j}}.{{rest}}", f"{_STEM}.stages.{{i}}.{{j}}.{{rest}}"
        ),
        Rule(f"{prefix}blocks.{{i}}.mlp.w12.{{param}}", f"{_BLOCKS}.mlp.fc1.{{param}}"),  # DINOv2's SwiGLU
        Rule(f"{prefix}blocks.{{i}}.mlp.w3.{{param}}", f"{_BLOCKS}.mlp.fc2.{{param}}"),
        Rule(f"{prefix}blocks.{{i}}.{{rest}}", f"{_BLOCKS}.{{rest}}"),
    )


def mmseg_block(source: str, target: str) -> tuple[Rule, ...]:
    """A transformer block of mmsegmentation."""
    return (
        Rule(f"{source}.ln1.{{param}}", f"{target}.norm1.{{param}}"),
        Rule(f"{source}.ln2.{{param}}", f"{target}.norm2.{{param}}"),
        Rule(f"{source}.attn.attn.in_proj_{{param}}", f"{target}.attn.qkv.{{param}}"),
        Rule(f"{source}.attn.attn.out_proj.{{param}}", f"{target}.attn.proj.{{param}}"),
        Rule(f"{source}.ffn.layers.0.0.{{param}}", f"{target}.mlp.fc1.{{param}}"),
        Rule(f"{source}.ffn.layers.1.{{param}}", f"{target}.mlp.fc2.{{param}}"),
    )


MMSEG_VIT = (
    Rule("backbone.cls_token", "encoder.cls_token"),
    Rule("backbone.pos_embed", "encoder.pos_embed"),
    Rule("backbone.patch_embed.projection.{param}", f"{_STEM}.proj.{{param}}"),
    *mmseg_block("backbone.layers.{i}", _BLOCKS),
    Rule("backbone.ln1.{param}", "encoder.norm.{param}"),
)


def hf_attention(layer: str) -> tuple[Rule, ...]:
    """Attention of transformers: the names of the hub, and those that release 5 holds in memory."""
    hub = [(f"{layer}.attention.attention.{name}.{{param}}", k) for k, name in enumerate(("query", "key", "value"))]
    memory = [(f"{layer}.attention.{name}_proj.{{param}}", k) for k, name in enumerate("qkv")]
    return (
        *(Rule(name, f"{_BLOCKS}.attn.qkv.{{param}}", part=(k, 3)) for name, k in (*hub, *memory)),
        Rule(f"{layer}.attention.output.dense.{{param}}", f"{_BLOCKS}.attn.proj.{{param}}"),
        Rule(f"{layer}.attention.o_proj.{{param}}", f"{_BLOCKS}.attn.proj.{{param}}"),
    )


def published_heads(dim: int, depth: int) -> int | None:
    """Attention heads of the published widths, 64 channels each in all of them; None for any other width."""
    sizes = {(size["embed_dim"], size["depth"]): size["num_heads"] for size in NAMED_SIZES.values()}
    return (sizes | {(1536, 40): 24}).get((dim, depth))


def encoder_facts(shapes: Shapes) -> Plain:
    """What names and shapes tell about an encoder under our names: all but heads, taps, positions and epsilon."""
    (dim,) = shapes.of("encoder.blocks.0.norm1.weight", 1)
    hidden_rows, _ = shapes.of("encoder.blocks.0.mlp.fc1.weight", 2)
    _, hidden_dim = shapes.of("encoder.blocks.0.mlp.fc2.weight", 2)
    _, in_channels, *patch = shapes.of("encoder.patch_embed.proj.weight", 4)
    facts: Plain = {
        "embed_dim": dim,
        "depth": shapes.count("encoder.blocks.{}."),
        "patch_size": tuple(patch),
        "in_channels": in_channels,
        "mlp": "swiglu" if hidden_rows == 2 * hidden_dim else "mlp",
        "mlp_ratio": mlp_ratio(hidden_dim, dim),
        "patch_bias": shapes.has("encoder.patch_embed.proj.bias"),
        "qkv_bias": shapes.has("encoder.blocks.0.attn.qkv.bias"),
        "layer_scale": 1.0 if shapes.has("encoder.blocks.0.ls1.gamma") else None,  # the weights overwrite it
        "cls_token": shapes.has("encoder.cls_token"),
        "dist_token": shapes.has("encoder.dist_token"),
    }
    if shapes.has("encoder.patch_embed.stem_conv.weight"):
        stem_channels, in_channels, *_ = shapes.of("encoder.patch_embed.stem_conv.weight", 4)
        stages = range(3)
        stem = {
            "layers": tuple(shapes.count(f"encoder.patch_embed.stages.{s}.{{}}.") for s in stages),
            "channels": tuple(shapes.of(f"encoder.patch_embed.stages.{s}.0.conv3.weight", 4)[0] for s in stages),
            "stem_channels": stem_channels,
        }
        facts |= {"stem": stem, "patch_size": (16, 16), "in_channels": in_channels}
    return facts


def positions(
    shapes: Shapes,
    facts: Plain,
    *,
    mode: str,
    image_size: Size | None,
    offset: float = 0.0,
    keep_equal_count: bool = False,
) -> Plain:
    """The rule of the learned positions.

    Args:
        shapes: the file.
        facts: of the encoder; tokens that the file holds have a position each.
        mode: how the source resamples them.
        image_size: of the training images; none for a square grid.
        offset: see ``LearnedPositions``.
        keep_equal_count: see there too.

    Raises:
        CheckpointError: if the rows make no such grid.
    """
    _, rows, _ = shapes.of("encoder.pos_embed", 3)
    num_prefix = int(facts["cls_token"]) + int(facts["dist_token"])
    count, (ph, pw) = rows - num_prefix, facts["patch_size"]
    side = math.isqrt(max(count, 0))
    grid = (side, side) if image_size is None else (image_size[0] // ph, image_size[1] // pw)
    if count < 1 or grid[0] * grid[1] != count:
        wanted = "a square grid" if image_size is None else f"the grid {grid[0]} x {grid[1]} of such images"
        raise CheckpointError(
            f"{shapes.source} has {rows} rows of positions, {num_prefix} of them for prefix tokens, which is not "
            f"{wanted}; the size of the training images must be known; give --image-size (image_size=(height, width))"
        )
    rule = {"kind": "learned", "grid": grid, "num_prefix": num_prefix, "mode": mode, "offset": offset}
    return rule | {"keep_equal_count": keep_equal_count}


def known_image_size(source: Source, facts: Plain, config_size: object) -> Size | None:
    """The (height, width) of the training images; none is a square, which all published sizes have.

    Raises:
        CheckpointError: asking for it where the size is no published one.
    """
    size = source.fact("image_size", config_size)
    if isinstance(size, int):
        size = (size, size)
    if size is None and published_heads(facts["embed_dim"], facts["depth"]) is None:
        raise source.ask("image_size")
    return None if size is None else (int(size[0]), int(size[1]))


def without_class_token(renamed: Renamed, rule: Plain) -> tuple[Renamed, Plain, dict[str, tuple[int, str]]]:
    """SETR-MLA's sequence has no class token: its vector is ignored, its position cut off.

    Returns:
        The tensors, the rule of positions without prefix, and what the cut absorbed.
    """
    sources, stored = renamed.sources, renamed.tensors["encoder.pos_embed"]
    prefix = rule["num_prefix"]
    cut = {"encoder.pos_embed": stored[:, prefix:].clone()}
    ignored = dict.fromkeys(sources.get("encoder.cls_token", ()), "the sequence has no class token")
    renamed = update(renamed, cut, {"encoder.pos_embed": "position of the class token cut off"}, "encoder.cls_token")
    name = f"{sources['encoder.pos_embed'][0]}[:, 0]"
    absorbed = {name: (prefix * stored.shape[2], "position of the class token, which is not in the sequence")}
    return replace(renamed, ignored=renamed.ignored | ignored), rule | {"num_prefix": 0}, absorbed
