"""When a kernel may take the place of torch's own form."""

import torch
from torch import Tensor


def use_kernel(*tensors: Tensor) -> bool:
    """Whether float32 tensors on the CPU are computed with, and nobody asks for gradients, another type or a graph.

    Nor for a transform of torch.func, such as vmap: the kernels know of none.
    """
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()  # compilers and exporters have forms of their own
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors)
    )
