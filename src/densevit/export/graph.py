"""The whole graph: uint8 photos (B, H, W, 3) of any size -> labels, depth or values of their size, for every head.

It computes what ``predict_logits`` does for images that are run whole and once: heads that see images at the same size
share an encoder pass.
"""

from collections.abc import Sequence

import numpy as np

from densevit.checkpoints.native import Bundle
from densevit.errors import ConfigError
from densevit.export.builder import FLOAT, UINT8, Graph, Value
from densevit.export.decoders import Levels, decode
from densevit.export.encoder import encode
from densevit.export.layers import Writer
from densevit.export.outputs import label_type, labels_and_scores, values
from densevit.export.resampling import Extent, antialiased
from densevit.inference_config import InferenceConfig
from densevit.model import DenseModel
from densevit.tasks import Depth, Regression, Segmentation, Task
from densevit_runtime.metadata import INPUT


def build_graph(
    bundle: Bundle, fit: InferenceConfig, heads: Sequence[str], *, scores: bool, sixteen_bits: bool
) -> Graph:
    """Write the graph of some heads.

    Args:
        bundle: the model, in evaluation mode, and its tasks.
        fit: how images are run: whole and once.
        heads: their names, in the order of the outputs.
        scores: whether segmentation heads have an output of scores.
        sixteen_bits: whether the engine has uint16.

    Raises:
        ConfigError: if a part of the model cannot be exported.
    """
    check_exportable(bundle, heads)
    g = Graph()
    photos = g.input(INPUT, UINT8, ["B", "H", "W", 3])
    size = (photos.size(1), photos.size(2))
    writer = Writer(g, bundle.model)
    found: dict[str, tuple[Value, ...]] = {}
    for group, names in fit.groups(heads):
        with g.scope("+".join(names)):
            for name, logits in _run_group(writer, bundle.model, photos, size, group, names).items():
                corners = bundle.model.decoder(name).align_corners
                found[name] = _outputs(logits, size, bundle.tasks[name], corners, scores, sixteen_bits)
    for name in heads:
        _declare(g, name, bundle.tasks[name], found[name], sixteen_bits)
    return g


def check_exportable(bundle: Bundle, heads: Sequence[str]) -> None:
    """Refuse what a graph cannot hold.

    Raises:
        ConfigError: naming it.
    """
    model = bundle.model
    if model.encoder.merging is not None:
        raise ConfigError("token merging cannot be exported: its sizes depend on the image; switch merging off")
    if (channels := model.config.encoder.in_channels) != 3:
        raise ConfigError(f"the model takes images of {channels} channels, but exported files take RGB photos")
    for head in heads:
        task = bundle.tasks[head]
        if not isinstance(task, Segmentation | Depth | Regression):
            raise ConfigError(
                f"head {head!r} has task {task.kind!r}, which comes from outside densevit and cannot be exported; "
                "choose others with --head"
            )


def _run_group(
    writer: Writer, model: DenseModel, photos: Value, size: Extent, config: InferenceConfig, heads: tuple[str, ...]
) -> dict[str, Value]:
    """The logits of heads that share an encoder pass."""
    patch_size = model.config.encoder.patch_size
    grid = _grid(size, config, patch_size)
    input_size = (grid[0] * patch_size[0], grid[1] * patch_size[1])
    images = _normalised(model, antialiased(photos, size, input_size))
    taps = encode(writer, model.encoder, images, grid, set(model.needed_blocks(heads)))
    width = model.config.encoder.embed_dim
    return {
        head: decode(writer, model.decoder(head), Levels.of(taps, model.config.head_taps(head), width))
        for head in heads
    }


def _grid(size: Extent, config: InferenceConfig, patch_size: tuple[int, int]) -> Extent:
    """``InferenceConfig.input_size`` in patches."""
    g = size[0].graph
    shorter, longer = g.op("Min", *size), g.op("Max", *size)
    # The scale is the smaller one of short_side / shorter and max_long_side / longer.
    is_long = g.op("Greater", config.short_side * longer, config.max_long_side * shorter)
    numerator = g.where(is_long, config.max_long_side, config.short_side)
    denominator = g.where(is_long, longer, shorter)
    height, width = (
        g.op("Max", _rounded(side * numerator, denominator * patch), 1)
        for side, patch in zip(size, patch_size, strict=True)
    )
    return height, width


def _rounded(numerator: Value, denominator: Value) -> Value:
    """The quotient, rounded; halves become even."""
    g = numerator.graph
    whole = numerator // denominator
    twice = 2 * (numerator - whole * denominator)
    is_odd = g.op("Equal", whole - whole // 2 * 2, 1)
    is_tie = g.op("Equal", twice, denominator)
    up = g.op("Or", g.op("Greater", twice, denominator), g.op("And", is_tie, is_odd))
    return whole + up.as_int()


def _normalised(model: DenseModel, pixels: Value) -> Value:
    """Pixels (B, 3, H, W) in 0..255 -> what the encoder takes."""
    g = pixels.graph
    mean, std = (getattr(model, name).detach().double().cpu().numpy()[0] for name in ("mean", "std"))
    factor, shift = (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
    return pixels * g.constant(factor) - g.constant(shift)


def _outputs(
    logits: Value, size: Extent, task: Task, align_corners: bool, scores: bool, sixteen_bits: bool
) -> tuple[Value, ...]:
    if isinstance(task, Segmentation):
        dtype = label_type(task.out_channels, sixteen_bits=sixteen_bits)
        return labels_and_scores(logits, size, align_corners=align_corners, dtype=dtype, scores=scores)
    if isinstance(task, Regression):
        return (values(logits, size, align_corners=align_corners, unit_vectors=task.unit_vectors),)
    resized = values(logits, size, align_corners=align_corners)
    return (logits.graph.op("Squeeze", resized, logits.graph.ints(1)),)


def _declare(g: Graph, head: str, task: Task, found: tuple[Value, ...], sixteen_bits: bool) -> None:
    shape = ["B", "H", "W"]
    if isinstance(task, Segmentation):
        g.output(head, found[0], label_type(task.out_channels, sixteen_bits=sixteen_bits), shape)
        for value in found[1:]:
            g.output(f"{head}.scores", value, FLOAT, shape)
    elif isinstance(task, Regression):
        g.output(head, found[0], FLOAT, ["B", task.out_channels, "H", "W"])
    else:
        g.output(head, found[0], FLOAT, shape)
