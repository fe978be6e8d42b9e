"""Where a resized position lies between old ones: the arithmetic of resizing, along one axis."""

import torch
from torch import Tensor


def positions(
    new: Tensor, old_length: int, new_length: int, *, align_corners: bool, dtype: torch.dtype = torch.float64
) -> Tensor:
    """The old positions (n,), perhaps before the first, at which new ones (n,) lie, computed in a type of one's own."""
    new = new.to(dtype)
    if align_corners:
        return new * ((old_length - 1) / (new_length - 1) if new_length > 1 else 0.0)
    return (new + 0.5) * (old_length / new_length) - 0.5


def neighbours_at(position: Tensor, old_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two old indices around positions, int64, and the weight of the second, float32; bilinear resizing."""
    position = position.clamp(min=0.0)
    low = position.floor().long().clamp_(max=old_length - 1)
    return low, (low + 1).clamp_(max=old_length - 1), (position - low).float()


def neighbours(old: int, new: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The same for every new position of an axis."""
    return neighbours_at(positions(torch.arange(new, device=device), old, new, align_corners=align_corners), old)
