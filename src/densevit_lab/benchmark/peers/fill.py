"""Random weights under which every part of a network shows in its output."""

import torch
from torch import nn


@torch.no_grad()
def fill(model: nn.Module, *, seed: int = 0) -> None:
    """Overwrite all parameters and statistics, of a size that keeps activations in range at any depth.

    Matrices and convolutions are scaled by the root of their inputs, as trained ones roughly are; norms stay near the
    identity, so that maps neither vanish nor explode.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        tensor.normal_(generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
        elif tensor.ndim == 1:
            tensor.mul_(0.1).add_(float(name.endswith(("weight", "lambda1", "gamma"))))
        elif "pos" in name or "token" in name or name.endswith("cls_emb"):
            tensor.mul_(0.5)
        else:
            tensor.mul_((tensor.numel() / tensor.shape[0]) ** -0.5)
