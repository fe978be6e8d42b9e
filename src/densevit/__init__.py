"""densevit: dense prediction with plain Vision Transformers.

>>> import densevit
>>> predictor = densevit.load("default")          # doctest: +SKIP
>>> predictor.predict("room.jpg").save("out")     # doctest: +SKIP
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densevit.encoder import EncoderConfig, VisionTransformer
    from densevit.evaluation.api import evaluate
    from densevit.export.job import export_model
    from densevit.export.web import export_web
    from densevit.inference.features import Features
    from densevit.inference.pipeline import InferenceOptions
    from densevit.inference.prediction import Prediction
    from densevit.inference.predictor import Predictor
    from densevit.inference.sliding_window import SlidingWindow
    from densevit.inference.speed import SpeedConfig
    from densevit.inference_config import InferenceConfig, Quality
    from densevit.model import DenseModel, ModelConfig
    from densevit.training.api import TrainResult, train
    from densevit.types import DenseOutput, Taps

__version__ = "0.1.0"

_HOMES = {
    "DenseModel": "densevit.model",
    "DenseOutput": "densevit.types",
    "EncoderConfig": "densevit.encoder",
    "Features": "densevit.inference.features",
    "InferenceConfig": "densevit.inference_config",
    "InferenceOptions": "densevit.inference.pipeline",
    "ModelConfig": "densevit.model",
    "Prediction": "densevit.inference.prediction",
    "Predictor": "densevit.inference.predictor",
    "SlidingWindow": "densevit.inference.sliding_window",
    "SpeedConfig": "densevit.inference.speed",
    "Taps": "densevit.types",
    "TrainResult": "densevit.training.api",
    "VisionTransformer": "densevit.encoder",
    "evaluate": "densevit.evaluation.api",
    "export_model": "densevit.export.job",
    "export_web": "densevit.export.web",
    "train": "densevit.training.api",
}
"""Where each public name is defined; it is imported at its first use, so that ``import densevit`` needs no torch."""


def load(
    source: str | Path = "default",
    *,
    heads: Sequence[str] | None = None,
    device: str | None = None,
    speed: "SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None" = None,
    engine: str | None = None,
    quality: "Quality | None" = None,
    **import_overrides: Any,
) -> "Predictor":
    """Load a model that is ready to predict.

    Args:
        source: "default" (ships with the package), the name of a published model such as "dpt-large-ade20k", which is
            downloaded at its first use, the path of a checkpoint, or ``hf://owner/name``. Checkpoints of Segmenter,
            SETR, mmsegmentation, DPT, Depth Anything, transformers and segmentation_models.pytorch, and the heads of
            DINOv2, are read directly. Weights are never random.
        heads: to run; all by default.
        device: by default a GPU if there is one.
        speed: switches that make the model cheaper: a ``SpeedConfig``, its plain data, a YAML file with it, or a list
            of files and ``key=value`` pairs.
        engine: what runs the network, in place of ``speed``'s: "torch"; or, on the CPU, "compile", "onnxruntime" or
            "openvino", which build a program for every image size they meet. "compile" also runs on GPUs.
        quality: "fast", the default, runs each head on the whole photo, once, at a size of its own; "best" with the
            windows and mirror images that the checkpoint says, in place of ``speed``'s. A checkpoint that has no sizes
            for fast runs gives the same at both.
        import_overrides: facts that checkpoints of other programs do not state, such as ``num_heads``; any other
            keyword is refused, and so is every one for densevit's own checkpoints.

    Raises:
        CheckpointError: if there is no such model, it cannot be downloaded, or its file cannot be used.
        DataError: if there is no space for what is downloaded, or the cache cannot be written.
        ConfigError: if a head, option, device, engine or quality does not exist.
        EngineError: if the engine does not work here.
    """
    from densevit.inference.predictor import Predictor

    return Predictor.load(
        source, heads=heads, device=device, speed=speed, engine=engine, quality=quality, **import_overrides
    )


def create_model(
    name: str | Path, num_classes: "int | Mapping[str, int] | None" = None, pretrained: bool = True
) -> "DenseModel":
    """Make a model to train: an ``nn.Module`` on the CPU, in training mode.

    Args:
        name: what ``load`` takes; with ``pretrained=False`` also a preset without published weights.
        num_classes: classes of its head, or of several heads by their names; those of the weights by default. If they
            differ, the classifier begins with random values, and a logged line says which tensors that are; all others
            keep their weights.
        pretrained: whether it has the weights of its name; otherwise they are random.

    Raises:
        CheckpointError: if there is no such model, it cannot be downloaded, or its file cannot be used.
        ConfigError: if there is no such architecture, or it has no head that can have so many classes.
    """
    from densevit.checkpoints.create import create_model

    return create_model(name, num_classes, pretrained)


def from_pretrained(
    pretrained_model_name_or_path: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    heads: Sequence[str] | None = None,
    device: str | None = None,
    speed: "SpeedConfig | Mapping[str, Any] | Sequence[str] | str | Path | None" = None,
    engine: str | None = None,
    quality: "Quality | None" = None,
    **import_overrides: Any,
) -> "Predictor":
    """Load a folder that ``Predictor.save_pretrained`` wrote, or a repository of the Hugging Face hub.

    It is ``load`` with the names and arguments of ``huggingface_hub``: repositories of other programs whose models
    densevit reads are loaded too.

    Args:
        pretrained_model_name_or_path: a folder, or ``owner/name`` on the hub; what is here goes first.
        revision: a branch, tag or commit of the repository.
        token: of the hub; by default that of ``hf auth login`` or of HF_TOKEN.
        cache_dir: for downloads; by default the hub's own.
        heads: this and the others as for ``load``.
        device: see there.
        speed: see there.
        engine: see there.
        quality: see there.
        import_overrides: see there.

    Raises:
        CheckpointError: if there is no such model, its files cannot be used, or the hub cannot be reached.
        ConfigError: if this names no repository, or a head, option, device, engine or quality does not exist.
        EngineError: if the engine does not work here.
    """
    from densevit.inference.predictor import Predictor

    return Predictor.from_pretrained(
        pretrained_model_name_or_path,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        heads=heads,
        device=device,
        speed=speed,
        engine=engine,
        quality=quality,
        **import_overrides,
    )


def list_models(
    *,
    task: str | None = None,
    licence: str | None = None,
    family: str | None = None,
    max_size: int | str | None = None,
    weights: str | None = None,
) -> tuple[str, ...]:
    """Names of models: "default", those with published weights, and the architectures without; ``densevit models``.

    Args:
        task: only models for "segmentation" or "depth".
        licence: only weights with this licence, such as "MIT"; "permissive" for any that allows any use.
        family: only "SETR", "Segmenter", "DPT", "DINOv2" or "Depth Anything".
        max_size: only models whose weights take at most so many bytes in float32; a text such as "500MB" also.
        weights: only those "shipped" with densevit, "published" by others, or "none": an architecture without weights.

    Raises:
        ConfigError: if no model has the value of a filter, or ``max_size`` is no size.
    """
    from densevit.checkpoints.catalogue import select

    chosen = select(task=task, licence=licence, family=family, max_size=max_size, weights=weights)
    return tuple(entry.name for entry in chosen)


def add_decoder(name: str, decoder: "Callable[..., Any] | tuple[type[Any], type[Any]]") -> None:
    """Make a decoder from outside the package known in this process, as the kind ``name``.

    Args:
        name: its kind in configs and checkpoints.
        decoder: a function or class that takes the keywords ``embed_dim``, ``num_taps``, ``out_channels`` (and those of
            ``options`` in the config) and gives an ``nn.Module`` from ``Taps`` to logits (B, K, h, w); or a pair of
            ``DecoderConfig`` and ``Decoder``. For all processes, declare an entry point in ``densevit.decoders``.

    Raises:
        ConfigError: it is none of these, or the name is densevit's own.
    """
    from densevit.decoders import DECODERS

    DECODERS.add(name, decoder)


def add_task(task: type[Any]) -> None:
    """Make a task from outside the package known in this process, as the kind that it states.

    Args:
        task: a subclass of ``densevit.tasks.Task``. For all processes, declare an entry point in ``densevit.tasks``.

    Raises:
        ConfigError: it is none, it lacks something, or its kind is densevit's own.
    """
    from densevit.errors import ConfigError
    from densevit.tasks import TASKS

    kind = getattr(getattr(task, "model_fields", {}).get("kind"), "default", None)
    if not isinstance(kind, str):
        raise ConfigError(f"task {task!r:.80} states no kind; write kind: Literal['mine'] = 'mine' into its class")
    TASKS.add(kind, task)


def add_dataset(name: str, dataset: "Callable[..., Any] | tuple[type[Any], Callable[..., Any]]") -> None:
    """Make a data set from outside the package known in this process, as the kind ``name``.

    Args:
        name: its kind in configs.
        dataset: a function that gives a ``densevit.data.Dataset``, with any of the parameters ``root`` and ``split``
            and those of ``arguments`` in the config; or a pair of ``DataConfig`` and a function of it and ``targets``.
            For all processes, declare an entry point in ``densevit.datasets``.

    Raises:
        ConfigError: it is neither, or the name is densevit's own.
    """
    from densevit.data import DATASETS

    DATASETS.add(name, dataset)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'densevit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, "__version__"})


__all__ = [
    "DenseModel",
    "DenseOutput",
    "EncoderConfig",
    "Features",
    "InferenceConfig",
    "InferenceOptions",
    "ModelConfig",
    "Prediction",
    "Predictor",
    "SlidingWindow",
    "SpeedConfig",
    "Taps",
    "TrainResult",
    "VisionTransformer",
    "add_dataset",
    "add_decoder",
    "add_task",
    "create_model",
    "evaluate",
    "export_model",
    "export_web",
    "from_pretrained",
    "list_models",
    "load",
    "train",
]
