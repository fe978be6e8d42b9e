"""Float32 linear layers by a C kernel or oneDNN, on processors for which MKL, torch's choice, has no AVX-512 code.

See ADR 0011 and 0023.
"""

import math
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densevit.kernels import product
from densevit.kernels.activations import ACTIVATIONS, Activation
from densevit.kernels.dispatch import mkl_is_slow, use_kernel

_ROW_MULTIPLE = 4
"""oneDNN divides rows into equal blocks: 577 rows run at three quarters of the rate of 580, so rows are padded."""
_MANY_ROWS = 1000
"""From here on an odd number of rows costs less than the copy that padding needs."""


class Linear(nn.Linear):
    """``nn.Linear`` that may use a C kernel or oneDNN in CPU inference, which changes only rounding."""

    def forward(self, x: Tensor, *, activation: Activation | None = None) -> Tensor:
        """(..., in_features) -> (..., out_features), followed by an activation, which the kernels include."""
        fused = product.linear(x, self.weight, self.bias, activation=activation)
        if fused is not None:
            return fused
        onednn = onednn_product() if use_kernel(x, self.weight) and x.numel() else None
        if onednn is None:
            x = super().forward(x)
            return x if activation is None else ACTIVATIONS[activation](x)
        rows = x.numel() // self.in_features
        included = "gelu" if activation == "gelu" else "none"
        if rows % _ROW_MULTIPLE == 0 or rows > _MANY_ROWS:
            out: Tensor = onednn(x, self.weight, self.bias, included, [], "none")
        else:
            padded = F.pad(x.reshape(rows, -1), (0, 0, 0, -rows % _ROW_MULTIPLE))
            out = onednn(padded, self.weight, self.bias, included, [], "none")[:rows].unflatten(0, x.shape[:-1])
        return out if activation in (None, "gelu") else ACTIVATIONS[activation](out)


@cache
def onednn_product() -> Any | None:
    """oneDNN's linear operator, or None where it is missing or MKL is as fast."""
    available = hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.mkldnn.is_available()
    return torch.ops.mkldnn._linear_pointwise if available and mkl_is_slow() else None


def flops(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    """Floating-point operations, from the shapes of input and weight."""
    return int(2 * math.prod(x[:-1]) * weight[0] * weight[1])
