"""Large intermediate results in memory that is reused: fresh pages cost a small ViT a tenth of its time."""

import math
import threading

import torch
from torch import Tensor

_LARGEST = 2**28
"""Bytes of a buffer that is kept; larger ones are allocated and freed."""

_kept = threading.local()


def buffer(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uninitialised memory on the CPU, which this thread's next call with the same name hands out again.

    Only for what its caller has consumed before it returns: a result that anybody may keep needs memory of its own.
    """
    size = math.prod(shape)
    if size * dtype.itemsize > _LARGEST:
        return torch.empty(shape, dtype=dtype, device="cpu")
    kept: Tensor | None = getattr(_kept, f"{name} {dtype}", None)
    if kept is None or len(kept) < size:
        kept = torch.empty(size, dtype=dtype, device="cpu")
        setattr(_kept, f"{name} {dtype}", kept)
    return kept[:size].view(shape)
