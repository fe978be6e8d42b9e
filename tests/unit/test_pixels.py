import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densevit.errors import ConfigError
from densevit.inference_config import InferenceConfig
from densevit.pixels import resize_image, resize_nearest, to_tensor
from densevit.types import Size
from tests.tolerances import EXACT


@pytest.mark.parametrize(
    ("image_size", "patch", "expected"),
    [
        ((480, 640), 16, (512, 688)),  # 682.7 is 42.7 patches
        ((640, 480), 16, (688, 512)),
        ((512, 512), 14, (518, 518)),
        ((1, 1), 16, (512, 512)),
        ((9000, 12000), 16, (512, 688)),
        ((12000, 9000), 16, (688, 512)),
        ((10, 10000), 16, (16, 2048)),
        ((10000, 10), 16, (2048, 16)),
        ((1, 1_000_000), 32, (32, 2048)),
        ((512, 2049), 16, (512, 2048)),
    ],
)
def test_fit__gives_this_input_size(image_size: Size, patch: int, expected: Size) -> None:
    assert InferenceConfig().input_size(image_size, (patch, patch)) == expected


def test_fit__rounds_each_side_to_its_own_patch_size() -> None:
    assert InferenceConfig(short_side=100).input_size((300, 600), (16, 14)) == (96, 196)


def test_fit__moves_a_side_by_at_most_half_a_patch() -> None:
    fit = InferenceConfig(short_side=352, max_long_side=1024)
    generator = np.random.default_rng(0)
    for _ in range(300):
        image_size = (int(generator.integers(100, 4000)), int(generator.integers(100, 4000)))
        scale = min(352 / min(image_size), 1024 / max(image_size))

        size = fit.input_size(image_size, (16, 16))

        for side, pixels in zip(size, image_size, strict=True):
            assert side % 16 == 0
            assert abs(side - pixels * scale) <= 8 or side == 16


def test_fit__never_exceeds_the_long_side_rounded_up() -> None:
    fit = InferenceConfig(short_side=512, max_long_side=700)
    assert max(fit.input_size((300, 5000), (32, 32))) <= 704


def test_fit__heads_of_one_size_share_a_pass() -> None:
    fit = InferenceConfig(short_side=480, max_long_side=900, heads={"streets": 640, "rooms": 384, "depth": 384})

    passes = [(one.short_side, one.max_long_side, heads) for one, heads in fit.groups(("depth", "x", "rooms", "y"))]

    assert passes == [(384, 900, ("depth", "rooms")), (480, 900, ("x", "y"))]
    assert fit.for_head("streets").short_side == 640


def test_fit__heads_with_windows_or_mirrored_have_a_pass_of_their_own() -> None:
    streets, depth = {"short_side": 640, "window": 480}, {"short_side": 224, "flip": True}
    fit = InferenceConfig.parse(
        {"short_side": 640, "flip": True, "heads": {"streets": streets, "depth": depth, "rooms": 640, "walls": 640}}
    )

    passes = fit.groups(("streets", "rooms", "other", "depth", "walls"))

    assert [heads for _, heads in passes] == [("streets",), ("rooms", "walls"), ("other",), ("depth",)]
    assert [(one.short_side, one.window, one.flip, one.single_pass) for one, _ in passes] == [
        (640, 480, False, False),
        (640, None, False, True),
        (640, None, True, False),
        (224, None, True, False),
    ]
    assert InferenceConfig.parse(fit.plain()) == fit
    assert fit.at(320) == InferenceConfig(short_side=320)
    assert all(one.single_pass for one, _ in fit.whole().groups(("streets", "rooms", "other", "depth", "walls")))
    assert (fit.whole().for_head("streets").short_side, fit.whole().for_head("depth").short_side) == (640, 224)


@pytest.mark.parametrize("name", ["short_side", "max_long_side"])
def test_fit__refuses_a_side_of_zero(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: Input should be greater than 0"):
        InferenceConfig.parse({name: 0})


def test_to_tensor__puts_channels_first_and_scales_to_one() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[1, 2] = (255, 51, 0)

    tensor = to_tensor(image)

    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, 2, 3)
    torch.testing.assert_close(tensor[:, 1, 2], torch.tensor([1.0, 0.2, 0.0]))
    assert tensor[:, :, :2].count_nonzero() == 0


def test_to_tensor__takes_a_view_with_negative_strides() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)

    flipped = to_tensor(image[::-1, ::-1])

    torch.testing.assert_close(flipped, to_tensor(image).flip(1, 2), **EXACT)


@pytest.mark.parametrize("size", [(5, 7), (64, 48), (1, 1), (33, 200)])
def test_resize_image__stays_in_zero_to_one(size: Size) -> None:
    image = torch.rand(3, 32, 40, generator=torch.Generator().manual_seed(0)).round()

    resized = resize_image(image, size)

    assert resized.shape == (3, *size)
    assert float(resized.min()) >= 0.0
    assert float(resized.max()) <= 1.0


def test_resize_image__averages_where_it_shrinks() -> None:
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))

    resized = resize_image(noise, (16, 16))

    assert float((resized - 0.5).abs().max()) < 0.15  # the mean of some hundred pixels; single ones keep the noise


def test_resize_image__is_the_identity_for_its_own_size() -> None:
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert resize_image(image, (4, 5)) is image


def test_resize_nearest__takes_the_pixel_whose_centre_is_nearest() -> None:
    for old in range(1, 30):
        for new in range(1, 30):
            # floor((i + 1/2) * old / new) in whole numbers
            expected = torch.tensor([(2 * i + 1) * old // (2 * new) for i in range(new)])
            row = resize_nearest(torch.arange(old)[None], (1, new))
            assert torch.equal(row[0], expected), (old, new)


@pytest.mark.parametrize("size", [(7, 9), (24, 34), (12, 17), (1, 1), (100, 3)])
def test_resize_nearest__equals_torchs_nearest_exact(size: Size) -> None:
    labels = torch.randint(0, 256, (2, 12, 17), generator=torch.Generator().manual_seed(0))

    expected = F.interpolate(labels[None].float(), size=size, mode="nearest-exact")[0].long()

    assert torch.equal(resize_nearest(labels, size), expected)


def test_resize_nearest__keeps_the_type_and_every_leading_axis() -> None:
    values = torch.rand(2, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    resized = resize_nearest(values, (2, 3))

    assert (resized.dtype, resized.shape) == (torch.float64, (2, 3, 2, 3))
    torch.testing.assert_close(resized, values[:, :, 1::2, 1::2], **EXACT)


@pytest.mark.parametrize("shape", [(5, 1), (1, 5), (1, 1)])
def test_to_tensor__takes_mirrored_images_of_one_row_or_column(shape: Size) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    mirrored = to_tensor(np.ascontiguousarray(image[::-1, ::-1]))
    assert torch.equal(mirrored, to_tensor(image).flip(1, 2))
