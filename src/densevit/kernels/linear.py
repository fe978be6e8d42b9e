"""Linear layers in float32 by oneDNN, on processors for which MKL, torch's choice, lacks AVX-512 code; see ADR 0011."""

import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.dispatch import use_kernel

_ROWS = 4
"""oneDNN divides rows into equal blocks: 577 rows run at three quarters of the rate of 580."""
_MANY_ROWS = 1000
"""From here on a remainder weighs less than a copy of the input."""


class Linear(nn.Linear):
    """``nn.Linear``; in inference on the CPU perhaps by another library, which changes rounding alone."""

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in_features) -> (..., out_features), on request through GELU, which then needs no memory of its own."""
        product = onednn_product() if use_kernel(x, self.weight) and x.numel() else None
        if product is None:
            x = super().forward(x)
            return F.gelu(x) if gelu else x
        rows, act = x.numel() // self.in_features, "gelu" if gelu else "none"
        found: Tensor
        if rows % _ROWS == 0 or rows > _MANY_ROWS:
            found = product(x, self.weight, self.bias, act, [], "none")
            return found
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, -rows % _ROWS))
        found = product(padded, self.weight, self.bias, act, [], "none")[:rows]
        return found.unflatten(0, x.shape[:-1])


@cache
def onednn_product() -> Any | None:
    """oneDNN's linear layer, or None where it is not there or MKL is no slower.

    MKL has AVX-512 code for Intel's processors and gives others its AVX2 code.
    """
    has_it = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    if not has_it or torch.backends.cpu.get_cpu_capability() != "AVX512" or "GenuineIntel" in _vendor():
        return None
    return torch.ops.mkldnn._linear_pointwise


def _vendor() -> str:
    """Text in which the processor's maker is named."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()


def flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Operations, from the shapes of input and weights."""
    rows = 1
    for side in x[:-1]:
        rows *= side
    return int(2 * rows * weight[0] * weight[1])
