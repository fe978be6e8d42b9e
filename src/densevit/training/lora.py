"""LoRA: low-rank matrices in parallel to the linear layers of a frozen encoder are trained.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022. The adapters come from
``peft`` (extra ``lora``); they are merged into the weights of the finished model, which does not need the library.
"""

import copy
from typing import Any, Literal

from pydantic import Field

from densevit.config import Config
from densevit.errors import ConfigError
from densevit.model import DenseModel

_PLACES = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}


class LoraConfig(Config):
    """Low-rank adapters in every block of the encoder.

    Attributes:
        rank: r of the paper.
        alpha: the adapters' output is multiplied by ``alpha / rank``.
        dropout: on their input.
        targets: the linear layers that get an adapter.
    """

    rank: int = Field(default=8, gt=0, le=1_000_000)
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = Field(default=("qkv", "proj"), min_length=1)


def add_lora(model: DenseModel, config: LoraConfig) -> None:
    """Freeze the encoder and insert adapters, which do not change its output before training.

    Raises:
        ConfigError: if peft is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"lora is set but peft cannot be imported ({error}); pip install 'densevit[lora]', or unset lora"
        ) from None
    names = "|".join(f"{_PLACES[target]}\\.{target}" for target in config.targets)
    rule = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=rf"blocks\.\d+\.({names})",
        bias="none",
    )
    model.encoder.requires_grad_(False)
    peft.inject_adapter_in_model(rule, model.encoder)


def without_lora(model: DenseModel) -> DenseModel:
    """An equivalent model of plain linear layers; the model itself if it has no adapters."""
    if not any(hasattr(module, "lora_A") for module in model.encoder.modules()):
        return model
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if hasattr(module, "lora_A"):
            adapter: Any = module
            adapter.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(plain.get_submodule(parent), leaf, adapter.get_base_layer())
    return plain.requires_grad_(True)
