"""Export a model as one ONNX or OpenVINO file, from uint8 photos of any size to labels and depth of their size.

The graph is written operator by operator, in the models' own shapes, instead of by tracing: sizes are values of the
graph, so that one file takes every size and batch, and it does not depend on the version of torch's exporter.
"""

from importlib.util import find_spec

from densevit.errors import EngineError

if find_spec("onnx") is None:
    raise EngineError("exporting needs the package onnx, which is missing; pip install 'densevit[onnx]'")
