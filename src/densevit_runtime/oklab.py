"""OKLab, in which equal distances look equal: Björn Ottosson, "A perceptual color space for image processing", 2020.

The two matrices are his.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RGB_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def polar(lch: Floats) -> Floats:
    """(N, 3) lightness, chroma, hue in degrees -> OKLab."""
    lightness, chroma, hue = lch.T
    return np.stack([lightness, chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))], axis=-1)


def to_lab(rgb: NDArray[Any]) -> Floats:
    """(..., 3) sRGB 0..255 -> OKLab."""
    gamma = rgb / 255
    linear = np.where(gamma <= 0.04045, gamma / 12.92, ((gamma + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _RGB_TO_LMS.T) @ _LMS_TO_LAB.T)


def from_lab(lab: Floats) -> Floats:
    """(..., 3) OKLab -> sRGB, 0..255 for colours that a screen can show."""
    linear = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3 @ np.linalg.inv(_RGB_TO_LMS).T
    gamma = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clip(0.0031308) ** (1 / 2.4) - 0.055)
    return np.asarray(gamma * 255)
