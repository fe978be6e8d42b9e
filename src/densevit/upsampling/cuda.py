"""Upsampling and decoding on CUDA by the Triton kernel of ``cuda_kernel.py``; Triton comes with torch on Linux."""

import logging
import math
from functools import cache
from typing import Any

from torch import Tensor

from densevit.errors import ShapeError
from densevit.upsampling.neighbours import neighbours

_BLOCK = 256
"""Pixels of one Triton program."""

_log = logging.getLogger(__name__)


def decode(
    logits: Tensor, *, align_corners: bool, labels: Tensor, scores: Tensor | None, entropy: Tensor | None
) -> bool:
    """Fill labels (H, W), and scores and entropy (H, W) where given, from logits (K, h, w) on a CUDA device.

    Returns:
        False, with nothing filled, if Triton is missing.

    Raises:
        ShapeError: if an output has another type, size or device.
    """
    kernel = load()
    if kernel is None or logits.requires_grad:
        return False
    (classes, h, w), (height, width) = logits.shape, labels.shape
    for out in (labels, scores, entropy):
        if out is not None and (out.shape != labels.shape or out.device != logits.device or not out.is_contiguous()):
            raise ShapeError(f"outputs must be contiguous and {tuple(labels.shape)} on {logits.device}; make such ones")
    rows = neighbours(h, height, align_corners, logits.device)
    columns = neighbours(w, width, align_corners, logits.device)
    # A kernel argument cannot be None: labels stand in for outputs that are not written.
    kernel[(height, -(-width // _BLOCK))](
        *(logits, *logits.stride(), *rows, *columns, width, classes, 1 / math.log(max(classes, 2))),
        *(labels, labels if scores is None else scores, labels if entropy is None else entropy),
        want_scores=scores is not None,
        want_entropy=entropy is not None,
        block=_BLOCK,
    )
    return True


@cache
def load() -> Any:
    """The kernel, or None without Triton."""
    try:
        from densevit.upsampling.cuda_kernel import decode_pixels
    except ImportError:
        _log.warning("triton is not installed; upsampling on CUDA runs in plain torch, which is slower")
        return None
    return decode_pixels
