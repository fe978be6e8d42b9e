"""A decoder from outside the package: a function that makes a module, or a config with its ``Decoder``."""

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from densevit.decoders.base import Decoder, DecoderConfig
from densevit.errors import ConfigError
from densevit.types import DenseOutput, Taps

DecoderRow = tuple[type[DecoderConfig], Callable[..., Decoder]]


class PluginDecoderConfig(DecoderConfig):
    """A decoder that a function makes.

    Attributes:
        options: keyword arguments of the function, besides the widths.
    """

    options: dict[str, Any] = Field(default_factory=dict)


class PluginDecoder(Decoder):
    """A module of the user's, which turns ``Taps`` into logits (B, K, h', w') or a ``DenseOutput``.

    Its attribute ``align_corners`` says how the logits are resized to the image; False without one.
    """

    def __init__(self, name: str, module: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.name, self.module, self.out_channels = name, module, out_channels
        self.align_corners = bool(getattr(module, "align_corners", False))

    def decode(self, taps: Taps, *, with_aux: bool) -> DenseOutput:
        """The module's output, checked.

        Raises:
            ConfigError: it has another type or shape.
        """
        output = self.module(taps)
        found = output if isinstance(output, DenseOutput) else DenseOutput(output)
        if not isinstance(found.logits, Tensor) or found.logits.ndim != 4 or found.logits.shape[1] != self.out_channels:
            shape = tuple(found.logits.shape) if isinstance(found.logits, Tensor) else type(found.logits).__name__
            raise ConfigError(
                f"decoder {self.name!r} gave {shape} but logits (B, {self.out_channels}, h, w) are needed; correct its "
                "forward"
            )
        return found if with_aux else DenseOutput(found.logits)


def adapt_decoder(name: str, plugin: Any) -> DecoderRow:
    """A plug-in -> config class and builder.

    Args:
        name: its kind.
        plugin: a function or class that takes the keywords ``embed_dim``, ``num_taps`` and ``out_channels`` (and
            options) and gives an ``nn.Module``; or a pair (``DecoderConfig``, ``Decoder``).

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(plugin, tuple) and len(plugin) == 2:
        config, decoder = plugin
        if isinstance(config, type) and issubclass(config, DecoderConfig) and isinstance(decoder, type):
            return config, decoder
    elif callable(plugin) and not (isinstance(plugin, type) and issubclass(plugin, DecoderConfig)):
        return PluginDecoderConfig, lambda config, **widths: _build(name, plugin, config, **widths)
    raise ConfigError(
        f"decoder {name!r} is {plugin!r:.80}; a function of embed_dim, num_taps and out_channels that gives a module, "
        "or a pair of DecoderConfig and Decoder, is accepted"
    )


def _build(
    name: str, plugin: Callable[..., Any], config: PluginDecoderConfig, *, out_channels: int, **widths: int
) -> Decoder:
    try:
        module = plugin(out_channels=out_channels, **widths, **config.options)
    except TypeError as error:
        given = ", ".join(["embed_dim", "num_taps", "out_channels", *config.options])
        raise ConfigError(
            f"decoder {name!r} was called with {given}: {error}; correct its parameters, or options"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(f"decoder {name!r} gave a {type(module).__name__}; a torch.nn.Module is accepted; return one")
    return module if isinstance(module, Decoder) else PluginDecoder(name, module, out_channels)


def check_buffers(kind: str, decoder: nn.Module) -> None:
    """Refuse buffers that a checkpoint would not restore, since it is read into a model without values.

    Raises:
        ConfigError: naming the first.
    """
    kept = decoder.state_dict(keep_vars=True).keys()
    if lost := [name for name, _ in decoder.named_buffers() if name not in kept]:
        raise ConfigError(
            f"decoder {kind!r} has the buffer {lost[0]!r}, which is not persistent, so that no checkpoint can hold it; "
            "register it with persistent=True, or compute it in forward"
        )
