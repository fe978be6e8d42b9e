"""What the importers share about encoders: their names in each program, sizes, and positions."""

import math
from dataclasses import replace

from densevit.checkpoints.encoder_names import ENCODER_RULES, MMSEG_RULES, hf_rules
from densevit.checkpoints.importers.base import Plain, Source
from densevit.checkpoints.rename import Renamed, Rule, prefixed
from densevit.checkpoints.shapes import Shapes
from densevit.encoder import NAMED_SIZES
from densevit.errors import CheckpointError
from densevit.types import Size

NORM_NOT_READ = "the taps are read before it"

MMSEG_VIT = prefixed(MMSEG_RULES, "backbone.", "encoder.")


def timm_vit(prefix: str) -> tuple[Rule, ...]:
    """Names of timm, DINOv2 and DINOv3 under a prefix."""
    return prefixed(ENCODER_RULES, prefix, "encoder.")


def hf_vit(prefix: str, *, gated: bool) -> tuple[Rule, ...]:
    """Names of transformers under a prefix."""
    return prefixed(hf_rules(gated=gated), prefix, "encoder.")


def published_heads(dim: int, depth: int) -> int | None:
    """Attention heads of an encoder of a published size, 64 channels each; None for any other size."""
    sizes = {(size["embed_dim"], size["depth"]): size["num_heads"] for size in NAMED_SIZES.values()}
    return (sizes | {(1536, 40): 24}).get((dim, depth))


def positions(
    shapes: Shapes,
    encoder: Plain,
    *,
    mode: str,
    image_size: Size | None = None,
    offset: float = 0.0,
    keep_equal_count: bool = False,
) -> Plain:
    """Plain data of the ``LearnedPositions``.

    Args:
        shapes: the renamed tensors.
        encoder: what ``encoder_from_shapes`` returned; each prefix token of the file has a position.
        mode: how the source's program interpolates positions.
        image_size: of the training images; None for a square grid.
        offset: see ``LearnedPositions``.
        keep_equal_count: see ``LearnedPositions``.

    Raises:
        CheckpointError: if the number of positions is not that of such a grid.
    """
    _, rows, _ = shapes.of("encoder.pos_embed", 3)
    num_prefix = int(encoder["cls_token"]) + int(encoder["dist_token"])
    count = rows - num_prefix
    patch_height, patch_width = encoder["patch_size"]
    side = math.isqrt(max(count, 0))
    grid = (side, side) if image_size is None else (image_size[0] // patch_height, image_size[1] // patch_width)
    if count < 1 or grid[0] * grid[1] != count:
        wanted = "a square grid" if image_size is None else f"the grid {grid[0]} x {grid[1]} of such images"
        raise CheckpointError(
            f"{shapes.source} has {rows} positions, {num_prefix} of them for prefix tokens, which is not {wanted}; "
            "give the size of the training images to `densevit convert` by --image-size (image_size=... in Python)"
        )
    rule = {"kind": "learned", "grid": grid, "num_prefix": num_prefix, "mode": mode, "offset": offset}
    return rule | {"keep_equal_count": keep_equal_count}


def training_image_size(source: Source, encoder: Plain, config_size: object) -> Size | None:
    """The (height, width) of the training images; None for a square, which all published sizes have.

    Raises:
        CheckpointError: if it is unknown and the encoder is not of a published size.
    """
    size = source.get("image_size", config_size)
    if isinstance(size, int):
        size = (size, size)
    if size is None and published_heads(encoder["embed_dim"], encoder["depth"]) is None:
        raise source.missing("image_size")
    return None if size is None else (int(size[0]), int(size[1]))


def without_class_token(renamed: Renamed, rule: Plain) -> tuple[Renamed, Plain]:
    """Ignore the class token and cut off its position, which SETR-MLA's sequence lacks; the rule then has no prefix."""
    stored, num_prefix = renamed.tensors["encoder.pos_embed"], rule["num_prefix"]
    ignored = dict.fromkeys(renamed.sources.get("encoder.cls_token", ()), "the sequence has no class token")
    renamed = replace(renamed, ignored=renamed.ignored | ignored).with_tensors(
        {"encoder.pos_embed": stored[:, num_prefix:].clone()},
        "position of the class token cut off",
        drop=["encoder.cls_token"],
        absorbed=num_prefix * stored.shape[2],
    )
    return renamed, rule | {"num_prefix": 0}
