"""Random weights under which every part of a model of timm shows in its output."""

import torch
from torch import nn


def randomise(model: nn.Module) -> None:
    """Every parameter far from zero and from one, so that a term left out cannot go unnoticed.

    What enters the first block is small, as in real models, so that the eps of the norms counts.
    """
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim == 1 and name.endswith("weight"):  # of a norm
                parameter.copy_(1 + 0.3 * noise)
            elif "gamma" in name:
                parameter.copy_(0.5 + 0.3 * noise)
            elif parameter.ndim == 3 or name == "patch_embed.proj.bias":  # tokens, positions
                parameter.copy_(0.02 * noise)
            elif name == "patch_embed.proj.weight":
                parameter.copy_(0.02 * noise / parameter[0].numel() ** 0.5)
            elif parameter.ndim == 1:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
