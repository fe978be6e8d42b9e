"""What runs a model: the engine and the precision of its speed switches."""

import torch

from densevit.engines import engine
from densevit.engines.engine import use_engine
from densevit.engines.precision import use_precision
from densevit.errors import ConfigError
from densevit.inference.speed import SpeedConfig
from densevit.model import DenseModel


def use_speed(model: DenseModel, speed: SpeedConfig) -> DenseModel:
    """Make the engine and the precision of the switches run a model of ``apply_speed``, in place, on its device.

    Raises:
        ConfigError: if they cannot run this model, or on its device.
    """
    return use_precision(use_engine(model, speed.engine), speed.precision, attention=speed.attention)


def check_movable(speed: SpeedConfig, device: torch.device, wanted: str) -> None:
    """Refuse to move a model that an engine or a precision has made for another device.

    Raises:
        ConfigError: if it was.
    """
    engine.check_movable(speed.engine, device, wanted)
    changed = {name: value for name in ("precision", "attention") if (value := getattr(speed, name)) != "float32"}
    if changed:
        what = " and ".join(f"{name} {value}" for name, value in changed.items())
        raise ConfigError(
            f"the model runs in {what} on {device} and cannot move to {wanted}; load it there, with device={wanted!r}"
        )


def check_savable(speed: SpeedConfig) -> None:
    """Refuse to save a model whose modules or weights an engine or a precision has replaced.

    Raises:
        ConfigError: if it has.
    """
    engine.check_savable(speed.engine)
    if speed.precision != "float32":
        raise ConfigError(
            f"the model runs in precision {speed.precision}, whose weights are rounded; load it with precision float32 "
            "to save it"
        )
