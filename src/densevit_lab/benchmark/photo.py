"""A photo drawn from a seed, so that everybody measures on the same file."""

from pathlib import Path

import torch
import torch.nn.functional as F

from densevit.io import write_jpeg
from densevit.types import Size


def write_photo(path: Path, size: Size, *, seed: int = 0) -> None:
    """Write a JPEG with structure at every scale, from patches of colour to grain."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 3, *size)
    for cells in (2, 5, 12, 30, 80):
        grid = torch.rand(1, 3, cells, round(cells * size[1] / size[0]), generator=generator)
        image += F.interpolate(grid, size=size, mode="bicubic", align_corners=False) / cells**0.25
    image = (image - image.amin()) / (image.amax() - image.amin())
    write_jpeg(path, (image[0] * 255).byte().permute(1, 2, 0).contiguous().numpy())
