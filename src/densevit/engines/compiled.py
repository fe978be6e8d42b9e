"""The engine "compile": torch.compile, on the CPU with the weights as constants and by a C++ compiler."""

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
    # The outputs of a CUDA graph are overwritten by its next run, hence the copies below.
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
            f"torch.compile failed ({str(error).splitlines()[0][:200]}); on the CPU it needs a C++ compiler; "
            "install one, or choose engine onnxruntime or torch"
        ) from error
    return program
