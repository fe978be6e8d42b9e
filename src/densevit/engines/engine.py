"""Engines: other programs that run the network of a loaded model, on the CPU or, compiled, on any device.

Encoder and decoders are swapped for modules that build their program for every size of image at its first use; what is
around them (windows, test-time augmentation, decoding) stays as it is. A program is compared with the original before
it is used. It pays for many photos of one size, or windows: building takes from seconds to minutes.
"""

import logging
import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from densevit.config import nearest
from densevit.decoders import Decoder
from densevit.encoder import VisionTransformer
from densevit.engines import compiled, onnx, openvino
from densevit.engines.graph import DecoderGraph, EncoderGraph, flatten, unflatten
from densevit.errors import ConfigError, EngineError
from densevit.model import DenseModel
from densevit.types import DenseOutput, Taps

Program = Callable[..., tuple[Tensor, ...]]
Build = Callable[[nn.Module, tuple[Tensor, ...]], Program]

ENGINES: dict[str, Build] = {"compile": compiled.build, "onnxruntime": onnx.build, "openvino": openvino.build}
"""Name -> what builds a program from a module and example inputs; "torch" is to do without."""

TOLERANCE = 1e-3
"""Largest difference from the original, over the largest value, that a program may have."""

_log = logging.getLogger(__name__)


def use_engine(model: DenseModel, engine: str) -> DenseModel:
    """Let an engine run a model, in place.

    Args:
        model: in evaluation mode.
        engine: "torch" leaves it as it is; "compile", "onnxruntime" or "openvino".

    Returns:
        The same model.

    Raises:
        ConfigError: if there is no such engine, or it cannot run on the model's device.
        EngineError: if the engine's package is missing or does not work here.
    """
    if engine == "torch":
        return model
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}{nearest(engine, ('torch', *ENGINES))}")
    device = model.mean.device.type
    if device != "cpu" and engine != "compile":
        raise ConfigError(
            f"engine {engine!r} runs on the CPU but the model is on {device}; name compile, or device cpu"
        )
    if model.encoder.merging is not None and engine != "compile":
        raise ConfigError(
            f"engine {engine!r} was named together with token merging, which torch and compile alone can run; take one "
            "of these, or leave merging off"
        )
    build = ENGINES[engine]
    encoder = model.encoder
    model.encoder = EngineEncoder(encoder, build, engine)
    model.heads = nn.ModuleDict(
        {name: EngineDecoder(model.decoder(name), build, f"{engine}, {name}") for name in model.heads}
    )
    return model.eval()


class _Programs:
    """The programs of one module by the shapes of their inputs."""

    def __init__(self, build: Build, name: str) -> None:
        self._build, self._name = build, name
        self._made: dict[Any, Program] = {}

    def run(self, key: Any, module: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The outputs for some inputs, from a program that is built if there is none for their shapes."""
        inputs = tuple(x.contiguous() for x in inputs)
        key = (key, tuple(x.shape for x in inputs))
        if key not in self._made:
            self._made[key] = self._checked(module().eval(), inputs)
        return self._made[key](*inputs)

    def _checked(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Program:
        began = time.perf_counter()
        inputs = tuple(x.clone() for x in inputs)  # no inference tensors, which exporters refuse
        with torch.inference_mode(False), torch.no_grad():
            program = self._build(module, tuple(x.clone() for x in inputs))
            expected, found = module(*inputs), program(*inputs)
        worst = max(difference(a, b) for a, b in zip(found, expected, strict=True))
        if not worst <= TOLERANCE:
            raise EngineError(
                f"the program of engine {self._name} differs from the model by {worst:.1e} of its largest value but "
                f"{TOLERANCE:.0e} is accepted; take engine torch, and report the model's config"
            )
        seconds = time.perf_counter() - began
        _log.info("%s: built in %.1f s for %s, differs by %.1e", self._name, seconds, tuple(inputs[0].shape), worst)
        return program


def difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest value; NaN if there is one, infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


class EngineEncoder(VisionTransformer):
    """An encoder whose forward pass an engine runs."""

    def __init__(self, encoder: VisionTransformer, build: Build, name: str) -> None:
        nn.Module.__init__(self)
        self.config = encoder.config
        self.inner = encoder
        self._programs = _Programs(build, f"{name}, encoder")

    def forward(self, images: Tensor, needed: Collection[int] | None = None) -> Taps:
        """As the encoder's own, but always with every tap."""
        grid = self.grid_of((images.shape[-2], images.shape[-1]))
        flat = self._programs.run(None, lambda: EncoderGraph(self.inner), (images,))
        return unflatten(flat, grid, self.config.patch_size, len(self.config.taps))


class EngineDecoder(Decoder):
    """A decoder that an engine runs."""

    def __init__(self, decoder: Decoder, build: Build, name: str) -> None:
        super().__init__()
        self.align_corners = decoder.align_corners
        self.inner = decoder
        self._programs = _Programs(build, name)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """As the decoder's own, without auxiliary heads."""
        return self._run(taps, coarse=False)

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """As the decoder's own."""
        return self._run(taps, coarse=True)

    def _run(self, taps: Taps, *, coarse: bool) -> DenseOutput:
        facts = (coarse, taps.grid, taps.patch_size, len(taps.tokens))
        flat = flatten(taps)
        (logits,) = self._programs.run(facts, lambda: DecoderGraph(self.inner, *facts), flat)
        return DenseOutput(logits)
