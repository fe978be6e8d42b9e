"""densevit: dense prediction with plain Vision Transformers.

>>> import densevit
>>> model = densevit.load("default")          # doctest: +SKIP
>>> model.predict("room.jpg").save("out")     # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit.encoder import EncoderConfig, VisionTransformer
    from densevit.inference.prediction import Prediction
    from densevit.inference.predictor import Predictor
    from densevit.model import DenseModel, ModelConfig
    from densevit.types import DenseOutput, Taps

__version__ = "0.1.0"

_HOMES = {
    "DenseModel": "densevit.model",
    "DenseOutput": "densevit.types",
    "EncoderConfig": "densevit.encoder",
    "ModelConfig": "densevit.model",
    "Prediction": "densevit.inference.prediction",
    "Predictor": "densevit.inference.predictor",
    "Taps": "densevit.types",
    "VisionTransformer": "densevit.encoder",
}


def load(source: Any = "default", *, engine: str | None = None, **options: Any) -> "Predictor":
    """Load a model that is ready to predict.

    Args:
        source: "default" (ships with the package), the path of a checkpoint, ``hf://owner/name``, or a preset's name.
            Checkpoints of Segmenter, SETR, mmsegmentation, DPT, Depth Anything and transformers are read as they are.
        engine: what runs the network, by default what ``speed`` says: "torch"; or, on the CPU, "compile", "onnxruntime"
            or "openvino", which build a program for every size of image that they meet. "compile" runs on GPUs too.
        options: ``heads``, names of the heads to run; ``device``; ``speed``, switches that make it cheaper; for weights
            of others the facts that they do not tell, such as ``num_heads``.

    Raises:
        CheckpointError, ConfigError: if there is no such model or engine, or its file cannot be used.
        EngineError: if the engine does not work here.
    """
    from densevit.inference.predictor import Predictor

    predictor = Predictor.load(source, **options)
    engine = engine or predictor.speed.engine
    if engine != "torch":
        from densevit.engines.engine import use_engine

        use_engine(predictor.model, engine)
    return predictor


def models() -> tuple[str, ...]:
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
    "ModelConfig",
    "Prediction",
    "Predictor",
    "Taps",
    "VisionTransformer",
    "load",
    "models",
]
