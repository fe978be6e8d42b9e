"""Logits to what a task predicts, at the size of the photo."""

from densevit.export.builder import FLOAT, INT32, UINT8, UINT16, Graph, Loop, Value
from densevit.export.resampling import Extent, Triangles, band, bands, resize

BAND_VALUES = 4_000_000
"""Floats of upsampled logits that exist at once, at least a row; K x H x W of them would be gigabytes."""


COLUMNS = 128
"""Columns that are upsampled by one matrix product."""


def label_type(num_classes: int, *, sixteen_bits: bool) -> int:
    """The smallest type for so many classes that an engine has."""
    if num_classes <= 256:
        return UINT8
    return UINT16 if sixteen_bits else INT32


def labels_and_scores(
    logits: Value, size: Extent, *, align_corners: bool, dtype: int, scores: bool
) -> tuple[Value, ...]:
    """Logits (B, K, h, w) -> labels (B, H, W), and on request the probability of each, band by band of rows."""
    g = logits.graph
    height, width = size
    x = logits.transpose(0, 2, 3, 1)  # (B, h, w, K)
    batch, num_classes = x.size(0), x.size(3)
    vertical, horizontal = (
        Triangles(x.size(axis), new, align_corners=align_corners) for axis, new in ((1, height), (2, width))
    )
    across = bands(horizontal, COLUMNS)
    rows = g.op("Min", g.op("Max", BAND_VALUES // (batch * width * num_classes), 1), height)
    with Loop(g) as loop:
        first = loop.index * rows
        down = band(vertical, first + g.range(rows), first, rows)  # (rows, S)
        lines = x.take(down.sources, 1)  # (B, S, w, K)
        lines = (down.weights @ lines.reshape(0, 0, -1)).reshape(0, 0, -1, num_classes)  # (B, rows, w, K)
        # Columns are last, since both the product and OpenVINO's arg max are fastest over rows of them.
        sources = lines.take(across.sources, 2).transpose(0, 1, 2, 4, 3)  # (B, rows, blocks, K, S)
        upsampled = sources @ across.weights.transpose(0, 2, 1)  # (B, rows, blocks, K, COLUMNS)
        best = g.op("Cast", g.op("ArgMax", upsampled, axis=3, keepdims=0), to=dtype)
        loop.outputs = (best, _probability(upsampled, 3)) if scores else (best,)
    shape = [None, None, None, None]
    types = [(dtype, shape), (FLOAT, shape)] if scores else [(dtype, shape)]
    found = g.loop((height + rows - 1) // rows, loop, types)  # each (bands, B, rows, blocks, COLUMNS)
    padded = g.dims(batch, -1, across.sources.size(0) * COLUMNS)
    return tuple(
        g.op("Reshape", stacked.transpose(1, 0, 2, 3, 4), padded).slice(1, 0, height).slice(2, 0, width)
        for stacked in found
    )


def _probability(logits: Value, axis: int) -> Value:
    """Softmax probability of the largest along an axis."""
    g = logits.graph
    highest = g.op("ReduceMax", logits, g.ints(axis), keepdims=1)
    return 1.0 / g.op("ReduceSum", g.op("Exp", logits - highest), g.ints(axis), keepdims=0)


def values(logits: Value, size: Extent, *, align_corners: bool, unit_vectors: bool = False) -> Value:
    """Values (B, C, h, w) -> (B, C, H, W), of length 1 over the channels on request."""
    g: Graph = logits.graph
    resized = resize(logits, size, align_corners=align_corners)
    if not unit_vectors:
        return resized
    length = g.op("ReduceL2", resized, g.ints(1), keepdims=1)
    return resized / g.op("Max", length, 1e-12)
