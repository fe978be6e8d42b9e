"""The C kernel of ``decode.c``: compiled once, on the first use on a machine, and never required."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densevit.kernels import build
from densevit.upsampling.neighbours import neighbours

_PER_THREAD = 2_000_000
"""Values, pixels times classes, below which another thread does not pay."""


def decode(
    logits: Tensor, *, align_corners: bool, labels: Tensor, scores: Tensor | None, entropy: Tensor | None
) -> bool:
    """Fill labels (H, W), and scores and entropy (H, W) where given, from logits (K, h, w) on the CPU.

    Returns:
        False, and nothing is filled, where there is no kernel.
    """
    library = load()
    if library is None or logits.requires_grad:
        return False
    source = logits.float()
    classes, height, width = (source.shape[0], *labels.shape)
    lanes = library.densevit_lanes()
    padded = -(-classes // lanes) * lanes
    y0, y1, wy = neighbours(source.shape[1], height, align_corners, source.device)
    x0, x1, wx = neighbours(source.shape[2], width, align_corners, source.device)
    small = labels.dtype == torch.uint8

    def rows(first: int, last: int) -> None:
        line = torch.empty(source.shape[2] * padded, dtype=torch.float32, device=source.device)
        library.densevit_decode(
            *(_at(source), source.stride(0), source.stride(1), source.stride(2)),
            *(source.shape[2], classes, padded, width),
            *map(_at, (y0, y1, wy, x0, x1, wx)),
            *(first, last, _at(line), _at(labels if small else None), _at(None if small else labels)),
            *(_at(scores), _at(entropy)),
        )

    threads = min(torch.get_num_threads(), height, max(1, height * width * classes // _PER_THREAD))
    if threads == 1:
        rows(0, height)
        return True
    bounds = [height * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        list(pool.map(rows, bounds[:-1], bounds[1:]))
    return True


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    library = build.library(Path(__file__).with_name("decode.c"), "upsampling runs in plain torch, which is slower")
    if library is not None:
        pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        arguments: list[Any] = [pointer, *[long] * 3, *[integer] * 4, *[pointer] * 6, *[integer] * 2, *[pointer] * 5]
        library.densevit_lanes.restype = integer
        library.densevit_decode.restype, library.densevit_decode.argtypes = None, arguments
    return library


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
