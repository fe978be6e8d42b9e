"""Optimisers and their parameter groups."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from densevit.config import Config
from densevit.model import DenseModel

NO_DECAY = ("pos_embed", "cls_token", "dist_token", "reg_token", "class_tokens")


class OptimConfig(Config):
    """Optimiser and rates.

    Attributes:
        lr: of the encoder; heads take ``lr * head_lr_mult``.
        weight_decay: of matrices and convolutions; norms, biases, tokens and positions have none.
        momentum, nesterov: of SGD.
        betas: of AdamW.
        clip_norm: bound on the norm of all gradients together; none if not given.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=6e-5, gt=0)
    head_lr_mult: float = Field(default=10.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0)


def build_optimiser(config: OptimConfig, model: DenseModel) -> torch.optim.Optimizer:
    """The optimiser over all parameters that require a gradient; each group knows its multiplier as ``lr_mult``."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            mult = config.head_lr_mult if name.startswith("heads.") else 1.0
            bare = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY
            groups.setdefault((mult, 0.0 if bare else config.weight_decay), []).append(parameter)
    listed = [
        {"params": parameters, "lr": config.lr * mult, "lr_mult": mult, "weight_decay": decay}
        for (mult, decay), parameters in groups.items()
    ]
    if config.kind == "adamw":
        return torch.optim.AdamW(listed, betas=config.betas)
    return torch.optim.SGD(listed, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)
