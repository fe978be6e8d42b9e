from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from densevit.data import Sample
from densevit.data.transforms import AugmentConfig, Example, as_example, augment, crop, flip
from densevit.errors import ConfigError
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


def test_as_example__resizes_depth_without_changing_its_values() -> None:
    example = as_example(coded((96, 128)), (33, 47))
    assert example.depth is not None
    assert example.depth.shape == (33, 47)
    assert set(example.depth.unique().tolist()) <= set(range(1, 11))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"scale": (2.0, 0.5)}, r"scale \(2.0, 0.5\) must be \(low, high\) with 0 < low <= high"),
        ({"scale": (0.0, 1.0)}, r"scale \(0.0, 1.0\) must be \(low, high\) with 0 < low <= high"),
        ({"crop": (0, 64)}, "crop.0: Input should be greater than 0"),
        ({"flip": 1.5}, "flip: Input should be less than or equal to 1"),
        ({"cat_max_ratio": 0.0}, "cat_max_ratio: Input should be greater than 0"),
    ],
)
def test_config__refuses_ranges_without_meaning(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule(**{"size": facts.pop("crop", (64, 64)), **facts})
