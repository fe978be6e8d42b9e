"""Optimisers and their parameter groups."""

from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from densevit.config import Config
from densevit.model import DenseModel
from densevit.training.distributed import full_tensor

NO_DECAY = ("pos_embed", "cls_token", "dist_token", "reg_token", "class_tokens")
NECKS = {"setr_mla": ("norms.", "laterals.", "smooths.")}
"""Parts of decoders between the encoder and the head."""


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(Config):
    """Optimiser and rates.

    Attributes:
        lr: learning rate of the encoder; heads have ``lr * head_lr_mult``.
        neck_lr_mult: likewise for SETR-MLA's feature pyramid, which has the encoder's rate in the authors' code; by
            default that of its head.
        layer_decay: factor on the rate for every block further from the heads (BEiT); none for equal rates.
        weight_decay: of matrices and convolutions; norms, biases, tokens and positions have none.
        momentum, nesterov: of SGD.
        betas: of AdamW.
        clip_norm: largest norm of all gradients together; none if not given.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(default=6e-5, gt=0, le=1e30)
    head_lr_mult: float = Field(default=10.0, gt=0, le=1e6)
    neck_lr_mult: float | None = Field(default=None, gt=0, le=1e6)
    layer_decay: float | None = Field(default=None, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0, le=1e6)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    clip_norm: float | None = Field(default=None, gt=0, le=1e30)

    @model_validator(mode="after")
    def _check(self) -> Self:
        fastest = self.lr * max(1.0, self.head_lr_mult, self.neck_lr_mult or 0.0)
        if fastest * max(self.weight_decay, 1.0) / (1 - self.betas[0]) > 1e37:  # AdamW's first step, in float32
            raise ValueError("lr with its multipliers, weight_decay and betas is beyond float32; lower lr")
        if self.nesterov and self.kind == "sgd" and not self.momentum:
            raise ValueError("nesterov needs a momentum, but it is 0; set momentum, such as 0.9, or nesterov: false")
        return self


def build_optimiser(
    config: OptimConfig, model: DenseModel, weighting: nn.Module | None = None
) -> torch.optim.Optimizer:
    """The optimiser of all parameters that require a gradient; each group has its multiplier as ``lr_mult``.

    Parameters of ``weighting``, the weights of the losses, get the heads' rate and no decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            bare = parameter.ndim < 2 or name.rsplit(".", 1)[-1] in NO_DECAY
            decay = 0.0 if bare else config.weight_decay
            groups.setdefault((_multiplier(name, config, model), decay), []).append(parameter)
    for parameter in () if weighting is None else weighting.parameters():
        groups.setdefault((config.head_lr_mult, 0.0), []).append(parameter)
    listed = [
        {"params": parameters, "lr": config.lr * mult, "lr_mult": mult, "weight_decay": decay}
        for (mult, decay), parameters in groups.items()
    ]
    if config.kind == "adamw":
        return torch.optim.AdamW(listed, betas=config.betas)
    return torch.optim.SGD(listed, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def _multiplier(name: str, config: OptimConfig, model: DenseModel) -> float:
    """The factor on the rate of a parameter."""
    part, _, rest = name.partition(".")
    if part == "heads":
        head, _, rest = rest.partition(".")
        necks = NECKS.get(model.config.heads[head].decoder.kind, ())
        if config.neck_lr_mult is not None and rest.startswith(necks):
            return config.neck_lr_mult
        return config.head_lr_mult
    if config.layer_decay is None or rest.startswith("norm."):
        return 1.0
    # Positions, tokens and the patch projection come before the first block.
    depth = int(rest.split(".")[1]) + 1 if rest.startswith("blocks.") else 0
    return config.layer_decay ** (len(model.encoder.blocks) + 1 - depth)


def clip(parameters: list[nn.Parameter], bound: float | None) -> Tensor:
    """Scale all gradients together to the norm ``bound`` if theirs is greater; returns the norm before, on the CPU."""
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if bound is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, bound, norm)
    return full_tensor(norm).detach().cpu()
