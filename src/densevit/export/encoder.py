"""The encoder as operators of a graph: uint8 images to the taps that some heads read."""

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from densevit.encoder import VisionTransformer
from densevit.encoder.hybrid import Bottleneck, HybridEmbed, StdConv
from densevit.encoder.positions import LearnedPositions, RotaryPositions
from densevit.export.builder import Value
from densevit.export.layers import GraphRotation, Writer
from densevit.export.resampling import Extent, position_matrix


@dataclass(frozen=True)
class GraphTaps:
    """The values of ``densevit.types.Taps`` in a graph.

    Attributes:
        tokens: by block, (B, N, C).
        prefix: by block, (B, P, C); the same keys.
        grid: (h, w) in patches.
        image_size: (H, W) of the resized image, in pixels.
        stem_maps: of a convolutional stem, finest first.
        image: normalised, (B, channels, H, W).
    """

    tokens: dict[int, Value]
    prefix: dict[int, Value]
    grid: Extent
    image_size: Extent
    stem_maps: tuple[Value, ...]
    image: Value


def encode(writer: Writer, encoder: VisionTransformer, images: Value, grid: Extent, needed: set[int]) -> GraphTaps:
    """Normalised images (B, 3, H, W) -> the taps after the blocks that are needed."""
    config = encoder.config
    if isinstance(encoder.patch_embed, HybridEmbed):
        patches, stem_maps = hybrid(writer, encoder.patch_embed, images)
    else:
        patches, stem_maps = writer.conv(images, encoder.patch_embed.proj), ()
    x = patches.reshape(0, config.embed_dim, -1).transpose(0, 2, 1)  # (B, N, C)
    x = writer.layer_norm(_with_positions(writer, encoder, x, grid), encoder.norm_pre)
    rotation = None
    if config.rotary is not None:
        angles = rotary(writer, config.rotary, grid, config.head_dim)
        rotation = GraphRotation(*angles, config.num_prefix, config.rotary.pairs == "neighbours")
    tokens, prefix = {}, {}
    for index, block in enumerate(encoder.blocks[: max(needed) + 1]):
        x = writer.block(x, block, rotation)
        if index in needed:
            normed = writer.layer_norm(x, encoder.norm)
            tokens[index] = normed.slice(1, config.num_prefix) if config.num_prefix else normed
            prefix[index] = normed.slice(1, 0, config.num_prefix)
    ph, pw = config.patch_size
    return GraphTaps(tokens, prefix, grid, (grid[0] * ph, grid[1] * pw), stem_maps, images)


def _with_positions(writer: Writer, encoder: VisionTransformer, x: Value, grid: Extent) -> Value:
    """Patch tokens (B, N, C) -> the sequence (B, P + N, C) with prefix tokens, both with their positions."""
    g, config = writer.graph, encoder.config
    names = [name for name in ("cls_token", "dist_token", "reg_token") if hasattr(encoder, name)]
    prefix = [getattr(encoder, name).detach() for name in names]
    rule = config.positions
    if isinstance(rule, LearnedPositions):
        x = x + learned(writer, encoder, rule, grid)
    if not prefix:
        return x
    joined = np.concatenate([token.float().cpu().numpy() for token in prefix], axis=1)  # (1, P, C)
    if isinstance(rule, LearnedPositions):
        placed = encoder.pos_embed.detach().float().cpu().numpy()[:, : rule.num_prefix]
        joined[:, : rule.num_prefix] += placed  # registers have no position
    batch = g.dims(x.size(0), config.num_prefix, config.embed_dim)
    return g.concat([g.op("Expand", g.constant(joined), batch), x], 1)


def learned(writer: Writer, encoder: VisionTransformer, rule: LearnedPositions, grid: Extent) -> Value:
    """``positions_for``: the stored vectors, resampled to a grid: (1, N, C)."""
    g = writer.graph
    old, channels = rule.grid, encoder.config.embed_dim
    stored = writer.tensor(encoder, "pos_embed.grid", encoder.pos_embed[0, rule.num_prefix :])  # (N_stored, C)
    rows, columns = (
        position_matrix(n, new, mode=rule.mode, antialias=rule.antialias, offset=rule.offset)
        for n, new in zip(old, grid, strict=True)
    )
    if rule.offset:  # without it the matrices of equal grids are those of the identity anyway
        equal = [g.op("Equal", new, n) for n, new in zip(old, grid, strict=True)]
        both = g.op("And", *equal)
        # torch's antialiased resize does not change an axis of equal length, whatever the scale.
        same = equal if rule.antialias else (both, both)
        rows, columns = (
            g.where(kept, g.op("Equal", g.range(new).unsqueeze(1), g.range(n)).as_float(), matrix)
            for kept, matrix, n, new in zip(same, (rows, columns), old, grid, strict=True)
        )
    lines = rows @ stored.reshape(old[0], old[1] * channels)  # (h, w_old * C)
    resampled = (columns @ lines.reshape(-1, old[1], channels)).reshape(1, -1, channels)  # (1, N, C)
    if not rule.keep_equal_count:
        return resampled
    num_stored = old[0] * old[1]
    num_patches = grid[0] * grid[1]
    kept = stored.take(g.op("Min", g.range(num_patches), num_stored - 1), 0)  # (N, C)
    return g.where(g.op("Equal", num_patches, num_stored), kept, resampled)


def rotary(writer: Writer, rule: RotaryPositions, grid: Extent, head_dim: int) -> tuple[Value, Value]:
    """``rotary_angles``: sine and cosine (N, D) for the patches of a grid."""
    g = writer.graph
    quarter = head_dim // 4
    periods = np.float32(rule.base) ** (np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    shape = g.dims(*grid, quarter)

    def angles(length: Value, axis: int) -> Value:
        points, turn = g.range(length).as_float(), 1.0
        if rule.coordinates == "centres":
            points, turn = (points + 0.5) / length.as_float() * 2.0 - 1.0, 2 * math.pi
        else:
            points = points + rule.index_offset if rule.index_offset else points
            points = points if rule.stretch_to is None else points / length.as_float() * float(rule.stretch_to[axis])
        frequencies = g.constant((turn / periods).astype(np.float32))
        return g.op("Expand", points.unsqueeze(*((1, 2) if axis == 0 else (0, 2))) * frequencies, shape)

    y, x = angles(grid[0], 0), angles(grid[1], 1)  # (h, w, D / 4)
    once = (y, x) if rule.order == "yx" else (x, y)
    if rule.pairs == "halves":
        joined = g.concat([*once, *once], -1).reshape(-1, head_dim)
    else:
        single = g.concat(list(once), -1).reshape(-1, head_dim // 2, 1)
        joined = g.concat([single, single], -1).reshape(-1, head_dim)
    return g.op("Sin", joined), g.op("Cos", joined)


def hybrid(writer: Writer, embed: HybridEmbed, images: Value) -> tuple[Value, tuple[Value, ...]]:
    """``HybridEmbed``: a map (B, C, H / 16, W / 16), and the maps at strides 4 and 8."""
    g = writer.graph
    x = g.op("Relu", writer.group_norm(_std_conv(writer, images, embed.stem_conv), embed.stem_norm))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    maps = []
    for stage in embed.stages:
        assert isinstance(stage, nn.Sequential)
        for bottleneck in stage:
            assert isinstance(bottleneck, Bottleneck)
            x = _bottleneck(writer, x, bottleneck)
        maps.append(x)
    return writer.conv(x, embed.proj), tuple(maps[:2])


def _bottleneck(writer: Writer, x: Value, block: Bottleneck) -> Value:
    g = writer.graph
    y = g.op("Relu", writer.group_norm(_std_conv(writer, x, block.conv1), block.norm1))
    y = g.op("Relu", writer.group_norm(_std_conv(writer, y, block.conv2), block.norm2))
    y = writer.group_norm(_std_conv(writer, y, block.conv3), block.norm3)
    shortcut = block.downsample
    if not isinstance(shortcut, nn.Identity):
        x = writer.group_norm(_std_conv(writer, x, shortcut.conv), shortcut.norm)
    return g.op("Relu", y + x)


def _std_conv(writer: Writer, x: Value, conv: StdConv) -> Value:
    """Sides are multiples of the stride here, so that the padding is ``kernel - stride``, the odd pixel below."""
    total = max(conv.kernel_size[0] - conv.stride[0], 0)
    before = total // 2
    pads = (before, before, total - before, total - before)
    return writer.conv(x, conv, weight=conv.standardised(), pads=pads)
