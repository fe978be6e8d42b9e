"""The arithmetic of bilinear resizing along one axis: the two old positions around a new one, and their weights."""

import torch
from torch import Tensor


def positions(
    new: Tensor, old_length: int, new_length: int, *, align_corners: bool, dtype: torch.dtype = torch.float64
) -> Tensor:
    """New positions (n,) -> old coordinates (n,), which may lie before the first, computed in ``dtype``."""
    new = new.to(dtype)
    if align_corners:
        return new * ((old_length - 1) / (new_length - 1) if new_length > 1 else 0.0)
    return (new + 0.5) * (old_length / new_length) - 0.5


def neighbours_at(position: Tensor, old_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The two int64 old indices around each position, and the float32 weight of the second."""
    position = position.clamp(min=0.0)
    low = position.floor().long().clamp_(max=old_length - 1)
    return low, (low + 1).clamp_(max=old_length - 1), (position - low).float()


def neighbours(
    old: int, new: int, align_corners: bool, device: torch.device, *, always_two: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """``neighbours_at`` for every new position of an axis.

    Between equal lengths each position is its own neighbour unless ``always_two``, so that a copy does not spread NaN,
    which a weight of 0 would not remove.
    """
    if old == new and not always_two:
        same = torch.arange(new, device=device)
        return same, same, torch.zeros(new, device=device)
    return neighbours_at(positions(torch.arange(new, device=device), old, new, align_corners=align_corners), old)


def lerp_infinite(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """``torch.lerp`` with ``weight`` in [0, 1] where values may be infinite: one with a weight of 0 does not count."""
    shares = torch.where(weight == 1, 0.0, first * (1 - weight)) + torch.where(weight == 0, 0.0, second * weight)
    return torch.where(first.isinf() | second.isinf(), shares, torch.lerp(first, second, weight))
