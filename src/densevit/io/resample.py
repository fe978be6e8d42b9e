"""Resizing by Pillow, where results must be bit-equal to it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densevit.types import Size


def resize_bicubic(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """uint8 (H, W, 3) -> uint8 (*size, 3), antialiased bicubic."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.BICUBIC))
