"""Workloads: what a worker process builds once and then runs again and again, for example a model on an image file."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densevit import load
from densevit.config import Config
from densevit.inference_config import Quality
from densevit_lab.benchmark.decode import open_form
from densevit_lab.benchmark.peers import open_peer
from densevit_lab.benchmark.record import TORCH
from densevit_lab.benchmark.training import Gradients, open_training

Workload = Callable[[Any], NDArray[Any] | Gradients]
"""An image (file or array) -> (H, W) labels or depth at its size; decoding and training steps ignore the image."""


class WorkloadSpec(Config):
    """The description of a workload, which is sent to a worker process.

    Attributes:
        kind: "ours", "exported" for a file of ours, "peer" for another program, "decode" for the last step only, or
            "training" for a training step.
        source: what ``load`` takes for ours; the file; a key of ``PEERS`` or ``FORMS``; whose step for training.
        head: of ours, the one that runs; all of them if empty.
        precision: of ours in torch.
        rounded: its output may differ from that of the peer; how much is recorded.
        options: which model for a peer or training; the sizes for decoding.
        protocol: the program that our prediction follows; None for the model's own inference settings.
        quality: which of these settings, where the model has two; None for its default.
    """

    title: str = ""
    kind: Literal["ours", "exported", "peer", "decode", "training"]
    source: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    engine: str = TORCH
    head: str = ""
    precision: Literal["float32", "int8"] = "float32"
    rounded: bool = False
    protocol: str | None = None
    quality: Quality | None = None
    output: Literal["labels", "depth", "all"] = "labels"


def build_workload(spec: WorkloadSpec) -> Workload:
    """Load or build the model, in evaluation mode.

    Raises:
        ConfigError: if this densevit lacks the engine, or the peer is not installed.
    """
    match spec.kind:
        case "peer":
            return open_peer(spec.source, spec.options).predict
        case "decode":
            form = open_form(spec.source, **spec.options)
            return lambda image: form()
        case "training":
            step = open_training(spec.source, spec.options)
            return lambda image: step()
        case "ours":
            return _our_prediction(spec)
        case "exported":
            return _exported_prediction(spec)


def _exported_prediction(spec: WorkloadSpec) -> Workload:
    from densevit.inference.exported import ExportedModel  # with its engines

    model = ExportedModel.load(spec.source, heads=[spec.head], engine=spec.engine)

    def predict(image: Any) -> NDArray[Any]:
        return np.asarray(model.predict(image)[spec.head].prediction)

    return predict


def _our_prediction(spec: WorkloadSpec) -> Workload:
    speed = None if spec.precision == "float32" else {"precision": spec.precision}
    heads = [spec.head] if spec.head else None
    predictor = load(spec.source, heads=heads, device="cpu", speed=speed, engine=spec.engine, quality=spec.quality)
    for parameter in predictor.model.parameters():  # memory-mapped weights are read from disk on first use
        parameter.sum()

    def predict(image: Any) -> NDArray[Any]:
        prediction = predictor.predict(image, protocol=spec.protocol)
        if spec.output == "depth":
            return prediction.depth
        if spec.output == "labels":
            return np.asarray(prediction.labels)
        maps = []
        for result in prediction.values():
            names = [name for name in ("labels", "depth", "values") if hasattr(type(result), name)]
            maps += [np.asarray(getattr(result, name), dtype=np.float32) for name in names]
        return np.stack(maps)

    return predict
