"""How unsure a head is of an image: the figure by which the heads of a model are compared."""

import math

from densevit.export.builder import Value
from densevit.export.resampling import resize
from densevit.inference.decode import ENTROPY_POINTS


def mean_entropy(logits: Value, *, num_classes: int, align_corners: bool) -> Value:
    """Logits (B, K, h, w) -> (B): mean entropy of the softmax over log K, as ``inference.decode.mean_entropy``."""
    g = logits.graph
    height, width = (g.op("Min", logits.size(axis), ENTROPY_POINTS) for axis in (2, 3))
    points = resize(logits, (height, width), align_corners=align_corners)
    each = g.op("Softmax", points, axis=1) * g.op("LogSoftmax", points, axis=1)
    total = g.op("ReduceSum", each, g.ints(1), keepdims=0)  # (B, h', w')
    largest = math.log(num_classes) if num_classes > 1 else 1.0
    return g.op("ReduceMean", total, g.ints(1, 2), keepdims=0) * (-1 / largest)
