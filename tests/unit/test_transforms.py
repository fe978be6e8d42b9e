import colorsys
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.data import Sample
from densevit.data.colour_jitter import Step, draw_photometric, recolour
from densevit.data.transforms import AugmentConfig, Example, augment, crop, draw_view, flip, rotate, take, targets_of
from densevit.errors import ConfigError, DataError
from densevit.pixels import to_tensor
from densevit.types import Size
from tests.tolerances import EXACT

STEP = 25
"""Grey levels between two classes: the class of a pixel can be read off the image."""


def coded(size: Size = (96, 128), *, block: int = 16, seed: int = 0) -> Sample:
    """Blocks of random classes 0 to 9 painted in their grey level; depth is 1 + class metres, values repeat both."""
    rows, columns = -(-size[0] // block), -(-size[1] // block)
    classes = np.random.default_rng(seed).integers(0, 10, (rows, columns))
    labels = np.kron(classes, np.ones((block, block), np.int64))[: size[0], : size[1]].astype(np.int32)
    image = np.repeat((labels * STEP).astype(np.uint8)[:, :, None], 3, axis=2)
    depth = (labels + 1).astype(np.float32)
    return Sample("coded", image, labels, depth, np.stack([labels, -labels], axis=2).astype(np.float32))


def rule(size: Size = (64, 64), **facts: Any) -> AugmentConfig:
    """No colour unless asked for, so that the code stays readable."""
    return AugmentConfig.parse({"crop": size, "colour": 0.0, **facts})


def draw(sample: Sample, config: AugmentConfig, seed: int = 0) -> Example:
    return augment(sample, config, torch.Generator().manual_seed(seed))


def inner(labels: Tensor) -> Tensor:
    """Pixels whose 7 x 7 neighbourhood lies in the crop and has one class; there resizing mixes nothing."""
    windows = labels.unfold(0, 7, 1).unfold(1, 7, 1).flatten(2)
    uniform = (windows.amax(dim=2) == windows.amin(dim=2)) & (windows[:, :, 0] != 255)
    return torch.nn.functional.pad(uniform, (3, 3, 3, 3), value=False)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(96, 128), (50, 40)], ids=["larger", "smaller"])
def test_augment__keeps_image_and_targets_aligned(size: Size, seed: int) -> None:
    example = draw(coded(size), rule(scale=(1.0, 2.0)), seed)

    assert example.labels is not None
    assert example.depth is not None
    assert example.values is not None
    mask = inner(example.labels)
    assert mask.float().mean() > 0.05
    codes = example.labels[mask]
    torch.testing.assert_close(example.image[0][mask] * 255, codes.float() * STEP, rtol=0, atol=0.51)
    torch.testing.assert_close(example.values[:, mask], torch.stack([codes, -codes]).float(), **EXACT)
    assert (example.depth[mask] / (codes + 1)).std() < 1e-6


def test_augment__gives_the_crop_whatever_the_size_of_the_image() -> None:
    for seed, size in enumerate([(1, 1), (300, 20), (20, 300), (64, 64), (65, 63)]):
        example = draw(coded(size), rule((32, 48)), seed)
        shapes = [tuple(t.shape) for t in (example.image, example.labels, example.depth, example.values)]
        assert shapes == [(3, 32, 48), (32, 48), (32, 48), (2, 32, 48)]


def test_augment__divides_depth_by_the_zoom() -> None:
    example = draw(coded(), rule(scale=(2.0, 2.0), flip=0.0))
    assert example.labels is not None
    assert example.depth is not None
    torch.testing.assert_close(example.depth, (example.labels + 1) / 2)


def test_augment__measures_the_zoom_from_the_size_that_covers_the_crop() -> None:
    example = draw(coded((192, 192)), rule(scale=(1.0, 1.0)))  # shrunk to a third, yet not farther away
    assert example.labels is not None
    assert example.depth is not None
    torch.testing.assert_close(example.depth, example.labels + 1.0)


def test_augment__keeps_unmeasured_depth_unmeasured() -> None:
    sample = coded()
    assert sample.depth is not None
    sample.depth[:] = 0
    example = draw(sample, rule())
    assert example.depth is not None
    assert example.depth.count_nonzero() == 0


def test_augment__pads_with_grey_and_with_no_target() -> None:
    example = draw(coded((32, 32)), rule((32, 32), scale=(0.5, 0.5), flip=0.0))

    assert example.labels is not None
    assert example.depth is not None
    assert example.values is not None
    padding = torch.ones(32, 32, dtype=torch.bool)
    padding[:16, :16] = False
    assert (example.image[:, padding] == 0.5).all()
    assert (example.labels[padding] == 255).all()
    assert (example.labels[~padding] < 10).all()
    assert (example.depth[padding] == 0).all()
    assert example.values.isnan().all(dim=0).equal(padding)


def test_augment__leaves_out_what_a_sample_lacks() -> None:
    example = draw(Sample("photo", coded().image), rule())
    assert (example.labels, example.depth, example.values) == (None, None, None)


def test_flip_probability__is_kept() -> None:
    sample = coded((64, 64))
    plain = draw(sample, rule(scale=(1.0, 1.0), flip=0.0))
    seen = [draw(sample, rule(scale=(1.0, 1.0), flip=0.3), seed).image for seed in range(200)]
    mirrored = [image for image in seen if torch.equal(image, plain.image.flip(-1))]
    assert all(torch.equal(image, plain.image) or torch.equal(image, plain.image.flip(-1)) for image in seen)
    assert 35 <= len(mirrored) <= 85


def test_scale__reaches_both_ends_of_its_range() -> None:
    sample = coded()
    zooms = []
    for seed in range(100):
        example = draw(sample, rule(scale=(0.5, 2.0)), seed)
        assert example.labels is not None
        assert example.depth is not None
        known = example.labels != 255
        zooms.append(float(((example.labels + 1) / example.depth)[known].mean()))
    assert 0.5 <= min(zooms) < 0.6
    assert 1.9 < max(zooms) <= 2.0


def half_and_half() -> Sample:
    """One class on the left, four on the right."""
    sample = coded((64, 256), block=8)
    assert sample.labels is not None
    sample.labels[:, :160] = 0
    return sample


def as_example(sample: Sample) -> Example:
    targets = targets_of(sample)
    return Example(targets.labels, targets.depth, targets.values, targets.normals, image=to_tensor(sample.image))


def largest_share(example: Example) -> float:
    assert example.labels is not None
    counts = torch.bincount(example.labels.flatten(), minlength=256)[:255]
    return float(counts.max() / counts.sum())


def test_cat_max_ratio__draws_crops_of_one_class_again() -> None:
    shares = {
        ratio: [
            largest_share(draw(half_and_half(), rule(scale=(1.0, 1.0), cat_max_ratio=ratio), seed))
            for seed in range(40)
        ]
        for ratio in (0.75, 1.0)
    }
    assert max(shares[0.75]) < 0.75
    assert sum(share == 1.0 for share in shares[1.0]) > 10


def test_cat_max_ratio__counts_no_ignored_pixels() -> None:
    sample = coded((64, 256))
    assert sample.labels is not None
    sample.labels[:] = 255
    sample.labels[:, ::8], sample.labels[:, 1::8] = 0, 1  # so that the first crop is as good as any
    for seed in range(5):
        first, drawn = (draw(sample, rule(scale=(1.0, 1.0), cat_max_ratio=ratio), seed) for ratio in (1.0, 0.75))
        assert torch.equal(drawn.image, first.image)


@pytest.mark.parametrize("ignored", [-1, 65535])
def test_cat_max_ratio__takes_any_ignore_value(ignored: int) -> None:
    plain = half_and_half()
    assert plain.labels is not None
    labels = np.where(plain.labels == plain.ignore_index, ignored, plain.labels).astype(np.int32)
    labels[0] = ignored
    sample = replace(plain, labels=labels, ignore_index=ignored)
    draw(sample, rule(scale=(1.0, 1.0), cat_max_ratio=0.75), 0)


def test_cat_max_ratio__gives_up_where_there_is_one_class() -> None:
    sample = coded(block=128)
    assert largest_share(draw(sample, rule())) == 1.0


def test_generator__determines_everything() -> None:
    config = rule(colour=0.4)
    first, again, other = (draw(coded(), config, seed) for seed in (3, 3, 4))

    for name in ("image", "labels", "depth"):
        torch.testing.assert_close(getattr(again, name), getattr(first, name), **EXACT)
    assert not torch.equal(first.image, other.image)


def test_augment__leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    draw(coded(), rule(colour=0.4))
    assert torch.equal(torch.get_rng_state(), before)


def test_augment__leaves_the_sample_alone() -> None:
    sample, untouched = coded((64, 64)), coded((64, 64))
    draw(sample, rule((64, 64), scale=(1.0, 1.0), colour=0.4, flip=1.0))
    assert sample.depth is not None
    assert untouched.depth is not None
    np.testing.assert_array_equal(sample.image, untouched.image)
    np.testing.assert_array_equal(sample.depth, untouched.depth)


def test_colour__changes_the_image_alone_and_stays_in_range() -> None:
    rng = np.random.default_rng(0)
    sample = Sample("noise", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), coded((64, 64)).labels)
    for seed in range(20):
        plain, coloured = (draw(sample, rule(colour=strength), seed) for strength in (0.0, 1.0))
        assert coloured.labels is not None
        assert plain.labels is not None
        assert torch.equal(coloured.labels, plain.labels)
        assert not torch.equal(coloured.image, plain.image)
        assert coloured.image.min() >= 0
        assert coloured.image.max() <= 1


def test_crop_and_flip__move_everything_alike() -> None:
    example = as_example(coded((32, 48)))

    changed = flip(crop(example, (slice(3, 20), slice(5, 40))))

    for name in ("image", "labels", "depth", "values"):
        expected = getattr(example, name)[..., 3:20, 5:40].flip(-1)
        torch.testing.assert_close(getattr(changed, name), expected, **EXACT)


def test_targets_of__resizes_depth_without_changing_its_values() -> None:
    targets = targets_of(coded((96, 128)), size=(33, 47))
    assert targets.depth is not None
    assert targets.depth.shape == (33, 47)
    assert set(targets.depth.unique().tolist()) <= set(range(1, 11))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"scale": (2.0, 0.5)}, r"scale \(2.0, 0.5\) must be \(low, high\) with 0 < low <= high"),
        ({"scale": (0.0, 1.0)}, r"scale \(0.0, 1.0\) must be \(low, high\) with 0 < low <= high"),
        ({"crop": (0, 64)}, "crop.0: Input should be greater than 0"),
        ({"cutmix": 0.6, "classmix": 0.6}, "their sum must be at most 1"),
        ({"base": (0, 512)}, "base.0: Input should be greater than 0"),
        ({"rotate": -1.0}, "rotate: Input should be greater than or equal to 0"),
        ({"flip": 1.5}, "flip: Input should be less than or equal to 1"),
        ({"cat_max_ratio": 0.0}, "cat_max_ratio: Input should be greater than 0"),
    ],
)
def test_config__refuses_ranges_without_meaning(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(**{"size": facts.pop("crop", (64, 64)), **facts})


def test_view__taken_twice_gives_the_same_example() -> None:
    sample, config = coded(), rule(colour=0.4, rotate=10.0, blur=1.0, photometric=True)
    view = draw_view(sample, config, torch.Generator().manual_seed(1))
    first, again = take(sample, view, config.crop), take(sample, view, config.crop)
    torch.testing.assert_close(again.image, first.image, **EXACT)
    torch.testing.assert_close(again.labels, first.labels, **EXACT)


def test_result__is_of_plain_tensors() -> None:
    example = draw(coded(), rule(rotate=5.0, flip=1.0))
    assert [type(part) for part in (example.image, example.labels, example.depth, example.values)] == [Tensor] * 4


@pytest.mark.parametrize(
    ("size", "base", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),  # the short side fits first
        ((256, 1024), (2048, 512), (512, 2048)),  # both at once
        ((100, 1000), (2048, 512), (205, 2048)),  # the long side fits first
        ((1000, 100), (512, 2048), (2048, 205)),  # upright, and the sides in the other order
    ],
)
def test_base__is_what_the_photo_fits_into_at_scale_1(size: Size, base: Size, expected: Size) -> None:
    config = rule((4096, 4096), base=base, scale=(1.0, 1.0))
    view = draw_view(coded(size), config, torch.Generator().manual_seed(0))
    assert (view.window, view.size) == ((0, 0, *size), expected)


def test_base__does_not_depend_on_the_crop() -> None:
    sample = coded((128, 256))
    views = [
        draw_view(sample, rule(crop, base=(1024, 256), scale=(1.0, 1.0)), torch.Generator().manual_seed(0))
        for crop in ((64, 64), (128, 128))
    ]
    assert [(view.window[2:], view.size) for view in views] == [((32, 32), (64, 64)), ((64, 64), (128, 128))]


def test_window__shows_all_parts_of_the_photo() -> None:
    config = rule((32, 32), scale=(2.0, 2.0), cat_max_ratio=1.0)
    windows = [draw_view(coded((64, 64)), config, torch.Generator().manual_seed(i)).window for i in range(300)]
    assert {window[2:] for window in windows} == {(32, 32)}
    assert {(min(w[axis] for w in windows), max(w[axis] for w in windows)) for axis in (0, 1)} == {(0, 32)}


def test_rotation__turns_image_and_targets_alike() -> None:
    for seed in range(8):
        example = draw(coded((96, 96)), rule((96, 96), scale=(1.0, 1.0), rotate=30.0), seed)
        assert example.labels is not None
        assert example.depth is not None
        mask = inner(example.labels)
        assert mask.float().mean() > 0.05
        codes = example.labels[mask]
        torch.testing.assert_close(example.image[0][mask] * 255, codes.float() * STEP, rtol=0, atol=0.51)
        torch.testing.assert_close(example.depth[mask], codes + 1.0)


def test_rotation__is_counter_clockwise_and_knows_nothing_of_the_corners() -> None:
    labels = torch.zeros(9, 9, dtype=torch.int64)
    labels[4, 8] = 7
    example = Example(labels, labels.float() + 1, ignore_index=99, image=torch.rand(3, 9, 9))
    quarter = rotate(example, 90.0)
    assert quarter.labels is not None
    assert int(quarter.labels[0, 4]) == 7
    half_way = rotate(example, 45.0)
    assert half_way.labels is not None
    assert half_way.depth is not None
    assert int(half_way.labels[0, 0]) == 99
    assert float(half_way.depth[0, 0]) == 0.0


def normals(direction: tuple[float, float, float], size: Size = (8, 8)) -> Sample:
    values = np.broadcast_to(np.array(direction, np.float32), (*size, 3))
    unit = values / np.linalg.norm(values, axis=2, keepdims=True)
    return Sample("normals", coded(size).image, values=unit.astype(np.float32), normals=True)


def test_flip__turns_x_of_surface_normals_and_of_nothing_else() -> None:
    sample = normals((0.6, 0.0, 0.8))
    assert sample.values is not None
    turned = flip(as_example(sample)).values
    plain = flip(as_example(Sample("values", sample.image, values=sample.values))).values
    assert turned is not None
    assert plain is not None
    torch.testing.assert_close(turned[:, 0, 0], torch.tensor([-0.6, 0.0, 0.8]))
    torch.testing.assert_close(plain[:, 0, 0], torch.tensor([0.6, 0.0, 0.8]))


def test_zoom__changes_normals_as_it_changes_depth() -> None:
    """The plane z = x has the normal (1, 0, -1); with depth halved it is z = x / 2, with normal (1, 0, -2)."""
    values = draw(normals((1.0, 0.0, -1.0)), rule((8, 8), scale=(2.0, 2.0), flip=0.0)).values
    assert values is not None
    expected = torch.tensor([1.0, 0.0, -2.0]) / 5**0.5
    torch.testing.assert_close(values, expected[:, None, None].expand(3, 8, 8))


def test_rotation__of_normals_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        draw(normals((0.0, 0.0, 1.0)), rule((8, 8), rotate=10.0))
    assert str(caught.value) == (
        "normals has surface normals and augment.rotate is 10; normals can be scaled and mirrored but not rotated, "
        "since data sets differ in where y points; set augment.rotate to 0"
    )


def test_padding__has_the_samples_ignore_value() -> None:
    plain = coded((32, 32))
    sample = Sample("many classes", plain.image, plain.labels, ignore_index=300)
    example = draw(sample, rule((32, 32), scale=(0.5, 0.5), flip=0.0))
    assert example.labels is not None
    assert (example.labels[16:] == 300).all()
    assert example.ignore_index == 300


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_image__of_more_channels_is_augmented_too(dtype: type) -> None:
    highest = 1 if dtype is np.float32 else np.iinfo(dtype).max
    image = (np.random.default_rng(0).random((40, 50, 5)) * highest).astype(dtype)
    config = rule((32, 32), colour=0.4, photometric=True, blur=1.0, rotate=5.0)
    example = draw(Sample("bands", image), config)
    plain = draw(Sample("bands", image), rule((32, 32), scale=(1.0, 1.0), flip=0.0))
    assert example.image.shape == plain.image.shape == (5, 32, 32)
    assert 0 <= float(example.image.min()) < float(example.image.max()) <= 1
    torch.testing.assert_close(plain.image.mean(), torch.tensor(0.5), rtol=0, atol=0.03)
    assert len(plain.image.flatten(1).unique(dim=0)) == 5


def test_blur__leaves_targets_and_the_mean_alone() -> None:
    facts = {"scale": (1.0, 1.0), "flip": 0.0, "cat_max_ratio": 1.0}
    sharp, blurred = (draw(coded((64, 64)), rule(blur=p, **facts)) for p in (0.0, 1.0))
    assert blurred.labels is not None
    assert sharp.labels is not None
    assert torch.equal(blurred.labels, sharp.labels)
    assert float(blurred.image.diff(dim=2).abs().max()) < float(sharp.image.diff(dim=2).abs().max())
    torch.testing.assert_close(blurred.image.mean(), sharp.image.mean(), rtol=0.02, atol=0)


def by_hand(pixel: tuple[float, float, float], name: str, amount: float) -> tuple[float, ...]:
    """One step on one pixel with the standard library's HSV."""
    if name == "shift":
        return tuple(min(max(value + amount, 0.0), 1.0) for value in pixel)
    if name == "gain":
        return tuple(min(value * amount, 1.0) for value in pixel)
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    if name == "hsv_saturation":
        return colorsys.hsv_to_rgb(hue, min(saturation * amount, 1.0), value)
    return colorsys.hsv_to_rgb((hue + amount) % 1.0, saturation, value)


@pytest.mark.parametrize(
    "step",
    [
        ("shift", 0.1),
        ("shift", -0.1),
        ("gain", 0.5),
        ("gain", 1.5),
        ("hsv_saturation", 0.5),
        ("hsv_saturation", 1.5),
        ("hsv_hue", 0.09),
        ("hsv_hue", -0.1),
        ("hue", 0.5),
    ],
)
def test_photometric_step__equals_the_standard_librarys(step: Step) -> None:
    rng = random.Random(0)
    pixels = [(rng.random(), rng.random(), rng.random()) for _ in range(200)]
    pixels += [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.3, 0.3, 0.3), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.5, 0.5, 0.0)]
    image = torch.tensor(pixels).T[:, None]
    expected = torch.tensor([by_hand(pixel, *step) for pixel in pixels]).T[:, None]
    torch.testing.assert_close(recolour(image, (step,)), expected, rtol=0, atol=1e-5)


def test_photometric__draws_each_part_half_of_the_time_and_within_its_range() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [draw_photometric(generator) for _ in range(2000)]
    amounts: dict[str, list[float]] = {}
    for name, amount in (step for steps in draws for step in steps):
        amounts.setdefault(name, []).append(amount)
    ranges = {"shift": (-32 / 255, 32 / 255), "gain": (0.5, 1.5), "hsv_saturation": (0.5, 1.5), "hsv_hue": (-0.1, 0.1)}
    assert amounts.keys() == ranges.keys()
    for name, (low, high) in ranges.items():
        assert 900 < len(amounts[name]) < 1100
        assert low - 1e-6 <= min(amounts[name]) < low + 0.02 * (high - low) + 1e-6
        assert high - 0.06 * (high - low) < max(amounts[name]) <= high + 1e-6
    assert max(amounts["hsv_hue"]) == 17 / 180
    before = [
        names.index("gain") < names.index("hsv_hue")
        for steps in draws
        if {"gain", "hsv_hue"} <= {*(names := [n for n, _ in steps])}
    ]
    assert 0.4 < sum(before) / len(before) < 0.6
    assert all(steps[0][0] == "shift" for steps in draws if "shift" in dict(steps))


def test_colour_of_grey__keeps_it_grey() -> None:
    image = torch.rand(1, 16, 16).expand(3, 16, 16)
    changed = recolour(image, (("hue", 0.3), ("hsv_saturation", 1.4), ("saturation", 1.2)))
    torch.testing.assert_close(changed, image, rtol=0, atol=1e-4)  # torchvision's weights of grey add up to 0.9999
