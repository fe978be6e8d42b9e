"""What the encoder makes of an image, as maps: for linear probes, search and pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from densevit.errors import MissingNameError
from densevit.inference_config import InferenceConfig, checked_input_size
from densevit.model import DenseModel
from densevit.pixels import fit_image
from densevit.types import Size

FeatureMap = NDArray[np.float32]
"""(C, h, w)."""


@dataclass(frozen=True)
class Features(Mapping[str, FeatureMap]):
    """The tapped blocks of the encoder for one image: ``features["block_11"]``, float32 (C, h, w).

    Attributes:
        maps: by name, in the order of the blocks, which are counted from 0; "stem_0" and so on are those of a
            convolutional stem, whose grids are finer.
        prefix: for each block its class, distillation and register tokens, float32 (P, C).
        grid: (h, w) of the blocks' maps.
        image_size: (H, W) of the image.
        input_size: (H, W) to which it was resized for the encoder.
    """

    maps: dict[str, FeatureMap]
    prefix: dict[str, NDArray[np.float32]]
    grid: Size
    image_size: Size
    input_size: Size

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the image, rows and columns, per cell of the grid.

        The centre of cell (i, j) is at ``((i + 0.5) * scale[0], (j + 0.5) * scale[1])``.
        """
        return self.image_size[0] / self.grid[0], self.image_size[1] / self.grid[1]

    @property
    def last(self) -> FeatureMap:
        """The map of the last block."""
        return self.maps[list(self.prefix)[-1]]

    def __getitem__(self, name: str) -> FeatureMap:
        if name not in self.maps:
            raise MissingNameError(f"there is no feature map {name!r}; this encoder gives {', '.join(self.maps)}")
        return self.maps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in self.maps.items())
        return f"Features({shapes}; {self.scale[0]:g} x {self.scale[1]:g} pixels per cell)"


@torch.inference_mode()
def extract_features(model: DenseModel, image: NDArray[Any], config: InferenceConfig) -> Features:
    """Run an image (H, W, C), whole and once at the size of ``config``, through the encoder of a model.

    Raises:
        ConfigError: if it would be enlarged beyond the budget.
    """
    size = (image.shape[0], image.shape[1])
    input_size = checked_input_size(config.input_size(size, model.config.encoder.patch_size), size)
    taps = model.encode(fit_image(image, input_size)[None].to(model.mean.device))
    blocks = [f"block_{block}" for block in model.config.encoder.taps]
    maps = {f"stem_{number}": stem for number, stem in enumerate(taps.stem_maps)}
    maps |= dict(zip(blocks, taps.maps(), strict=True))
    prefix = dict(zip(blocks, taps.prefix, strict=True))
    return Features(_arrays(maps), _arrays(prefix), taps.grid, size, input_size)


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float32]]:
    return {name: tensor[0].float().cpu().contiguous().numpy() for name, tensor in tensors.items()}
