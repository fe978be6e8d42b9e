"""Position embeddings: a learned grid with an explicit resampling rule, rotary angles (RoPE), or both."""

import math
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from densevit.blocks import Rotation
from densevit.config import Config, PositiveWidth, bounded
from densevit.types import Size

InterpolationMode = Literal["bilinear", "bicubic"]


class RotaryPositions(Config):
    """Rotary embedding over both axes (axial RoPE): the angles of a patch are its coordinates over the periods.

    The defaults are those of DINOv3 (section 3.2). EVA-02 (Fang et al. 2023), the Perception Encoder (Bolya et al.
    2025) and RoPE-ViT (Heo et al. 2024) count patches instead.

    Attributes:
        base: ratio of the longest to the shortest period.
        coordinates: "centres" are those of the patches in [-1, 1], in turns; "indices" count patches from 0, in
            radians.
        stretch_to: (h, w) of the pre-training grid, over which the indices of any other grid are spread evenly.
        index_offset: added to indices before they are spread.
        order: which axis has the first half of the angles.
        pairs: channels that are rotated together: number i of the first and of the second "halves" of a head, or
            "neighbours".
    """

    kind: Literal["rotary"] = "rotary"
    base: float = Field(default=100.0, ge=1, le=1e12)
    coordinates: Literal["centres", "indices"] = "centres"
    stretch_to: tuple[PositiveWidth, PositiveWidth] | None = None
    index_offset: float = Field(default=0.0, ge=0, le=1)
    order: Literal["yx", "xy"] = "yx"
    pairs: Literal["halves", "neighbours"] = "halves"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.coordinates == "centres" and (self.stretch_to is not None or self.index_offset):
            raise ValueError("stretch_to and index_offset are of coordinates 'indices' only; leave them out")
        return self


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
        rotary: a rotary embedding in addition (EVA-02, Perception Encoders), or none.
    """

    kind: Literal["learned"] = "learned"
    grid: tuple[PositiveWidth, PositiveWidth]
    num_prefix: Annotated[int, bounded("width")] = Field(default=1, ge=0)
    mode: InterpolationMode = "bicubic"
    antialias: bool = False
    offset: float = Field(default=0.0, ge=0, lt=1)
    keep_equal_count: bool = False
    rotary: RotaryPositions | None = None


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


def rotary_angles(rule: RotaryPositions, grid: Size, head_dim: int, *, device: torch.device) -> Rotation:
    """The rotation of every patch of a grid; each axis uses half of the frequencies."""
    h, w = grid
    rows = torch.arange(h, device=device, dtype=torch.float32)
    columns = torch.arange(w, device=device, dtype=torch.float32)
    angles = _angles(rule, rows[:, None].expand(h, w), columns[None].expand(h, w), grid, head_dim).flatten(0, 1)
    return _rotation(rule, angles)  # of (N, head_dim)


def rotary_angles_at(rule: RotaryPositions, centres: Tensor, grid: Size, head_dim: int) -> Rotation:
    """The rotation at points (B, M, 2) of a grid, given as (row, column) in patches, (0, 0) being a patch centre."""
    angles = _angles(rule, centres[..., 0], centres[..., 1], grid, head_dim)[:, None]
    return _rotation(rule, angles)  # of (B, 1, M, head_dim)


def _angles(rule: RotaryPositions, rows: Tensor, columns: Tensor, grid: Size, head_dim: int) -> Tensor:
    """Rows and columns of points, in patches -> angles (..., head_dim / 2)."""
    quarter = head_dim // 4
    periods = rule.base ** (torch.arange(quarter, device=rows.device, dtype=torch.float32) / quarter)
    y, x = (_axis_angles(rule, points, axis, grid)[..., None] / periods for axis, points in enumerate((rows, columns)))
    return torch.cat((y, x) if rule.order == "yx" else (x, y), dim=-1)


def _axis_angles(rule: RotaryPositions, points: Tensor, axis: int, grid: Size) -> Tensor:
    """Points along an axis, in patches -> their angles at the shortest period, in radians."""
    if rule.coordinates == "centres":
        return 2 * math.pi * ((points + 0.5) / grid[axis] * 2 - 1)
    points = points + rule.index_offset
    return points if rule.stretch_to is None else points / grid[axis] * rule.stretch_to[axis]


def _rotation(rule: RotaryPositions, angles: Tensor) -> Rotation:
    """Angles (..., head_dim / 2), one for each pair of channels -> the rotation."""
    neighbours = rule.pairs == "neighbours"
    both = angles.repeat_interleave(2, dim=-1) if neighbours else torch.cat((angles, angles), dim=-1)
    return Rotation(both.sin(), both.cos(), neighbours=neighbours)
