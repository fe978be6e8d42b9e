"""The engine "openvino", which runs an ONNX file on the CPU in float32."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from densevit.engines.onnx import onnx_file
from densevit_runtime.engines import require_openvino


def build(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """A program for inputs of these shapes, with as many threads as torch uses.

    Raises:
        EngineError: if OpenVINO is missing or does not work on this machine, or the module cannot be converted.
    """
    require()
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    with onnx_file(module, inputs) as path:
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        results = compiled([t.detach().numpy() for t in tensors])
        return tuple(torch.from_numpy(results[output].copy()) for output in compiled.outputs)  # its memory is reused

    return program


def require() -> None:
    """Make sure that OpenVINO works on this machine.

    Raises:
        EngineError: if it is missing or does not work.
    """
    require_openvino("'densevit[openvino]'", "onnxruntime, compile or torch")
