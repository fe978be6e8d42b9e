"""Upsampling and decoding on the CPU by the C kernel of ``decode.c``."""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from densevit.errors import ShapeError
from densevit.kernels.build import INT, LONG, MAX_SIZE, POINTER, Signatures, checked, countable, library
from densevit.kernels.dispatch import ordinary
from densevit.kernels.threads import parallel_for
from densevit.upsampling.neighbours import neighbours

_VALUES_PER_THREAD = 2_000_000
"""Pixels times classes below which another thread costs more than it saves."""


def decode(
    logits: Tensor, *, align_corners: bool, labels: Tensor, scores: Tensor | None, entropy: Tensor | None
) -> bool:
    """Fill labels (H, W), and scores and entropy (H, W) where given, from logits (K, h, w) on the CPU.

    Returns:
        False, with nothing filled, if there is no kernel, or some logits are not finite.

    Raises:
        ShapeError: if there are no logits, or an output has another type, size or device.
    """
    kernel = load()
    if kernel is None or logits.requires_grad:
        return False
    (classes, h, w), (height, width) = logits.shape, labels.shape
    if not countable(logits, labels):
        raise ShapeError(
            f"logits are {tuple(logits.shape)} and labels {tuple(labels.shape)}, but sizes are 1 to {MAX_SIZE}"
        )
    source = checked(logits.float().resolve_neg(), torch.float32, classes, h, w, contiguous=False)
    if not ordinary(source):
        return False
    checked(labels, torch.uint8 if classes <= 256 and labels.dtype == torch.uint8 else torch.int32, height, width)
    for values in (scores, entropy):
        if values is not None:
            checked(values, torch.float32, height, width)
    lanes = kernel.densevit_lanes()
    padded = -(-classes // lanes) * lanes
    rows = neighbours(h, height, align_corners, source.device)
    columns = neighbours(w, width, align_corners, source.device)
    labels8, labels32 = (labels, None) if labels.dtype == torch.uint8 else (None, labels)

    def decode_rows(start: int, stop: int) -> None:
        line = torch.empty(w * padded, dtype=torch.float32, device=source.device)
        kernel.densevit_decode(
            *(source.data_ptr(), *source.stride(), w, classes, padded, width),
            *map(_address, (*rows, *columns)),
            *(start, stop, line.data_ptr()),
            *map(_address, (labels8, labels32, scores, entropy)),
        )

    parallel_for(decode_rows, height, max_threads=max(1, height * width * classes // _VALUES_PER_THREAD))
    return True


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None if it cannot be built."""
    signatures: Signatures = {
        "densevit_lanes": (INT, []),
        "densevit_decode": (None, [POINTER, *[LONG] * 3, *[INT] * 4, *[POINTER] * 6, INT, INT, *[POINTER] * 5]),
    }
    return library(Path(__file__).with_name("decode.c"), "upsampling runs in plain torch, which is slower", signatures)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
