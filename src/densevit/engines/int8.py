"""Parts of a model with linear layers on 8-bit tokens, for inference on the CPU."""

import torch.nn.functional as F
from torch import Tensor, nn

from densevit.blocks import Block, LayerScale, Mlp, Rotation
from densevit.errors import ConfigError
from densevit.kernels.buffers import buffer
from densevit.kernels.dispatch import use_kernel
from densevit.kernels.int8.linear import MAX_DEPTH, Int8Linear, Preparation, run_layers
from densevit.kernels.linear import Linear


class Int8Block(Block):
    """A transformer block whose linear layers and attention multiply 8-bit integers.

    LayerScale is part of the weights' scales; norms, softmax and the residual stream are float32. Results that only the
    block itself reads share one memory for all blocks; its output is a tensor of its own, which may be a tap.
    """

    def __init__(self, block: Block) -> None:
        """Take a block apart, which is not to be used afterwards."""
        nn.Module.__init__(self)
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.activation = _preparation(block)
        self.qkv = int8_linear(block.attn.qkv, "qkv")
        self.proj = int8_linear(block.attn.proj, "proj", _gamma(block.ls1))
        self.fc1 = int8_linear(block.mlp.fc1, "fc1")
        self.fc2 = int8_linear(block.mlp.fc2, "fc2", _gamma(block.ls2))
        self.hidden_norm = nn.Identity() if isinstance(block.mlp, Mlp) else block.mlp.norm
        del block.attn.qkv, block.attn.proj
        self.attn = block.attn  # what is left of it mixes heads

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.feed_forward(self._attend(x, rotation, None, _scratch("after attention", x, 1)))

    def attend(self, x: Tensor, rotation: Rotation | None = None, bias: Tensor | None = None) -> Tensor:
        """The first half: x + attention(norm(x)); ``bias`` as in ``Attention``."""
        return self._attend(x, rotation, bias, None)

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half: x + feed-forward(norm(x))."""
        if isinstance(self.hidden_norm, nn.LayerNorm):
            gate, value = run_layers(x, [(self.norm2, self.fc1)]).chunk(2, dim=-1)
            return run_layers(self.hidden_norm(F.silu(gate) * value), [("plain", self.fc2)], residual=x)
        return run_layers(x, [(self.norm2, self.fc1), (self.activation, self.fc2)], residual=x)

    def _attend(self, x: Tensor, rotation: Rotation | None, bias: Tensor | None, out: Tensor | None) -> Tensor:
        qkv = run_layers(x, [(self.norm1, self.qkv)], out=_scratch("queries, keys and values", x, 3))
        return run_layers(self.attn.mix(qkv, rotation, bias), [("plain", self.proj)], residual=x, out=out)


def int8_linear(layer: nn.Module, name: str, factor: Tensor | None = None) -> Int8Linear:
    """A layer with its outputs multiplied by a factor, in 8 bits.

    Raises:
        ConfigError: if it is not a plain linear layer.
    """
    if type(layer) not in (nn.Linear, Linear):
        raise ConfigError(
            f"precision int8 needs plain linear layers, but {name} is a {type(layer).__module__}."
            f"{type(layer).__qualname__}; merge adapters first, with densevit.training.lora.without_lora, or choose "
            "precision float32"
        )
    assert isinstance(layer, nn.Linear)
    if layer.in_features > MAX_DEPTH:
        raise ConfigError(
            f"{name} has {layer.in_features} inputs, but precision int8 takes up to {MAX_DEPTH}; choose float32"
        )
    return Int8Linear.of(layer.weight, layer.bias, factor)


def _gamma(module: nn.Module) -> Tensor | None:
    return module.gamma.detach() if isinstance(module, LayerScale) else None


def _preparation(block: Block) -> Preparation:
    return block.mlp.activation_name if isinstance(block.mlp, Mlp) else "swiglu"


def _scratch(name: str, x: Tensor, factor: int) -> Tensor | None:
    """Memory for a result so many times as wide as x, where the kernels write into it."""
    return buffer(name, *x.shape[:-1], factor * x.shape[-1]) if use_kernel(x) else None
