"""Float32 linear layers by oneDNN, on processors for which MKL, torch's choice, has no AVX-512 code; see ADR 0011."""

import math
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels.dispatch import use_kernel

_ROW_MULTIPLE = 4
"""oneDNN divides rows into equal blocks: 577 rows run at three quarters of the rate of 580, so rows are padded."""
_MANY_ROWS = 1000
"""From here on an odd number of rows costs less than the copy that padding needs."""


class Linear(nn.Linear):
    """``nn.Linear`` that may use oneDNN in CPU inference, which changes only rounding."""

    def forward(self, x: Tensor, *, gelu: bool = False) -> Tensor:
        """(..., in_features) -> (..., out_features); with ``gelu`` followed by GELU, in place where oneDNN runs."""
        product = onednn_product() if use_kernel(x, self.weight) and x.numel() else None
        if product is None:
            x = super().forward(x)
            return F.gelu(x) if gelu else x
        rows = x.numel() // self.in_features
        activation = "gelu" if gelu else "none"
        out: Tensor
        if rows % _ROW_MULTIPLE == 0 or rows > _MANY_ROWS:
            out = product(x, self.weight, self.bias, activation, [], "none")
            return out
        padded = F.pad(x.reshape(rows, -1), (0, 0, 0, -rows % _ROW_MULTIPLE))
        out = product(padded, self.weight, self.bias, activation, [], "none")[:rows]
        return out.unflatten(0, x.shape[:-1])


@cache
def onednn_product() -> Any | None:
    """oneDNN's linear operator, or None where it is missing or MKL is as fast.

    MKL has AVX-512 code for Intel's processors and runs AVX2 code on others.
    """
    available = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    if not available or torch.backends.cpu.get_cpu_capability() != "AVX512" or "GenuineIntel" in _vendor():
        return None
    return torch.ops.mkldnn._linear_pointwise


def _vendor() -> str:
    """Text that names the processor's vendor."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()


def flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Floating-point operations, from the shapes of input and weight."""
    return int(2 * math.prod(x[:-1]) * weight[0] * weight[1])
