"""Photos of every kind a user may have, all made here with Pillow."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from densevit.errors import DataError
from densevit.io import read_image

ACCEPTED = "JPEG, PNG, WebP, AVIF, TIFF, GIF, BMP, PPM and JPEG 2000 are accepted"
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height=32, width=48):
    """Smooth, so that lossy formats keep it within a few levels, and different in all four corners."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 4 * y, 200 - 3 * x, 60 + y + 2 * x], axis=2).clip(0, 255).astype(np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def png(width, height, bits, kind, rows, *chunks):
    """A PNG from its parts, for what Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


def refusal(call):
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "mode", "options", "tolerance"),
    [
        ("a.png", "RGB", {}, 0),
        ("a.bmp", "RGB", {}, 0),
        ("a.ppm", "RGB", {}, 0),
        ("a.tif", "RGB", {"compression": "tiff_lzw"}, 0),
        ("a.tif", "CMYK", {}, 0),
        ("a.tif", "YCbCr", {}, 3),
        ("a.png", "RGBA", {}, 0),
        ("a.jpg", "RGB", {"quality": 95}, 6),
        ("a.jpg", "RGB", {"quality": 95, "progressive": True}, 6),
        ("a.jpg", "CMYK", {"quality": 95}, 6),
        ("a.webp", "RGBA", {"lossless": True}, 0),
        ("a.jp2", "RGB", {}, 0),
        ("a.avif", "RGB", {"quality": 95}, 8),
    ],
)
def test_read_image__gives_the_colours_of_any_format_and_mode(tmp_path, name, mode, options, tolerance):
    path = save(Image.fromarray(photo()).convert(mode), tmp_path / name, **options)
    difference = read_image(path).astype(int) - photo()
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("name", ["grey.png", "grey.jpg", "alpha.png", "bit.png"])
def test_read_image__gives_three_equal_channels_for_grey(tmp_path, name):
    mode = {"alpha.png": "LA", "bit.png": "1"}.get(name, "L")
    image = read_image(save(Image.fromarray(photo()).convert(mode), tmp_path / name))
    assert image.shape == (32, 48, 3)
    assert (image == image[:, :, :1]).all()


def test_read_image__shows_palette_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 0]], np.uint8))
    image.putpalette([*RED, *GREEN, *BLUE])
    assert read_image(save(image, tmp_path / "p.gif")).tolist() == [[[*RED], [*GREEN]], [[*BLUE], [*RED]]]


def test_read_image__converts_lab(tmp_path):
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    path = save(ImageCms.applyTransform(Image.fromarray(photo()), lab), tmp_path / "lab.tif")
    assert np.abs(read_image(path).astype(int) - photo()).mean() <= 1  # 8-bit LAB is coarse for saturated colours


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_read_image__scales_16_bit_grey_from_its_full_range(tmp_path, name):
    path = save(Image.fromarray(np.array([[0, 128, 129, 32896, 65535]], np.uint16)), tmp_path / name)
    assert read_image(path)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_read_image__keeps_the_high_byte_of_16_bit_colour(tmp_path):
    path = tmp_path / "deep.png"
    path.write_bytes(png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF)))
    assert read_image(path).tolist() == [[[0x12, 0x80, 0xFF]]]


@pytest.mark.parametrize(("values", "expected"), [([0, 0.5, 1], [0, 128, 255]), ([0, 127.6, 255], [0, 128, 255])])
def test_read_image__scales_floats_from_0_to_1_or_255(tmp_path, values, expected):
    path = save(Image.fromarray(np.array([values], np.float32)), tmp_path / "f.tif")
    assert read_image(path)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (300, np.float32, "holds floats from 300 to 300; floats in 0..1 or 0..255 are accepted; scale the values"),
        (np.nan, np.float32, "holds floats from nan to nan; floats in 0..1 or 0..255 are accepted; scale the values"),
        (-7, np.int32, "holds 32-bit integers from -7 to -7; 0..65535 is accepted; scale the values"),
    ],
)
def test_read_image__refuses_values_of_unknown_range(tmp_path, value, dtype, message):
    path = save(Image.fromarray(np.full((2, 2), value, dtype)), tmp_path / "f.tif")
    assert refusal(lambda: read_image(path)) == f"{path} {message}"


def test_read_image__composites_alpha_on_white(tmp_path):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [255, 0, 0, 128], [50, 0, 0, 100]]], np.uint8)
    path = save(Image.fromarray(pixels), tmp_path / "a.png")
    assert read_image(path).tolist() == [[[255, 0, 0], [255, 255, 255], [255, 127, 127], [175, 155, 155]]]


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_read_image__shows_white_through_a_transparent_palette_entry(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([*RED, *GREEN])
    path = save(image, tmp_path / "p.png", transparency=transparency)
    assert read_image(path).tolist() == [[[*WHITE], [*GREEN]]]


def test_read_image__shows_white_through_a_transparent_colour(tmp_path):
    path = save(Image.fromarray(np.array([[RED, GREEN]], np.uint8)), tmp_path / "c.png", transparency=RED)
    assert read_image(path).tolist() == [[[*WHITE], [*GREEN]]]


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_read_image__takes_the_first_frame(tmp_path, name):
    frames = [Image.new("RGB", (20, 10), colour) for colour in (RED, GREEN, BLUE)]
    options = {"lossless": True} if name == "a.webp" else {}
    path = save(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert (read_image(path) == RED).all()


def test_read_image__takes_the_first_picture_of_a_phone_jpeg(tmp_path):
    frames = [Image.new("RGB", (20, 10), colour) for colour in (WHITE, BLUE)]
    path = save(frames[0], tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert (read_image(path) > 250).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "corners"),  # where the stored corners (top left, top right, bottom left, bottom right) belong
    [
        (1, "RGBW"),
        (2, "GRWB"),
        (3, "WBGR"),
        (4, "BWRG"),
        (5, "RBGW"),
        (6, "BRWG"),
        (7, "WGBR"),
        (8, "GWRB"),
        (0, "RGBW"),
        (9, "RGBW"),
    ],
)
def test_read_image__stands_upright(tmp_path, name, orientation, corners):
    colours = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    stored = np.zeros((16, 32, 3), np.uint8)
    for letter, (row, column) in zip("RGBW", [(0, 0), (0, 16), (8, 0), (8, 16)], strict=True):
        stored[row : row + 8, column : column + 16] = colours[letter]
    exif = Image.Exif()
    exif[274] = orientation
    image = read_image(save(Image.fromarray(stored), tmp_path / name, exif=exif))
    height, width = image.shape[:2]
    assert (height, width) == ((32, 16) if orientation in {5, 6, 7, 8} else (16, 32))
    seen = [image[y, x] for y in (2, height - 3) for x in (2, width - 3)]
    for pixel, letter in zip(seen, corners, strict=True):
        assert np.abs(pixel.astype(int) - colours[letter]).max() < 60


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_read_image__survives_damaged_exif(tmp_path):
    path = save(Image.fromarray(photo()), tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert read_image(path).shape == (32, 48, 3)


def test_read_image__reports_exif_that_cannot_be_parsed(tmp_path, monkeypatch, caplog):
    path = save(Image.fromarray(photo()), tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "getexif", lambda self: struct.unpack(">I", b"no"))
    assert (read_image(path) == photo()).all()
    assert "a.png has damaged EXIF data" in caplog.text


@pytest.mark.parametrize("name", ["one.png", "one.jpg", "one.gif"])
def test_read_image__reads_a_single_pixel(tmp_path, name):
    assert read_image(save(Image.new("RGB", (1, 1), WHITE), tmp_path / name)).tolist() == [[[*WHITE]]]


def test_read_image__reads_12000_x_9000_without_a_warning(tmp_path):
    path = save(Image.new("1", (12000, 9000), 1), tmp_path / "big.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (9000, 12000, 3)


def test_read_image__leaves_the_limit_of_pillow_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    read_image(save(Image.fromarray(photo()), tmp_path / "a.png"))
    assert Image.MAX_IMAGE_PIXELS == 100


def test_read_image__refuses_more_than_a_gigapixel_before_decoding(tmp_path):
    path = tmp_path / "giga.png"
    path.write_bytes(png(40000, 30000, 1, 0, b""))
    assert refusal(lambda: read_image(path)) == (
        f"{path} has 30000 x 40000 pixels, and up to 1,000,000,000 are accepted; if it is right, set "
        "DENSEVIT_LIMITS=pixels=NUMBER, or scale it down or cut it into tiles"
    )


def test_max_pixels__is_inclusive(tmp_path, monkeypatch):
    path = save(Image.fromarray(photo(2, 5)), tmp_path / "a.png")
    monkeypatch.setenv("DENSEVIT_LIMITS", "pixels=10")
    assert read_image(path).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"hello there\n",
            f"is a text file that begins with 'hello there\\n'; {ACCEPTED}; convert it or copy it again",
        ),
        (b"", "is empty (0 bytes); copy or download it again"),
        (b"\0\0\0\x18ftypheic\0\0", f"is a HEIC photo; {ACCEPTED}; convert it or copy it again"),
        (b"%PDF-1.7\n", f"is a PDF; {ACCEPTED}; convert it or copy it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            f"is a Git LFS pointer, so the real file was not fetched; {ACCEPTED}; convert it or copy it again",
        ),
        (b"\xff\xd8", f"is not an image, or its first bytes are damaged; {ACCEPTED}; convert it or copy it again"),
    ],
)
def test_read_image__says_what_a_stranger_is(tmp_path, content, message):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert refusal(lambda: read_image(path)) == f"{path} {message}"


def test_read_image__refuses_a_missing_path(tmp_path):
    path = tmp_path / "no" / "a.jpg"
    assert refusal(lambda: read_image(path)) == f"{path} does not exist; check the path"


def test_read_image__refuses_a_folder(tmp_path):
    assert refusal(lambda: read_image(tmp_path)) == f"{tmp_path} is a folder, not a file; name a file in it"


def test_read_image__refuses_a_device():
    path = Path(os.devnull)
    assert refusal(lambda: read_image(path)) == f"{path} is a device or a pipe, not a file; save it to a file first"


@pytest.mark.parametrize("name", ["\0.png", "a" * 5000])
def test_read_image__refuses_an_impossible_name(name):
    assert "cannot be read" in refusal(lambda: read_image(Path(name)))


@pytest.mark.parametrize("name", ["a.jpg", "progressive.jpg", "a.png", "a.webp", "a.tif", "a.gif", "a.bmp", "a.avif"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_read_image__refuses_a_truncated_file(tmp_path, name, kept):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(Image.fromarray(noise), tmp_path / name, **({"progressive": True} if "progressive" in name else {}))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(DataError, match=f"^{path} is .*damaged.*copy it again$"):
        read_image(path)


def test_read_image__quotes_the_decoder_on_a_truncated_jpeg(tmp_path):
    path = save(Image.fromarray(photo()), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:-60])
    assert refusal(lambda: read_image(path)).startswith(f"{path} is damaged or cut short (image file is truncated")


def test_read_image__goes_by_content_not_by_extension(tmp_path):
    path = save(Image.fromarray(photo()), tmp_path / "a.jpg", format="PNG")
    assert (read_image(path) == photo()).all()
