"""Run a model with narrower numbers: 8-bit integers on the CPU, float16 or bfloat16 on a GPU. Nothing is calibrated."""

import logging
from functools import cache
from typing import Literal, get_args

import torch
from torch import nn

from densevit.blocks import Attention, Block
from densevit.config import nearest
from densevit.decoders.dpt import Reassemble
from densevit.decoders.segmenter import SegmenterMask
from densevit.engines.int8 import Int8Block, int8_linear
from densevit.errors import ConfigError
from densevit.kernels import mixed_attention
from densevit.kernels.int8 import linear as int8_kernel
from densevit.kernels.int8.processor import has_vnni
from densevit.kernels.mixed_attention import QueryKeyType
from densevit.layers import use_int8
from densevit.model import DenseModel

Precision = Literal["float32", "float16", "bfloat16", "int8"]
AttentionPrecision = Literal["float32", "bfloat16"]

_HALVES: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}

_PROJECTIONS: dict[type[nn.Module], tuple[str, ...]] = {
    SegmenterMask: ("proj_dec",),
    Reassemble: ("readout_project",),
}
"""Layers of decoders that project tokens; other linear layers of theirs classify."""

_log = logging.getLogger(__name__)


def use_precision(
    model: DenseModel, precision: Precision = "float32", *, attention: AttentionPrecision = "float32"
) -> DenseModel:
    """Make a model run with narrower numbers, in place.

    In int8 the linear layers of all transformer blocks, projections and wide convolutions multiply integers; patch
    embedding, positions, norms, softmax, classifiers and the residual stream stay float32. Without a C compiler, or on
    a processor without AVX-512 VNNI, the same is computed in torch, more slowly than float32, with one warning.

    Args:
        model: in evaluation mode, on its device.
        precision: of weights and products: "int8" on the CPU, "float16" and "bfloat16" on other devices.
        attention: "bfloat16" runs the products of attention on the CPU so: in a float32 model, where labels rarely
            change, and in an int8 model instead of integers.

    Returns:
        The same model, with the same config; it is for inference only.

    Raises:
        ConfigError: if there is no such precision, the device cannot run it, or a block has layers of other classes,
            such as adapters.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"there is no precision {precision!r}{nearest(precision, get_args(Precision))}")
    if attention not in get_args(AttentionPrecision):
        raise ConfigError(f"attention is {attention!r} but runs in {' or '.join(get_args(AttentionPrecision))}")
    _check_device(model.mean.device.type, precision, attention)
    if precision in _HALVES:
        model.encoder.to(_HALVES[precision])
        model.heads.to(_HALVES[precision])
    if precision == "int8":
        _use_int8(model)
    if precision == "int8" or attention != "float32":
        _use_products(model, "int8" if attention == "float32" else attention)
    return model.eval()


def _check_device(device: str, precision: Precision, attention: AttentionPrecision) -> None:
    if device == "cpu" and precision in _HALVES:
        raise ConfigError(
            f"precision {precision} is for GPUs, but the model is on the CPU, where it is slower than float32; choose "
            "precision int8 or float32"
        )
    if device != "cpu" and precision == "int8":
        raise ConfigError(
            f"precision int8 runs on the CPU, but the model is on {device}; choose precision bfloat16 or float16, or "
            "device cpu"
        )
    if attention != "float32" and (device != "cpu" or precision in _HALVES):
        raise ConfigError(
            f"attention {attention} is a switch of models in float32 or int8 on the CPU; leave it out: elsewhere "
            "attention has the model's own precision"
        )


def _use_int8(model: DenseModel) -> None:
    if int8_kernel.load() is None:
        _warn(f"precision int8 runs in torch here, more slowly than float32, because {_reason()}")
    parts: list[nn.Module] = [model.encoder, model.heads]
    for part in parts:
        for module in list(part.modules()):
            for name, child in list(module.named_children()):
                if type(child) is Block:
                    setattr(module, name, Int8Block(child))
    use_int8(model.heads)
    for module in list(model.heads.modules()):
        for name in _PROJECTIONS.get(type(module), ()):
            if (layer := getattr(module, name, None)) is not None:
                setattr(module, name, int8_linear(layer, name))


def _use_products(model: DenseModel, products: QueryKeyType) -> None:
    if mixed_attention.load() is None and (products == "bfloat16" or int8_kernel.load() is not None):
        _warn(
            "attention runs in float32 here: it needs a C compiler and a processor with AVX-512 VNNI and BF16, and "
            "DENSEVIT_NATIVE must not be 0"
        )
    for module in model.modules():
        if isinstance(module, Attention):
            module.precision = products


def _reason() -> str:
    if not has_vnni():
        return "the processor has no AVX-512 VNNI"
    return "its kernel could not be built: DENSEVIT_NATIVE is 0, or there is no C compiler"


@cache
def _warn(message: str) -> None:
    """Say something once."""
    _log.warning("%s", message)
