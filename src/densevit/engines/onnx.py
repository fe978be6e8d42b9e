"""The engine "onnxruntime", and the ONNX files that it and OpenVINO read."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from densevit.errors import EngineError

OPSET = 20
"""The first with GELU as an operator."""


def build(module: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[..., tuple[Tensor, ...]]:
    """A program for inputs of these shapes, on the CPU with as many threads as torch has.

    Raises:
        EngineError: if onnxruntime is missing, or the module cannot be exported.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(
            "engine onnxruntime needs the packages onnx, onnxscript and onnxruntime, of which one is missing "
            f"({error.name}); pip install 'densevit[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or waiting threads burn shared cores
    with onnx_file(module, inputs) as path:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        values = (t.detach().numpy() for t in tensors)
        fed = dict(zip(names, values, strict=True))
        return tuple(torch.from_numpy(value) for value in session.run(None, fed))

    return program


@contextmanager
def onnx_file(module: nn.Module, inputs: tuple[Tensor, ...]) -> Iterator[Path]:
    """A temporary ONNX file of a module, for inputs of these shapes; weights lie beside it.

    Raises:
        EngineError: if a package is missing, or the module cannot be exported.
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
                f"ONNX export needs the packages onnx and onnxscript, of which one is missing ({error.name}); "
                "pip install 'densevit[onnx]'"
            ) from None
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EngineError(
                f"the model could not be exported to ONNX ({first[:200]}); take engine compile or torch, and report "
                "the model's config"
            ) from error
        yield path


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's progress and warnings off the user's screen."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
