"""Run the network of a loaded model by another engine: on the CPU or, compiled, on any device.

The encoder and decoders are replaced by modules that build a program for every image size at its first use and compare
it with the original; pre- and post-processing do not change. Building takes from seconds to minutes, so an engine pays
off for many images of one size, or windows.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from densevit.config import nearest
from densevit.decoders import Decoder
from densevit.encoder import VisionTransformer
from densevit.engines import onnx, openvino
from densevit.engines.graph import DecoderGraph, EncoderGraph, flatten, unflatten
from densevit.errors import ConfigError, EngineError
from densevit.model import DenseModel
from densevit.types import DenseOutput, Taps
from densevit_runtime.engines import first_line

Program = Callable[..., tuple[Tensor, ...]]
Build = Callable[[nn.Module, tuple[Tensor, ...]], Program]


def compiled(module: nn.Module, inputs: tuple[Tensor, ...]) -> Program:
    """A program for inputs of these shapes by torch.compile; on the CPU by a C++ compiler, with constant weights.

    Raises:
        EngineError: if the compiler fails.
    """
    on_cpu = inputs[0].device.type == "cpu"
    # The outputs of a CUDA graph are overwritten by its next run, hence the copies below.
    options: dict[str, Any] = {"freezing": True} if on_cpu else {"triton.cudagraphs": True}
    run = torch.compile(module, dynamic=False, options=options)

    def program(*tensors: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode(False), torch.no_grad():
            plain = (t.clone() if t.is_inference() else t for t in tensors)
            outputs: tuple[Tensor, ...] = run(*plain)
            return outputs if on_cpu else tuple(t.clone() for t in outputs)

    try:
        program(*inputs)
    except Exception as error:
        raise EngineError(
            f"torch.compile failed ({first_line(error)}); on the CPU it needs a C++ compiler; "
            "install one, or choose engine onnxruntime or torch"
        ) from error
    return program


ENGINES: dict[str, Build] = {"compile": compiled, "onnxruntime": onnx.build, "openvino": openvino.build}
"""Name -> function that builds a program from a module and example inputs; the engine "torch" needs none."""

TOLERANCE = 1e-3
"""Largest accepted difference between program and original, relative to the largest value."""

_log = logging.getLogger(__name__)


def check_movable(engine: str, device: torch.device, wanted: str) -> None:
    """Refuse to move a model whose engine has built programs for another device.

    Raises:
        ConfigError: unless the engine is "torch".
    """
    if engine != "torch":
        raise ConfigError(
            f"engine {engine!r} builds programs for {device} and cannot move to {wanted}; load the model there, with "
            f"device={wanted!r}"
        )


def check_savable(engine: str) -> None:
    """Refuse to save a model whose modules an engine has replaced.

    Raises:
        ConfigError: unless the engine is "torch".
    """
    if engine != "torch":
        raise ConfigError(
            f"engine {engine!r} runs the model, whose modules are replaced; load it with engine torch to save it"
        )


def use_engine(model: DenseModel, engine: str) -> DenseModel:
    """Make an engine run a model, in place.

    Args:
        model: in evaluation mode.
        engine: "torch", which changes nothing, "compile", "onnxruntime" or "openvino".

    Returns:
        The same model.

    Raises:
        ConfigError: if there is no such engine, or it cannot run this model or on its device.
        EngineError: when the model runs, if the engine's package is missing, fails, or gives other values.
    """
    if engine == "torch":
        return model
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}{nearest(engine, ('torch', *ENGINES))}")
    device = model.mean.device.type
    if device != "cpu" and engine != "compile":
        raise ConfigError(
            f"engine {engine!r} runs on the CPU but the model is on {device}; choose engine compile or device cpu"
        )
    if model.encoder.merging is not None and engine != "compile":
        raise ConfigError(
            f"engine {engine!r} cannot run token merging; choose engine torch or compile, or switch merging off"
        )
    build = ENGINES[engine]
    model.encoder = EngineEncoder(model.encoder, build, engine)
    model.heads = nn.ModuleDict(
        {name: EngineDecoder(model.decoder(name), build, f"{engine}, {name}") for name in model.heads}
    )
    return model.eval()


class _Programs:
    """The programs of one module, by the shapes of their inputs."""

    def __init__(self, build: Build, name: str) -> None:
        self._build, self._name = build, name
        self._programs: dict[Any, Program] = {}

    def run(self, key: Any, module: Callable[[], nn.Module], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run the program for these shapes; it is built at their first use."""
        inputs = tuple(x.contiguous() for x in inputs)
        key = (key, tuple(x.shape for x in inputs))
        if key not in self._programs:
            self._programs[key] = self._build_checked(module().eval(), inputs)
        return self._programs[key](*inputs)

    def _build_checked(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Program:
        began = time.perf_counter()
        inputs = tuple(x.clone() for x in inputs)  # no inference tensors, which exporters refuse
        with torch.inference_mode(False), torch.no_grad():
            program = self._build(module, tuple(x.clone() for x in inputs))
            expected = module(*inputs)
            actual = program(*inputs)
        worst = max(difference(a, b) for a, b in zip(actual, expected, strict=True))
        if not worst <= TOLERANCE:
            raise EngineError(
                f"the program of engine {self._name} differs from the model by {worst:.1e} of its largest value but "
                f"{TOLERANCE:.0e} is accepted; choose engine torch, and report the model's config"
            )
        seconds = time.perf_counter() - began
        _log.info("%s: built in %.1f s for %s, differs by %.1e", self._name, seconds, tuple(inputs[0].shape), worst)
        return program


def difference(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest value; NaN if a value is, infinite for other shapes."""
    if actual.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


class EngineEncoder(VisionTransformer):
    """An encoder that an engine runs."""

    def __init__(self, encoder: VisionTransformer, build: Build, name: str) -> None:
        nn.Module.__init__(self)
        self.config = encoder.config
        self.inner = encoder
        self._programs = _Programs(build, f"{name}, encoder")

    def forward(self, images: Tensor, needed: Collection[int] | None = None) -> Taps:
        """Compute what the original encoder does, but always every tap."""
        grid = self.grid_of((images.shape[-2], images.shape[-1]))
        flat = self._programs.run(None, lambda: EncoderGraph(self.inner), (images,))
        return replace(unflatten(flat, grid, self.config.patch_size, len(self.config.taps)), image=images)


class EngineDecoder(Decoder):
    """A decoder that an engine runs."""

    def __init__(self, decoder: Decoder, build: Build, name: str) -> None:
        super().__init__()
        self.align_corners = decoder.align_corners
        self.inner = decoder
        self._programs = _Programs(build, name)

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """Compute what the original decoder does, without auxiliary heads."""
        return self._run(taps, coarse=False)

    def decode_coarse(self, taps: Taps) -> DenseOutput:
        """Compute what the original decoder does."""
        return self._run(taps, coarse=True)

    def _run(self, taps: Taps, *, coarse: bool) -> DenseOutput:
        key = (coarse, taps.grid, taps.patch_size, len(taps.tokens), taps.image is not None)
        (logits,) = self._programs.run(key, lambda: DecoderGraph(self.inner, *key), flatten(taps))
        return DenseOutput(logits)
