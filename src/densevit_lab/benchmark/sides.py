"""The two sides of a comparison behind one function: an image file in, a label map or depth map out."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from densevit import load
from densevit.config import Config
from densevit.inference.predictor import Predictor
from densevit_lab.benchmark.decode import open_form
from densevit_lab.benchmark.peers import PEERS, open_peer
from densevit_lab.benchmark.training import Gradients, open_training

Map = NDArray[Any]
TORCH = "torch"
"""The engine that every densevit has: eager torch."""


class SideSpec(Config):
    """What a child process builds.

    Attributes:
        kind: "ours", "peer" for another program, "decode" for the last step alone, or "training" for a step of it.
        source: of ours, what ``Predictor.load`` takes; of training, whose; else a key of ``PEERS`` or of ``FORMS``.
        options: of a peer or of training, which model; of a decode, the sizes.
        engine: of ours.
        protocol: of ours, the program that it follows to the letter; None for our own way.
        output: what is asked for.
        device: of both.
    """

    kind: Literal["ours", "peer", "decode", "training"]
    source: str
    options: dict[str, Any] = Field(default_factory=dict)
    engine: str = TORCH
    protocol: str | None = None
    output: Literal["labels", "depth", "all"] = "labels"
    device: str = "cpu"


@dataclass(frozen=True)
class Side:
    """A side, built.

    Attributes:
        predict: an image file -> (H, W) labels or depth in the photo's own size; a step of training needs no image.
        spec: what it was built from.
    """

    predict: Callable[[Path], Map | Gradients]
    spec: SideSpec


def build_side(spec: SideSpec) -> Side:
    """Load or build the model of one side, in evaluation mode.

    Raises:
        ConfigError: if this densevit lacks the engine, or the peer is not installed.
    """
    if spec.kind == "peer":
        return Side(open_peer(spec.source, spec.options, spec.device).predict, spec)
    if spec.kind == "decode":
        form = open_form(spec.source, **spec.options)
        return Side(lambda image: form(), spec)
    if spec.kind == "training":
        step = open_training(spec.source, spec.options)
        return Side(lambda image: step(), spec)
    predictor = load_predictor(spec)
    for parameter in predictor.model.parameters():  # weights that lie mapped in a file come into memory when first read
        parameter.sum()

    def predict(image: Path) -> Map:
        prediction = predictor.predict(image, protocol=spec.protocol)
        if spec.output == "depth":
            return prediction.depth
        if spec.output == "labels":
            return np.asarray(prediction.labels)
        maps = [value for result in prediction.values() for value in _values(result)]
        return np.stack([np.asarray(value, dtype=np.float32) for value in maps])

    return Side(predict, spec)


def load_predictor(spec: SideSpec) -> Predictor:
    """Our predictor of a side.

    Raises:
        DensevitError: if there is no such engine, or it does not work here.
    """
    return load(spec.source, device=spec.device, engine=spec.engine)


def missing_packages(spec: SideSpec) -> list[str]:
    """Packages without which a peer cannot be built."""
    needed = PEERS[spec.source].packages if spec.kind == "peer" else {}
    return [package for module, package in needed.items() if find_spec(module) is None]


def _values(result: Any) -> list[Any]:
    return [getattr(result, name) for name in ("labels", "depth", "values") if hasattr(type(result), name)]
