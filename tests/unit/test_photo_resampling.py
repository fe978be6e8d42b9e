"""Resizing as other libraries do it; what is expected here was computed by OpenCV 4.8 and 5.0, which agree."""

import hashlib
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from densevit.inference.protocol_resize import centre_padded, opencv_cubic, opencv_linear, pillow
from densevit.inference_config import Resampling
from densevit.types import Size


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """The same pixels on every machine: a linear congruential generator."""
    state, values = 12345, bytearray()
    for _ in range(height * width * 3):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        values.append(state >> 56)
    return np.frombuffer(bytes(values), np.uint8).reshape(height, width, 3)


def as_pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ((37, 50), (51, 68), "6ae20b2316256144"),
        ((50, 37), (25, 19), "c3d33e416a28fe65"),
        ((40, 60), (20, 30), "c8fa85e8eeb1bb72"),
        ((33, 20), (120, 7), "ce6b7b2b32f97ba1"),
    ],
)
def test_opencv_linear__equals_opencv_bit_for_bit(old: Size, new: Size, expected: str) -> None:
    resized = as_pixels(opencv_linear(noise(*old), new))

    assert hashlib.sha256(resized.tobytes()).hexdigest()[:16] == expected


def test_opencv_linear__leaves_a_photo_of_the_right_size() -> None:
    photo = noise(5, 7)

    assert np.array_equal(as_pixels(opencv_linear(photo, (5, 7))), photo)


def test_opencv_cubic__equals_opencv() -> None:
    resized = opencv_cubic(noise(7, 9), (5, 11))

    expected_corner = [0.09133888072390867, 0.6929252443780565, 0.9751987763712134, 0.6258197111436533]
    assert resized[0, 0, :4].tolist() == pytest.approx(expected_corner, abs=1e-6)
    assert resized[:, -1, -1].tolist() == pytest.approx(
        [0.6349314332872031, 0.40026640244122835, 0.09873033070872118], abs=1e-6
    )
    assert float(resized.double().sum()) == pytest.approx(81.80533911310698, rel=1e-6)


@pytest.mark.parametrize("resample", get_args(Resampling))
def test_pillow__equals_each_of_its_filters(resample: Resampling) -> None:
    photo = noise(20, 30)

    expected = np.asarray(Image.fromarray(photo).resize((17, 41), Image.Resampling[resample.upper()]))

    assert np.array_equal(as_pixels(pillow(photo, (41, 17), resample)), expected)


@pytest.mark.parametrize(("multiple", "size"), [(1, (5, 6)), (4, (8, 8)), (5, (5, 10))])
def test_centre_padding__puts_half_on_either_side(multiple: int, size: tuple[int, int]) -> None:
    padded = centre_padded(torch.ones(1, 3, 5, 6), multiple)

    assert padded.shape[-2:] == size
    top, left = (size[0] - 5) // 2, (size[1] - 6) // 2
    assert padded[..., top : top + 5, left : left + 6].min() == 1
    assert padded.sum() == 3 * 5 * 6
