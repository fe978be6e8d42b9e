"""The engine "compile": torch.compile, with the weights as constants on the CPU. It needs a C++ compiler there."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from densevit.errors import EngineError


def build(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """A program for inputs of these shapes.

    Raises:
        EngineError: if the compiler fails.
    """
    on_cpu = inputs[0].device.type == "cpu"
    # A CUDA graph replays all launches at once; its outputs are overwritten by the next run, hence the copies.
    options: dict[str, Any] = {"freezing": True} if on_cpu else {"triton.cudagraphs": True}
    compiled = torch.compile(module, dynamic=False, options=options)

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode(False), torch.no_grad():
            plain = (t.clone() if t.is_inference() else t for t in tensors)
            outputs: tuple[Tensor, ...] = compiled(*plain)
            return outputs if on_cpu else tuple(t.clone() for t in outputs)

    try:
        program(*inputs)
    except Exception as error:
        raise EngineError(
            f"torch.compile failed ({str(error).splitlines()[0][:200]}); it needs a working C++ compiler on the CPU; "
            "install one, or take engine onnxruntime or torch"
        ) from error
    return program
