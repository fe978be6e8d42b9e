"""GELU and its derivative in float32 on the CPU: the C kernel of ``gelu.c``, or torch's own form.

Torch takes an error function and an exponential for each; the kernel takes one exponential for both, an eighth of the
time. They agree to 4e-7, the rounding of float32 at the largest values.
"""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densevit.kernels import build

_PER_THREAD = 1_000_000
"""Values below which another thread does not pay."""


def gelu(x: Tensor) -> Tensor:
    """GELU of float32 values, dense in memory."""
    library = load()
    if library is None:
        return F.gelu(x)
    out = torch.empty_like(x)
    _spread(library.densevit_gelu, x, out)
    return out


def gelu_backward(x: Tensor, gradient: Tensor) -> Tensor:
    """Multiplies ``gradient`` by the derivative at ``x`` in place, and gives GELU of ``x`` again; both dense."""
    library = load()
    if library is None:
        torch.ops.aten.gelu_backward.grad_input(gradient, x, grad_input=gradient)
        return F.gelu(x)
    out = torch.empty_like(x)
    _spread(library.densevit_gelu_backward, x, gradient, out)
    return out


def _spread(function: object, *tensors: Tensor) -> None:
    """Call a kernel on equal parts of the tensors, one for each thread."""
    assert callable(function)
    count = tensors[0].numel()
    threads = min(torch.get_num_threads(), max(1, count // _PER_THREAD))
    bounds = [count * i // threads for i in range(threads + 1)]

    def part(first: int, last: int) -> None:
        function(*(t.data_ptr() + first * t.element_size() for t in tensors), last - first)

    if threads == 1:
        part(0, count)
        return
    with ThreadPoolExecutor(threads) as pool:  # ctypes lets go of the interpreter's lock
        list(pool.map(part, bounds[:-1], bounds[1:]))


@cache
def load() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be had."""
    library = build.library(Path(__file__).with_name("gelu.c"), "GELU runs in torch in training, which is slower")
    if library is not None:
        pointer, long = ctypes.c_void_p, ctypes.c_int64
        for name, pointers in (("densevit_gelu", 2), ("densevit_gelu_backward", 3)):
            function = getattr(library, name)
            function.restype, function.argtypes = None, [*[pointer] * pointers, long]
    return library
