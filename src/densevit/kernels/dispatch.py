"""The conditions under which a kernel may replace torch's operator."""

import torch
from torch import Tensor


def use_kernel(*tensors: Tensor) -> bool:
    """Whether this is plain float32 inference on the CPU: without gradients, and as for ``plain_float32``."""
    return not torch.is_grad_enabled() and plain_float32(*tensors)


def plain_float32(*tensors: Tensor) -> bool:
    """Whether these are float32 tensors on the CPU.

    Not under autocast, while compiling or exporting, or inside a ``torch.func`` transform such as vmap.
    """
    return (
        not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    )
