"""The engine "onnxruntime", and the ONNX files for it and OpenVINO."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from densevit.errors import EngineError
from densevit_runtime.engines import first_line

OPSET = 20
"""The first opset with GELU as an operator."""


def build(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """A program for inputs of these shapes, on the CPU with as many threads as torch uses.

    Raises:
        EngineError: if onnxruntime is missing, or the module cannot be converted.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            f"engine onnxruntime needs the package {error.name}, which is missing; pip install 'densevit[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or waiting threads burn shared cores
    with onnx_file(module, inputs) as path:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        feed = {name: tensor.detach().numpy() for name, tensor in zip(names, tensors, strict=True)}
        return tuple(torch.from_numpy(value) for value in session.run(None, feed))

    return program


@contextlib.contextmanager
def onnx_file(module: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Path]:
    """A temporary ONNX file of a module for inputs of these shapes, with its weights in a file next to it.

    Raises:
        EngineError: if a package is missing, or the module cannot be converted.
    """
    with tempfile.TemporaryDirectory(prefix="densevit-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            with quiet():
                exported = torch.onnx.export(
                    module, inputs, dynamo=True, opset_version=OPSET, verbose=False, external_data=True
                )
                assert exported is not None
                exported.save(path, external_data=True)
        except ImportError as error:
            raise EngineError(
                f"this engine needs the packages onnx and onnxscript ({error}); pip install 'densevit[onnx]'"
            ) from None
        except Exception as error:
            raise EngineError(
                f"the model could not be converted to ONNX ({first_line(error)}); choose engine compile or torch, and "
                "report the model's config"
            ) from error
        yield path


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress the exporter's progress messages and warnings."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)
