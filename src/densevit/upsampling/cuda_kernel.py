# mypy: disable-error-code="no-untyped-def, untyped-decorator, attr-defined"
"""The Triton kernel: each program decodes a run of pixels of a row in one pass over the classes.

Source: the online softmax of Milakov and Gimelshein 2018, which needs no second pass.
"""

import triton
import triton.language as tl

INFINITY = tl.constexpr(float("inf"))


@triton.jit
def lerp(first, second, weight):
    """As ``lerp_infinite``: NaN counts with any weight, an infinite value not with a weight of 0."""
    mixed = first + (second - first) * weight
    left = tl.where(weight < 1.0, first, 0.0)
    right = tl.where(weight > 0.0, second, 0.0)
    return tl.where((tl.abs(first) == INFINITY) | (tl.abs(second) == INFINITY), left + right, mixed)


@triton.jit
def decode_pixels(
    logits, class_stride, y_stride, x_stride, y0, y1, wy, x0, x1, wx, width, classes, per_log_classes,
    labels, scores, entropy,
    want_scores: tl.constexpr, want_entropy: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Decode run ``program_id(1)`` of row ``program_id(0)``: labels, and scores and entropy on request.

    Takes logits (classes, h, w) by strides, and per new row and column the two old ones and the weight of the second.
    """
    y = tl.program_id(0)
    x = tl.program_id(1) * block + tl.arange(0, block)
    inside = x < width
    left = tl.load(x0 + x, mask=inside, other=0) * x_stride
    right = tl.load(x1 + x, mask=inside, other=0) * x_stride
    across = tl.load(wx + x, mask=inside, other=0.0)
    upper = tl.load(y0 + y) * y_stride
    lower = tl.load(y1 + y) * y_stride
    down = tl.load(wy + y)
    plane = logits
    best = tl.full((block,), -INFINITY, tl.float32)
    label = tl.zeros((block,), tl.int32)
    total = tl.zeros((block,), tl.float32)
    moment = tl.zeros((block,), tl.float32)  # sum of p * log p before normalisation
    for k in range(classes):
        a = tl.load(plane + upper + left, mask=inside, other=0.0).to(tl.float32)
        b = tl.load(plane + upper + right, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(plane + lower + left, mask=inside, other=0.0).to(tl.float32)
        d = tl.load(plane + lower + right, mask=inside, other=0.0).to(tl.float32)
        value = lerp(lerp(a, c, down), lerp(b, d, down), across)
        more = (value > best) | ((value != value) & (best == best))  # NaN is the largest, and the first one stays
        if want_scores or want_entropy:
            top = tl.where(more, value, best)
            # e to the power of -87 vanishes in any float sum; inf - inf is NaN and becomes -87 as well.
            step = tl.where(best - top > -87.0, best - top, -87.0)
            below = tl.where(value - top > -87.0, value - top, -87.0)
            shrink, power = tl.exp(step), tl.exp(below)
            moment = (moment + total * step) * shrink + power * below
            total = total * shrink + power
        label = tl.where(more, k, label)
        best = tl.where(more, value, best)
        plane += class_stride
    pixel = y.to(tl.int64) * width + x
    tl.store(labels + pixel, label.to(labels.dtype.element_ty), mask=inside)
    undefined = tl.where(tl.abs(best) < INFINITY, 0.0, float("nan"))  # added where the softmax is
    if want_scores:
        tl.store(scores + pixel, 1.0 / total + undefined, mask=inside)
    if want_entropy:
        tl.store(entropy + pixel, (tl.log(total) - moment / total) * per_log_classes + undefined, mask=inside)
