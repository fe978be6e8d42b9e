"""The decoders as operators of a graph: taps to logits (B, K, h', w')."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import nn

from densevit.decoders import Decoder
from densevit.decoders.dpt import Dpt, Fusion, Reassemble
from densevit.decoders.dpt_heads import DepthHead
from densevit.decoders.linear import EVEN_SHARE, LinearDecoder
from densevit.decoders.segmenter import SegmenterLinear, SegmenterMask
from densevit.decoders.setr import SetrMla, SetrNaive, SetrPup, UpHead
from densevit.errors import ConfigError
from densevit.export.builder import Value
from densevit.export.encoder import GraphTaps
from densevit.export.layers import Writer, map_of
from densevit.export.resampling import Extent, averaging, resize, upsample_by
from densevit.layers import ConvBnRelu, Detail, StridedConv


@dataclass(frozen=True)
class Levels:
    """The taps that one decoder reads, in its order.

    Attributes:
        tokens: each (B, N, C).
        prefix: each (B, P, C).
        grid: (h, w) in patches.
        image_size: (H, W) of the resized image, in pixels.
        stem_maps: of a convolutional stem, finest first.
        image: normalised, (B, channels, H, W).
        embed_dim: C.
    """

    tokens: tuple[Value, ...]
    prefix: tuple[Value, ...]
    grid: Extent
    image_size: Extent
    stem_maps: tuple[Value, ...]
    image: Value
    embed_dim: int

    @classmethod
    def of(cls, taps: GraphTaps, blocks: tuple[int, ...], embed_dim: int) -> "Levels":
        """The taps after some blocks; of a decoder that reads only the last, the others may be missing."""
        kept = tuple(block for block in blocks if block in taps.tokens)
        tokens, prefix = (tuple(found[block] for block in kept) for found in (taps.tokens, taps.prefix))
        return cls(tokens, prefix, taps.grid, taps.image_size, taps.stem_maps, taps.image, embed_dim)

    def map(self, writer: Writer, level: int, norm: nn.Module) -> Value:
        """A tap after a LayerNorm, as a map (B, C, h, w)."""
        return map_of(writer.layer_norm(self.tokens[level], norm), self.grid, self.embed_dim)


def decode(writer: Writer, decoder: Decoder, levels: Levels) -> Value:
    """The logits of a decoder.

    Raises:
        ConfigError: if it is none of densevit's own.
    """
    write = _WRITERS.get(type(decoder))
    if write is None:
        raise ConfigError(
            f"decoder {type(decoder).__name__} comes from outside densevit and cannot be exported; those of "
            f"{', '.join(known.__name__ for known in _WRITERS)} can"
        )
    return write(writer, decoder, levels)


def segmenter_linear(writer: Writer, decoder: SegmenterLinear, levels: Levels) -> Value:
    """``SegmenterLinear``."""
    return map_of(writer.linear(levels.tokens[-1], decoder.head), levels.grid, decoder.head.out_features)


def segmenter_mask(writer: Writer, decoder: SegmenterMask, levels: Levels) -> Value:
    """``SegmenterMask``."""
    g = writer.graph
    _, num_classes, width = decoder.class_tokens.shape
    x = writer.linear(levels.tokens[-1], decoder.proj_dec)  # (B, N, C)
    num_patches = x.size(1)
    classes = writer.tensor(decoder, "class_tokens", decoder.class_tokens)
    x = g.concat([x, g.op("Expand", classes, g.dims(x.size(0), num_classes, width))], 1)  # (B, N + K, C)
    for block in decoder.blocks:
        x = writer.block(x, block)
    x = writer.layer_norm(x, decoder.norm)
    patches = writer.normalised(writer.linear(x.slice(1, 0, num_patches), decoder.proj_patch))  # (B, N, C)
    masks = writer.normalised(writer.linear(x.slice(1, num_patches), decoder.proj_classes))  # (B, K, C)
    logits = writer.layer_norm(patches @ masks.transpose(0, 2, 1), decoder.mask_norm)  # (B, N, K)
    return map_of(logits, levels.grid, num_classes)


def up_head(writer: Writer, head: UpHead, levels: Levels) -> Value:
    """``UpHead`` on the last tap."""
    x = levels.map(writer, -1, head.norm)
    *first, last = head.convs
    corners = head.align_corners
    for conv in first:
        x = upsample_by(writer.conv_bn_relu(x, conv), head.up_scale, align_corners=corners)
    x = writer.conv(writer.conv_bn_relu(x, last), head.classifier)
    return upsample_by(x, head.up_scale, align_corners=corners)


def setr(writer: Writer, decoder: SetrNaive | SetrPup, levels: Levels) -> Value:
    """``SetrNaive`` and ``SetrPup``."""
    return up_head(writer, decoder.head, levels)


def setr_mla(writer: Writer, decoder: SetrMla, levels: Levels) -> Value:
    """``SetrMla``."""
    g = writer.graph
    in_streams = decoder.form == "paper"
    total: Value | None = None
    streams: list[Value] = []
    for level in reversed(range(len(decoder.norms))):
        lateral = writer.conv_bn_relu(levels.map(writer, level, decoder.norms[level]), decoder.laterals[level])
        total = lateral if total is None else total + lateral
        x = writer.conv_bn_relu(total, decoder.smooths[level])
        stream = decoder.streams[level]
        assert isinstance(stream, nn.Sequential)
        for conv in stream:
            x = writer.conv_bn_relu(x, conv)
        streams.append(upsample_by(x, 4, align_corners=True) if in_streams else x)
    joined = writer.conv(g.concat(streams[::-1], 1), decoder.classifier)
    return joined if in_streams else upsample_by(joined, 4, align_corners=decoder.align_corners)


def dpt(writer: Writer, decoder: Dpt, levels: Levels) -> Value:
    """``Dpt``."""
    maps = list(levels.stem_maps[: decoder.num_stem])
    for level, module in enumerate(decoder.reassemble):
        assert isinstance(module, Reassemble)
        maps.append(_reassemble(writer, module, levels, level))
    features = [writer.conv(x, cast(nn.Conv2d, conv)) for x, conv in zip(maps, decoder.convs, strict=True)]
    fine: Value | None = None
    if decoder.detail is not None:
        fine, coarse = _detail(writer, decoder.detail, levels.image)
        features[0] = features[0] + resize(coarse, (features[0].size(2), features[0].size(3)), align_corners=False)
    path: Value | None = None
    for level in (3, 2, 1, 0):
        fusion = decoder.fusions[level]
        assert isinstance(fusion, Fusion)
        path = _fuse(writer, fusion, features[level], path, doubling=decoder.fusion_up_to == "double")
        if level == 0 or decoder.fusion_up_to == "double":
            path = upsample_by(path, 2, align_corners=True)
        else:
            finer = features[level - 1]
            path = resize(path, (finer.size(2), finer.size(3)), align_corners=True)
    assert path is not None
    if fine is not None and decoder.detail is not None:
        fine = resize(fine, (path.size(2), path.size(3)), align_corners=False)
        path = path + writer.conv(fine, decoder.detail.project_fine)
    return _dpt_head(writer, decoder.head, path, levels)


def _detail(writer: Writer, detail: Detail, image: Value) -> tuple[Value, Value]:
    """``Detail``."""
    fine = image
    for conv in detail.fine:
        fine = writer.conv_bn_relu(fine, conv)
    coarse = fine
    for conv in detail.coarse:
        coarse = writer.conv_bn_relu(coarse, conv)
    return fine, writer.conv(coarse, detail.project_coarse)


def _reassemble(writer: Writer, module: Reassemble, levels: Levels, level: int) -> Value:
    g = writer.graph
    tokens, prefix = (writer.layer_norm(x, module.norm) for x in (levels.tokens[level], levels.prefix[level]))
    if module.readout == "add":
        read = prefix.slice(1, 0, module.num_readout)
        tokens = tokens + g.op("ReduceMean", read, g.ints(1), keepdims=1)
    elif module.readout == "project":
        repeated = g.op("Expand", prefix.slice(1, 0, 1), g.op("Shape", tokens))
        pairs = g.concat([tokens, repeated], -1)  # (B, N, 2 C)
        tokens = g.op("Gelu", writer.linear(pairs, module.readout_project))
    x = map_of(tokens, levels.grid, levels.embed_dim)
    if module.pool > 1:
        rows, columns = (averaging(n, (n + (module.pool - 1)) // module.pool) for n in levels.grid)
        x = rows @ x @ columns.transpose(1, 0)
    return _resampled(writer, writer.conv(x, module.project), module.resample)


def _resampled(writer: Writer, x: Value, resample: nn.Module) -> Value:
    """``learned_resampling``."""
    if isinstance(resample, nn.ConvTranspose2d):
        return writer.conv_transpose(x, resample)
    if isinstance(resample, StridedConv):
        return writer.conv(x, resample, pads=(1, 1, 1, 1))
    assert isinstance(resample, nn.Identity)
    return x


def _fuse(writer: Writer, fusion: Fusion, level: Value, path: Value | None, *, doubling: bool) -> Value:
    if fusion.skip_unit is None:
        x = level
    elif path is None:
        x = writer.residual_unit(level, fusion.skip_unit)
    else:
        # Unless fusions double, the path has just been resized to this level.
        skip = resize(level, (path.size(2), path.size(3)), align_corners=False) if doubling else level
        x = path + writer.residual_unit(skip, fusion.skip_unit)
    return writer.conv(writer.residual_unit(x, fusion.unit), fusion.project)


def _dpt_head(writer: Writer, head: Any, x: Value, levels: Levels) -> Value:
    g = writer.graph
    if isinstance(getattr(head, "conv", None), ConvBnRelu):  # segmentation
        return writer.conv(writer.conv_bn_relu(x, head.conv), head.classifier)
    config = head.config
    if head.projection is not None:
        x = g.op("Relu", writer.conv(x, head.projection))
    x = writer.conv(x, head.conv1)  # (B, F / 2, h', w')
    if config.up_to == "image":
        x = resize(x, levels.image_size, align_corners=True)
    else:
        x = upsample_by(x, 2, align_corners=True)
    x = writer.conv(g.op("Relu", writer.conv(x, head.conv2)), head.conv3)
    if not isinstance(config, DepthHead):
        return x
    if config.activation == "relu":
        x = g.op("Relu", x)
        x = x + config.min_depth_m if config.min_depth_m else x
    elif config.activation == "sigmoid":
        x = g.op("Sigmoid", x) * config.max_depth_m
    elif config.activation == "exp":
        x = g.op("Exp", x)
    if config.limit_m is not None:
        x = g.op("Min", x, config.limit_m)
    return 1.0 / g.op("Max", x * config.scale + config.shift, 1e-8) if config.invert else x


def linear(writer: Writer, decoder: LinearDecoder, levels: Levels) -> Value:
    """``LinearDecoder``."""
    g, parts = writer.graph, list[Value]()
    for tokens, prefix in zip(levels.tokens, levels.prefix, strict=True):
        parts.append(tokens)
        if decoder.class_token:
            parts.append(g.op("Expand", prefix.slice(1, 0, 1), g.op("Shape", tokens)))
    scores = writer.linear(g.concat(parts, 2), decoder.head)  # (B, N, K)
    x = map_of(scores, levels.grid, decoder.head.out_features)
    x = upsample_by(x, decoder.up_scale) if decoder.up_scale > 1 else x
    if (bins := decoder.bins) is None:
        return x
    weights = g.op("Relu", x) + EVEN_SHARE
    depths = g.constant(np.linspace(bins.min_depth_m, bins.max_depth_m, bins.num_bins, dtype=np.float32)[:, None, None])
    return (weights * depths).sum(1) / weights.sum(1)


_WRITERS: dict[type[Decoder], Callable[[Writer, Any, Levels], Value]] = {
    SetrNaive: setr,
    SetrPup: setr,
    SetrMla: setr_mla,
    SegmenterLinear: segmenter_linear,
    SegmenterMask: segmenter_mask,
    Dpt: dpt,
    LinearDecoder: linear,
}
"""Class -> function that writes it."""
