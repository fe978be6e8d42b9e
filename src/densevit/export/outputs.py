"""Logits to what a task predicts, at the size of the photo."""

from densevit.export.builder import FLOAT, INT64, Graph, Loop, TensorProto, Value
from densevit.export.resampling import Extent, neighbours, resize

BAND_VALUES = 4_000_000
"""Floats of upsampled logits that exist at once, at least a row; K x H x W of them would be gigabytes."""


def label_type(num_classes: int, *, sixteen_bits: bool) -> int:
    """The smallest type for so many classes that an engine has."""
    if num_classes <= 256:
        return int(TensorProto.UINT8)
    return int(TensorProto.UINT16 if sixteen_bits else TensorProto.INT32)


def labels_and_scores(
    logits: Value, size: Extent, *, align_corners: bool, dtype: int, scores: bool
) -> tuple[Value, ...]:
    """Logits (B, K, h, w) -> labels (B, H, W), and on request the probability of each, band by band of rows.

    Classes are last, so that a class's neighbours in memory are the other classes: both the gathering of neighbours and
    the arg max then read memory in order.
    """
    g = logits.graph
    height, width = size
    x = logits.transpose(0, 2, 3, 1)  # (B, h, w, K)
    batch, num_classes = x.size(0), x.size(3)
    top, bottom, down = neighbours(x.size(1), height, align_corners=align_corners)
    left, right, across = neighbours(x.size(2), width, align_corners=align_corners)
    across = across.unsqueeze(1)
    rows = g.op("Min", g.op("Max", BAND_VALUES // (batch * width * num_classes), 1), height)
    with Loop(g) as loop:
        at = g.op("Min", loop.index * rows + g.range(rows), height - 1)  # the last band may repeat the last row
        lines = _between(x.take(top.take(at, 0), 1), x.take(bottom.take(at, 0), 1), down.take(at, 0).unsqueeze(1, 2))
        band = _between(lines.take(left, 2), lines.take(right, 2), across)  # (B, rows, W, K)
        best = g.op("Cast", g.op("ArgMax", band, axis=3, keepdims=0), to=dtype)
        loop.outputs = (best, _probability(band)) if scores else (best,)
    shape = [None, None, None]
    types = [(dtype, shape), (FLOAT, shape)] if scores else [(dtype, shape)]
    bands = g.loop((height + rows - 1) // rows, loop, types)
    return tuple(
        stacked.transpose(1, 0, 2, 3).reshape(batch, -1, width).slice(1, 0, height)  # from (bands, B, rows, W)
        for stacked in bands
    )


def _between(first: Value, second: Value, share: Value) -> Value:
    return first + (second - first) * share


def _probability(band: Value) -> Value:
    """Softmax probability of the largest of (..., K)."""
    g = band.graph
    highest = g.op("ReduceMax", band, g.ints(-1), keepdims=1)
    return 1.0 / g.op("ReduceSum", g.op("Exp", band - highest), g.ints(-1), keepdims=0)


def values(logits: Value, size: Extent, *, align_corners: bool, unit_vectors: bool = False) -> Value:
    """Values (B, C, h, w) -> (B, C, H, W), of length 1 over the channels on request."""
    g: Graph = logits.graph
    resized = resize(logits, size, align_corners=align_corners)
    if not unit_vectors:
        return resized
    length = g.op("ReduceL2", resized, g.ints(1), keepdims=1)
    return resized / g.op("Max", length, 1e-12)


__all__ = ["BAND_VALUES", "INT64", "label_type", "labels_and_scores", "values"]
