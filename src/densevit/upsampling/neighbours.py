"""Where a resized position lies between old ones: the arithmetic of bilinear resizing, along one axis."""

import torch
from torch import Tensor


def neighbours(old: int, new: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For every new position the two old ones around it, int64, and the weight of the second, float32."""
    positions = torch.arange(new, device=device, dtype=torch.float64)
    if align_corners:
        positions = positions * ((old - 1) / (new - 1) if new > 1 else 0.0)
    else:
        positions = ((positions + 0.5) * (old / new) - 0.5).clamp_(min=0.0)
    low = positions.floor().long().clamp_(max=old - 1)
    return low, (low + 1).clamp_(max=old - 1), (positions - low).float()
