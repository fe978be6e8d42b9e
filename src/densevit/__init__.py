"""densevit: dense prediction with plain Vision Transformers.

>>> import densevit
>>> predictor = densevit.load("default")          # doctest: +SKIP
>>> predictor.predict("room.jpg").save("out")     # doctest: +SKIP
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit.encoder import EncoderConfig, VisionTransformer
    from densevit.evaluation.evaluate import evaluate
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.prediction import Prediction
    from densevit.inference.predictor import Predictor
    from densevit.inference.sliding_window import SlidingWindow
    from densevit.inference.speed import SpeedConfig
    from densevit.inference_config import InferenceConfig
    from densevit.model import DenseModel, ModelConfig
    from densevit.types import DenseOutput, Taps

__version__ = "0.1.0"

_HOMES = {
    "DenseModel": "densevit.model",
    "DenseOutput": "densevit.types",
    "EncoderConfig": "densevit.encoder",
    "InferenceConfig": "densevit.inference_config",
    "InferenceOptions": "densevit.inference.pipeline",
    "ModelConfig": "densevit.model",
    "Prediction": "densevit.inference.prediction",
    "Predictor": "densevit.inference.predictor",
    "SlidingWindow": "densevit.inference.sliding_window",
    "SpeedConfig": "densevit.inference.speed",
    "Taps": "densevit.types",
    "VisionTransformer": "densevit.encoder",
    "evaluate": "densevit.evaluation.evaluate",
}
"""Where each public name is defined; it is imported at its first use, so that ``import densevit`` needs no torch."""


def load(
    source: str | Path = "default",
    *,
    heads: Sequence[str] | None = None,
    device: str | None = None,
    speed: "SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None" = None,
    engine: str | None = None,
    **import_overrides: Any,
) -> "Predictor":
    """Load a model that is ready to predict.

    Args:
        source: "default" (ships with the package), the path of a checkpoint, ``hf://owner/name``, or a preset's name
            (random weights). Checkpoints of Segmenter, SETR, mmsegmentation, DPT, Depth Anything and transformers are
            read directly.
        heads: to run; all by default.
        device: by default a GPU if there is one.
        speed: switches that make the model cheaper: a ``SpeedConfig``, its plain data, a YAML file with it, or a list
            of files and ``key=value`` pairs.
        engine: what runs the network, in place of ``speed``'s: "torch"; or, on the CPU, "compile", "onnxruntime" or
            "openvino", which build a program for every image size they meet. "compile" also runs on GPUs.
        import_overrides: facts that checkpoints of other programs do not state, such as ``num_heads``.

    Raises:
        CheckpointError: if there is no such model, or its file cannot be used.
        ConfigError: if a head, option, device or engine does not exist.
        EngineError: if the engine does not work here.
    """
    from densevit.inference.predictor import Predictor

    return Predictor.load(source, heads=heads, device=device, speed=speed, engine=engine, **import_overrides)


def list_models() -> tuple[str, ...]:
    """Names that ``load`` takes: "default" and the presets."""
    from densevit.presets import PRESETS

    return ("default", *PRESETS)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'densevit' has no attribute {name!r}")


__all__ = [
    "DenseModel",
    "DenseOutput",
    "EncoderConfig",
    "InferenceConfig",
    "InferenceOptions",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "SlidingWindow",
    "SpeedConfig",
    "Taps",
    "VisionTransformer",
    "evaluate",
    "list_models",
    "load",
]
