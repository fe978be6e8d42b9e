"""The engine "openvino", which runs an ONNX file on the CPU in float32."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from densevit.engines.onnx import onnx_file
from densevit.errors import EngineError

_TRIAL = "import openvino; openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME')"


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


@cache
def require() -> None:
    """Try OpenVINO in a subprocess, since it crashes on some virtual machines when it queries the processor.

    Raises:
        EngineError: if it is missing or does not work.
    """
    trial = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=120, check=False)
    if trial.returncode == 0:
        return
    if "ModuleNotFoundError" in trial.stderr:
        raise EngineError(
            "engine openvino needs the package openvino, which is missing; pip install 'densevit[openvino]'"
        )
    last = (trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1]
    raise EngineError(
        f"OpenVINO does not work on this machine ({last[:200]}); choose engine onnxruntime, compile or torch"
    )
