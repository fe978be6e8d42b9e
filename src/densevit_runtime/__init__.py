"""Run models that densevit has exported, on machines without torch.

>>> import densevit_runtime
>>> model = densevit_runtime.load("m.onnx")       # doctest: +SKIP
>>> model.predict("room.jpg").save("out")         # doctest: +SKIP
"""

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit_runtime.metadata import Metadata
    from densevit_runtime.prediction import Prediction
    from densevit_runtime.runtime import Runtime

__version__ = "0.1.0"

_HOMES = {
    "Metadata": "densevit_runtime.metadata",
    "Prediction": "densevit_runtime.prediction",
    "Runtime": "densevit_runtime.runtime",
}


def load(
    path: str | Path,
    *,
    heads: Sequence[str] | None = None,
    engine: str | None = None,
    threads: int | None = None,
) -> "Runtime":
    """Open an exported file. The licence of its weights is logged, as a warning if it is a non-commercial one.

    Args:
        path: .onnx, or .xml of OpenVINO with its .bin next to it.
        heads: to run; all by default.
        engine: "onnxruntime" or "openvino"; by default ONNX Runtime for .onnx if it is installed.
        threads: of the engine; by default one for each processor that the process may use.

    Raises:
        DataError: if there is no such file.
        CheckpointError: if it is damaged, unsafe, or not an export of densevit.
        ConfigError: if a head or an engine does not exist.
        EngineError: if the engine is missing, or cannot run the graph.
    """
    from densevit_runtime.licences import announce
    from densevit_runtime.runtime import Runtime

    runtime = Runtime.load(path, heads=heads, engine=engine, threads=threads)
    announce(str(path), runtime.metadata.licence, logging.getLogger(__name__))
    return runtime


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'densevit_runtime' has no attribute {name!r}")


__all__ = ["Metadata", "Prediction", "Runtime", "load"]
