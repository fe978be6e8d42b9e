"""ONNX Runtime and OpenVINO, each as one function call from a photo to the outputs of a graph."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from densevit_runtime.errors import ConfigError, DataError, EngineError
from densevit_runtime.metadata import INPUT
from densevit_runtime.onnx_prune import with_outputs

EngineName = Literal["onnxruntime", "openvino"]

_TRIAL = "import openvino; openvino.Core().get_property('CPU', 'FULL_DEVICE_NAME')"
_MEMORY = ("alloc", "memory")
_UNKNOWN_OPERATOR = (
    "no op registered",
    "not a registered function",
    "could not find an implementation",
    "no conversion rule",
    "not supported",
    "unsupported",
    "opset",
)
# ONNX Runtime's "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from FILE failed:".
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .* failed: ?")


@dataclass(frozen=True)
class Port:
    """An input or output of a graph: its type as numpy names it, and its number of dimensions (-1: any)."""

    dtype: str
    rank: int


@dataclass(frozen=True)
class Engine:
    """A graph that is ready to run.

    Attributes:
        name: of the engine.
        version: of the engine.
        threads: that it may use.
        inputs, outputs: by name.
        compute: photos (B, H, W, 3) and names of outputs -> arrays in their order.
    """

    name: EngineName
    version: str
    threads: int
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    compute: Callable[[NDArray[np.uint8], Sequence[str]], list[NDArray[Any]]]

    def run(self, images: NDArray[np.uint8], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Photos of one size -> the named outputs.

        Raises:
            EngineError: if the engine fails, for lack of memory or another reason.
        """
        try:
            return dict(zip(names, self.compute(images, names), strict=True))
        except MemoryError:
            raise _out_of_memory(images) from None
        except Exception as error:
            if any(sign in str(error).lower() for sign in _MEMORY):
                raise _out_of_memory(images) from error
            raise EngineError(
                f"{self.name} failed on an image of {images.shape[1]} x {images.shape[2]} ({first_line(error)}); "
                "export the model again, or report this with the file's metadata"
            ) from error


def open_engine(
    path: Path, wanted: str | None = None, threads: int | None = None, outputs: Sequence[str] | None = None
) -> Engine:
    """Open a graph whose file has been checked.

    Args:
        path: .onnx, or .xml of OpenVINO.
        wanted: engine; by default ONNX Runtime for .onnx, or OpenVINO if only that is installed.
        threads: by default one for each processor that the process may use.
        outputs: those that are computed; all by default.

    Raises:
        ConfigError: if there is no such engine, or it does not read such files, or ``threads`` is not positive.
        EngineError: if the engine is missing, or cannot open the graph.
    """
    name = _choose(path, wanted)
    count = num_processors() if threads is None else threads
    if count < 1:
        raise ConfigError(f"threads is {threads}; a positive number is accepted, or none for all processors")
    opened = _onnxruntime if name == "onnxruntime" else _openvino
    try:
        return opened(path, count, outputs)
    except EngineError:
        raise
    except MemoryError as error:
        raise EngineError(f"{path} does not fit in memory; use a smaller model") from error
    except Exception as error:
        text = str(error).lower()
        hint = "export the model again, or report it with the file's metadata"
        if any(sign in text for sign in _UNKNOWN_OPERATOR):
            hint = f"the graph has an operator that this version lacks; update {name}, or export the model again"
        raise EngineError(f"{name} cannot run {path} ({first_line(error)}); {hint}") from error


def num_processors() -> int:
    """The processors that this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available is not None else os.cpu_count() or 1


@cache
def require_openvino(install: str = "openvino", instead: str = "onnxruntime") -> None:
    """Try OpenVINO in a subprocess, since it crashes on some virtual machines when it queries the processor.

    Args:
        install: what to install if it is missing, for the message.
        instead: engines that may be chosen instead.

    Raises:
        EngineError: if it is missing or does not work.
    """
    trial = subprocess.run([sys.executable, "-c", _TRIAL], capture_output=True, text=True, timeout=120, check=False)
    if trial.returncode == 0:
        return
    if "ModuleNotFoundError" in trial.stderr:
        raise EngineError(f"engine openvino needs the package openvino, which is missing; pip install {install}")
    last = (trial.stderr.strip().splitlines() or [f"exit code {trial.returncode}"])[-1]
    raise EngineError(f"OpenVINO does not work on this machine ({last[:200]}); choose engine {instead}")


def _choose(path: Path, wanted: str | None) -> EngineName:
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".xml"):
        raise DataError(
            f"{path} does not have the suffix of an exported file; .onnx and .xml are accepted; export the model first"
        )
    if wanted is not None and wanted not in get_args(EngineName):
        raise ConfigError(f"engine {wanted!r} does not run exported files; onnxruntime and openvino are accepted")
    if suffix == ".xml" and wanted == "onnxruntime":
        raise ConfigError(f"engine onnxruntime does not read {path}; take openvino, or export the model to onnx")
    if wanted is None:
        installed = find_spec("onnxruntime") is not None or find_spec("openvino") is None
        return "onnxruntime" if suffix == ".onnx" and installed else "openvino"
    return "onnxruntime" if wanted == "onnxruntime" else "openvino"


def _onnxruntime(path: Path, threads: int, outputs: Sequence[str] | None) -> Engine:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"{path} needs onnxruntime or openvino, which are missing ({error}); pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # what goes wrong is an exception too
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or waiting threads burn shared cores
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Above this level convolutions get weights in a layout of their own: half of the time to load, and no faster.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # Weights in a second layout, once for every size at which heads see photos, take as much memory again for 6 %.
    options.add_session_config_entry("session.disable_prepacking", "1")
    source = str(path) if outputs is None else with_outputs(path, outputs)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    (first,) = session.get_inputs()[:1] or [None]

    def compute(images: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[Any]]:
        arrays: list[NDArray[Any]] = session.run(list(names), {first.name: images})
        return arrays

    inputs = {one.name: _onnx_port(one) for one in session.get_inputs()}
    found = {one.name: _onnx_port(one) for one in session.get_outputs()}
    return Engine("onnxruntime", onnxruntime.__version__, threads, inputs, found, compute)


def _onnx_port(argument: Any) -> Port:
    """The port that ONNX Runtime describes by a text such as ``tensor(uint8)`` and a shape."""
    name = str(argument.type).removeprefix("tensor(").removesuffix(")")
    return Port({"float": "float32", "double": "float64"}.get(name, name), len(argument.shape or ()))


def _openvino(path: Path, threads: int, outputs: Sequence[str] | None) -> Engine:
    require_openvino()
    import openvino

    core = openvino.Core()
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # The types of the graph: int8 files have some bfloat16, which is emulated slowly where the processor has none.
        "INFERENCE_PRECISION_HINT": "dynamic" if has_bfloat16 else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = core.read_model(str(path))
    if outputs is not None:
        wanted = [port for port in model.outputs if port.get_names() & {*outputs}]
        model = openvino.Model(wanted, model.get_parameters(), model.get_friendly_name())
    compiled = core.compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def compute(images: NDArray[np.uint8], names: Sequence[str]) -> list[NDArray[Any]]:
        results = request.infer([images], share_inputs=True)
        return [results[name].copy() for name in names]  # its memory is reused

    inputs = {_input_name(port): _openvino_port(port) for port in compiled.inputs}
    # A tensor keeps the names of all tensors that were found to be the same.
    found = {str(name): _openvino_port(port) for port in compiled.outputs for name in port.get_names()}
    return Engine("openvino", openvino.__version__.partition("-")[0], threads, inputs, found, compute)


def _input_name(port: Any) -> str:
    names = port.get_names()
    return INPUT if INPUT in names else str(min(names, default=""))


def _openvino_port(port: Any) -> Port:
    rank = port.get_partial_shape().rank
    kind = np.dtype(port.get_element_type().to_dtype()).name
    return Port(kind, rank.get_length() if rank.is_static else -1)


def _out_of_memory(images: NDArray[np.uint8]) -> EngineError:
    height, width = images.shape[1:3]
    return EngineError(f"not enough memory for an image of {height} x {width}; scale it down, or use a smaller model")


def first_line(error: Exception) -> str:
    """What an engine says first, without ONNX Runtime's codes and the name of the file; its type if it says nothing."""
    lines = [line.strip() for line in _PREFIX.sub("", str(error)).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
