"""Photos of 10 or 12 bits in files of 16 are read as they are, almost black, with a warning."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.io import read_depth, read_image, read_labels

rasterio = pytest.importorskip("rasterio")


def write(path: Path, peak: int, channels: int) -> Path:
    """A photo of 16 bits whose largest value is ``peak``."""
    values = np.linspace(0, peak, 24 * 32 * channels).astype(np.uint16).reshape(24, 32, channels)
    if path.suffix == ".ppm":
        path.write_bytes(b"P%d 32 24 65535\n" % (6 if channels == 3 else 5) + values.astype(">u2").tobytes())
    elif channels == 1:
        Image.fromarray(values[:, :, 0]).save(path)
    else:
        profile = {"height": 24, "width": 32, "count": 3, "dtype": "uint16"}
        tiff = {"photometric": "RGB", "interleave": "pixel"}
        profile |= {"driver": "PNG"} if path.suffix == ".png" else {"driver": "GTiff", **tiff}
        with rasterio.open(path, "w", **profile) as file:
            file.write(np.moveaxis(values, -1, 0))
    return path


@pytest.mark.parametrize(("name", "channels"), [("a.png", 1), ("a.tif", 1), ("a.ppm", 1), ("a.png", 3), ("a.tif", 3)])
@pytest.mark.parametrize(("peak", "white"), [(1023, 1023), (4095, 4095), (3000, 4095), (200, 255)])
def test_dark_photo__is_named_once_with_the_remedy(
    name: str, channels: int, peak: int, white: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / name, peak, channels)

    first, second = read_image(path), read_image(path)

    assert first.max() == second.max() == (peak // 256 if channels == 3 else (peak + 128) // 257)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith(f"{path} holds 16-bit values up to ")
    assert f"--stream --range 0,{white}," in message


@pytest.mark.parametrize(("name", "channels"), [("a.png", 1), ("a.ppm", 1), ("a.png", 3), ("a.tif", 3)])
@pytest.mark.parametrize("peak", [9000, 65535])
def test_photo__of_higher_values_has_no_warning(
    name: str, channels: int, peak: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read_image(write(tmp_path / name, peak, channels))

    assert not caplog.records


def test_other_dark_files__have_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_labels(write(tmp_path / "mask.png", 30, 1))
    read_depth(write(tmp_path / "depth.png", 3000, 1), unit_m=0.001)
    Image.fromarray(np.full((4, 5, 3), 3, np.uint8)).save(tmp_path / "night.png")
    read_image(tmp_path / "night.png")

    assert not caplog.records
