"""Position embeddings: a learned grid with an explicit resampling rule, or rotary angles (RoPE) as in DINOv3."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from densevit.blocks import Rotation
from densevit.config import Config, PositiveWidth, bounded
from densevit.types import Size

InterpolationMode = Literal["bilinear", "bicubic"]


class LearnedPositions(Config):
    """A grid of learned vectors, one for each patch of the pre-training image, and optionally for prefix tokens.

    Attributes:
        grid: (h, w) of the stored grid.
        num_prefix: number of prefix tokens (class, distillation, registers, in this order) that have a vector.
        mode: interpolation to another grid size (always align_corners=False).
        antialias: shrink the grid with antialiasing; the weights of "bicubic" differ then in enlarging too. So do
            timm, and DINOv2 with registers.
        offset: 0.0 interpolates to the target size. 0.1 reproduces DINOv2's code, which passes a scale of
            (h + 0.1) / h_stored instead and so shifts every sample point.
        keep_equal_count: whether another grid with the same number of patches (4 x 4 for 2 x 8) uses the vectors
            unchanged, as in Segmenter and mmsegmentation, which only compare sequence lengths.
    """

    kind: Literal["learned"] = "learned"
    grid: tuple[PositiveWidth, PositiveWidth]
    num_prefix: Annotated[int, bounded("width")] = Field(default=1, ge=0)
    mode: InterpolationMode = "bicubic"
    antialias: bool = False
    offset: float = Field(default=0.0, ge=0, lt=1)
    keep_equal_count: bool = False


class RotaryPositions(Config):
    """Rotary embedding over both axes, with patch centres in [-1, 1]. Source: DINOv3, section 3.2.

    Attributes:
        base: ratio of the longest to the shortest period.
    """

    kind: Literal["rotary"] = "rotary"
    base: float = Field(default=100.0, ge=1, le=1e12)


def resample_positions(
    positions: Tensor, old: Size, new: Size, *, mode: InterpolationMode, offset: float = 0.0, antialias: bool = False
) -> Tensor:
    """Resample (1, h_old * w_old, C) grid vectors to (1, h * w, C) in float32; the identity for equal grids."""
    if old == new:
        return positions
    grid = positions.float().unflatten(1, old).permute(0, 3, 1, 2)  # (1, C, h_old, w_old)
    if offset:
        scale = (float(new[0] + offset) / old[0], float(new[1] + offset) / old[1])
        grid = F.interpolate(grid, scale_factor=scale, mode=mode, align_corners=False, antialias=antialias)
    else:
        grid = F.interpolate(grid, size=new, mode=mode, align_corners=False, antialias=antialias)
    return grid.flatten(2).transpose(1, 2).to(positions.dtype)  # (1, N, C)


def positions_for(positions: Tensor, rule: LearnedPositions, grid: Size) -> Tensor:
    """Stored grid vectors (1, N_stored, C) -> the vectors of a grid (1, h * w, C)."""
    if rule.keep_equal_count and grid[0] * grid[1] == positions.shape[1]:
        return positions
    return resample_positions(positions, rule.grid, grid, mode=rule.mode, offset=rule.offset, antialias=rule.antialias)


def rotary_angles(grid: Size, head_dim: int, *, base: float, device: torch.device) -> Rotation:
    """The rotation of every patch of a grid; each axis uses half of the frequencies."""
    h, w = grid
    rows = (torch.arange(h, device=device, dtype=torch.float32) + 0.5) / h * 2 - 1
    columns = (torch.arange(w, device=device, dtype=torch.float32) + 0.5) / w * 2 - 1
    angles = _angles(rows[:, None].expand(h, w), columns[None].expand(h, w), head_dim, base).flatten(0, 1)
    return Rotation(angles.sin(), angles.cos())  # (N, head_dim)


def rotary_angles_at(centres: Tensor, grid: Size, head_dim: int, *, base: float) -> Rotation:
    """The rotation at points (B, M, 2) of a grid, given as (row, column) in patches, (0, 0) being a patch centre."""
    h, w = grid
    rows = (centres[..., 0] + 0.5) / h * 2 - 1
    columns = (centres[..., 1] + 0.5) / w * 2 - 1
    angles = _angles(rows, columns, head_dim, base)[:, None]  # (B, 1, M, head_dim)
    return Rotation(angles.sin(), angles.cos())


def _angles(rows: Tensor, columns: Tensor, head_dim: int, base: float) -> Tensor:
    """Coordinates in [-1, 1] -> angles (..., head_dim)."""
    periods = base ** (torch.arange(head_dim // 4, device=rows.device, dtype=torch.float32) / (head_dim // 4))
    y = 2 * math.pi * rows[..., None] / periods
    x = 2 * math.pi * columns[..., None] / periods
    return torch.cat((y, x, y, x), dim=-1)
