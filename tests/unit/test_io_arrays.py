"""Arrays and tensors as photos; label masks and depth maps from files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densevit.errors import DataError
from densevit.io import as_image, read_depth, read_labels, read_values, write_array

RED, BLUE = (255, 0, 0), (0, 0, 255)


def photo(height=32, width=48):
    """Different in all four corners."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([40 + 4 * y, 200 - 3 * x, 60 + y + 2 * x], axis=2).clip(0, 255).astype(np.uint8)


def save(image, path, **options):
    image.save(path, **options)
    return path


def refusal(call):
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


def test_as_image__reads_a_path_given_as_text(tmp_path):
    path = save(Image.fromarray(photo()), tmp_path / "a.png")
    assert (as_image(str(path)) == photo()).all()


def test_as_image__turns_a_pillow_image_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(save(Image.fromarray(photo()), tmp_path / "a.png", exif=exif)) as image:
        assert (as_image(image) == np.rot90(photo(), -1)).all()


@pytest.mark.parametrize(
    "array",
    [
        photo(),
        photo().astype(np.uint16) * 257,
        photo() / 255,
        (photo() / 255).astype(np.float32),
        np.dstack([photo(), np.full((32, 48), 255, np.uint8)]),
    ],
)
def test_as_image__takes_colour_arrays(array):
    assert (as_image(array) == photo()).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shape", ["HWC", "CHW", "1HWC", "1CHW"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_as_image__finds_the_channels_by_their_number(kind, shape, channels):
    array = np.dstack([photo(), np.full((32, 48), 255, np.uint8)])[:, :, :channels]
    expected = array[:, :, :1].repeat(3, 2) if channels == 1 else array[:, :, :3]
    array = array.transpose(2, 0, 1) if "CHW" in shape else array
    array = array[None] if shape.startswith("1") else array
    assert (as_image(kind(array.copy())) == expected).all()


def test_as_image__reads_a_shape_of_two_meanings_as_its_library_does():
    array = np.arange(3 * 5 * 4, dtype=np.uint8).reshape(3, 5, 4)
    assert as_image(array).shape == (3, 5, 3)
    assert as_image(torch.from_numpy(array)).shape == (5, 4, 3)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_as_image__takes_masks(kind):
    mask = photo()[:, :, 0] > 90
    assert (as_image(kind(mask)) == np.where(mask, 255, 0)[:, :, None]).all()


@pytest.mark.parametrize("array", [photo()[:, :, 0], photo()[:, :, :1]])
def test_as_image__takes_grey_arrays(array):
    assert (as_image(array) == photo()[:, :, :1]).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", ["chw", "bchw", "hwc"])
def test_as_image__takes_tensors(dtype, layout):
    tensor = torch.from_numpy(photo())
    tensor = tensor if dtype == torch.uint8 else (tensor.double() / 255).to(dtype)
    tensor = {"hwc": tensor, "chw": tensor.permute(2, 0, 1), "bchw": tensor.permute(2, 0, 1)[None]}[layout]
    tolerance = 1 if dtype == torch.bfloat16 else 0
    assert np.abs(as_image(tensor).astype(int) - photo()).max() <= tolerance


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            b"bytes",
            "the image is of type bytes; a path, a Pillow image, a numpy array or a torch tensor is accepted",
        ),
        (
            np.zeros((2, 3, 5), np.uint8),
            "the image is an array (2, 3, 5) of uint8; (H, W), (H, W, 1|3|4) and (1|3|4, H, W) are accepted; give one "
            "grey, RGB or RGBA image",
        ),
        (
            np.zeros((0, 3), np.uint8),
            "the image is an array (0, 3) of uint8; (H, W), (H, W, 1|3|4) and (1|3|4, H, W) are accepted; give one "
            "grey, RGB or RGBA image",
        ),
        (
            np.zeros((2, 3), np.int64),
            "the image, an array (2, 3) of int64, holds int64; bool, uint8, uint16 and floats are accepted; "
            "convert the values",
        ),
        (
            np.full((2, 3), 255.0),
            "the image, an array (2, 3) of float64, holds floats from 255 to 255; floats in 0..1 are accepted; scale"
            " the values",
        ),
        (
            torch.zeros(2, 3, 4, 4),
            "the image is a tensor (2, 3, 4, 4) of torch.float32; (H, W), (H, W, 1|3|4) and (1|3|4, H, W) are "
            "accepted; predict_many takes batches",
        ),
    ],
)
def test_as_image__names_what_it_cannot_take(source, message):
    assert refusal(lambda: as_image(source)) == message


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_read_labels__gives_the_stored_numbers(tmp_path, name, dtype):
    labels = np.array([[0, 3, 255]], dtype)
    read = read_labels(save(Image.fromarray(labels), tmp_path / name))
    assert read.dtype == np.int32
    assert read.tolist() == [[0, 3, 255]]


def test_read_labels__gives_palette_indices_not_colours(tmp_path):
    image = Image.fromarray(np.array([[2, 0, 1]], np.uint8))
    image.putpalette([*RED, *RED, *BLUE])
    assert read_labels(save(image, tmp_path / "m.png", transparency=0)).tolist() == [[2, 0, 1]]


def test_read_labels__gives_0_and_1_for_1_bit(tmp_path):
    assert read_labels(save(Image.fromarray(np.array([[True, False]])), tmp_path / "m.png")).tolist() == [[1, 0]]


def test_read_labels__gives_32_bit_integers(tmp_path):
    assert read_labels(save(Image.fromarray(np.full((1, 1), 70000, np.int32)), tmp_path / "m.tif")).tolist() == [
        [70000]
    ]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_read_labels__refuses_colours(tmp_path, mode):
    path = save(Image.fromarray(photo()).convert(mode), tmp_path / "m.png")
    assert refusal(lambda: read_labels(path)) == (
        f"{path} is a mask of mode {mode}; one channel of class indices (grey or palette PNG) is accepted; replace each"
        " colour by its class index and save that"
    )


@pytest.mark.parametrize("orientation", [1, 6])
def test_read_labels__refuses_a_jpeg(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(Image.fromarray(photo()[:, :, 0]), tmp_path / "m.jpg", exif=exif)
    assert refusal(lambda: read_labels(path)) == (
        f"{path} is a JPEG, which blurs class indices; lossless masks are accepted; export it as PNG"
    )


@pytest.mark.parametrize(("unit_m", "expected"), [(0.001, [0, 1.5, 65.535]), (1 / 256, [0, 5.859375, 255.99609375])])
def test_read_depth__scales_16_bit_steps_to_metres(tmp_path, unit_m, expected):
    path = save(Image.fromarray(np.array([[0, 1500, 65535]], np.uint16)), tmp_path / "d.png")
    depth = read_depth(path, unit_m=unit_m)
    assert depth.dtype == np.float32
    assert depth.tolist() == [np.float32(expected).tolist()]


def test_read_depth__takes_npy_metres_and_maps_unmeasured_to_0(tmp_path):
    np.save(tmp_path / "d.npy", np.array([[1.25, np.nan, np.inf, 0]]))
    assert read_depth(tmp_path / "d.npy").tolist() == [[1.25, 0, 0, 0]]


@pytest.mark.parametrize("name", ["d.tif", "d.pfm"])
def test_read_depth__takes_float_images_as_metres(tmp_path, name):
    path = save(Image.fromarray(np.array([[1.25], [0.5]], np.float32)), tmp_path / name)
    assert read_depth(path).tolist() == [[1.25], [0.5]]


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_read_depth__refuses_8_bit_and_colour(tmp_path, mode):
    path = save(Image.fromarray(photo()).convert(mode), tmp_path / "d.png")
    assert refusal(lambda: read_depth(path)) == (
        f"{path} is a depth map of mode {mode} (8-bit or colour), too coarse or not a measurement; a 16-bit grey PNG,"
        " or floats in metres as .npy or TIFF, is accepted; export the depth again"
    )


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((2, 2), np.uint8),
            "holds an array (2, 2) of uint8; one (H, W) array of floats in metres, or of integers",
        ),
        (
            np.zeros((2, 2, 2)),
            "holds an array (2, 2, 2) of float64; one (H, W) array of floats in metres, or of integers",
        ),
        (np.full((2, 2), -1.0), "holds a depth of -1 m; 0 (no measurement) or more is accepted"),
        (np.array([{}]), "is damaged or cut short (Object arrays cannot be loaded when allow_pickle=False);"),
    ],
)
def test_read_depth__refuses_other_arrays(tmp_path, array, message):
    np.save(tmp_path / "d.npy", array, allow_pickle=True)
    assert refusal(lambda: read_depth(tmp_path / "d.npy")).startswith(f"{tmp_path / 'd.npy'} {message}")


@pytest.mark.parametrize("unit_m", [0, -1, float("nan")])
def test_read_depth__refuses_a_unit_that_is_not_positive(unit_m):
    assert refusal(lambda: read_depth(Path("d.png"), unit_m=unit_m)) == (
        f"unit_m is {unit_m} but must be a positive number of metres per step; 0.001 means millimetres"
    )


def test_write_array__is_read_back_by_read_values(tmp_path):
    values = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
    write_array(tmp_path / "new folder" / "v.npy", np.moveaxis(np.moveaxis(values, -1, 0), 0, -1))
    read = read_values(tmp_path / "new folder" / "v.npy")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values)


def test_write_array__refuses_objects(tmp_path):
    path = tmp_path / "v.npy"
    assert refusal(lambda: write_array(path, np.array([{}]))) == (
        f"{path} would hold an array of object; numbers are accepted"
    )
    assert not path.exists()


def test_read_values__refuses_an_archive(tmp_path):
    np.savez(tmp_path / "v.npz", np.zeros(2))
    path = (tmp_path / "v.npz").rename(tmp_path / "v.npy")
    assert refusal(lambda: read_values(path)) == (f"{path} holds NpzFile; one (H, W, K) array of floats is accepted")
