"""The conditions under which a kernel may replace torch's operator."""

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

_LARGEST = 1e38
"""Beyond, differences of two values overflow, and the C code's stand-in for minus infinity may be the larger one."""


def ordinary(values: Tensor) -> bool:
    """Whether all values (at least one) are finite and none is huge; waits for the device."""
    low, high = values.aminmax()
    return bool((low > -_LARGEST) & (high < _LARGEST))  # comparisons with NaN are false


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


def hooked(module: nn.Module) -> bool:
    """Whether hooks observe or change what passes through a module."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


@cache
def mkl_is_slow() -> bool:
    """Whether the processor has AVX-512 but MKL, torch's choice for products, runs AVX2 code: it is not Intel's."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "GenuineIntel" not in _vendor()


def _vendor() -> str:
    """Text that names the processor's vendor."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
