from typing import Any

import pytest
import torch

from densevit.data.mixing import draw_mask, mix, paste
from densevit.data.transforms import AugmentConfig, Example

SIZE = (24, 32)


def example(number: int, *, classes: int = 4, **without: None) -> Example:
    """Every part of it has ``number`` in it, and the labels are stripes of classes."""
    labels = torch.arange(SIZE[1]).div(SIZE[1] / classes, rounding_mode="floor").long().expand(SIZE) + 10 * number
    parts: dict[str, Any] = {
        "image": torch.full((3, *SIZE), number / 10),
        "labels": labels,
        "depth": torch.full(SIZE, number + 1.0),
        "values": torch.full((2, *SIZE), float(number)),
    }
    return Example(**{**parts, **without})


def rule(**facts: Any) -> AugmentConfig:
    return AugmentConfig.parse({"crop": SIZE, **facts})


def generators(number: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(first, first + number)]


def owners(mixed: Example) -> torch.Tensor:
    """Which example each pixel comes from, the same in all of its parts."""
    assert mixed.labels is not None
    assert mixed.depth is not None
    assert mixed.values is not None
    found = mixed.labels // 10
    torch.testing.assert_close(mixed.image[0] * 10, found.float())
    torch.testing.assert_close(mixed.depth, found + 1.0)
    torch.testing.assert_close(mixed.values[1], found.float())
    return found


@pytest.mark.parametrize("facts", [{"cutmix": 1.0}, {"classmix": 1.0}, {"cutmix": 0.5, "classmix": 0.5}])
def test_mixing__moves_photo_and_targets_together_and_within_pairs(facts: dict[str, float]) -> None:
    pasted = 0.0
    for seed in range(10):
        mixed = mix([example(i) for i in range(4)], rule(**facts), generators(4, 4 * seed))
        for index, one in enumerate(mixed):
            found = owners(one)
            assert {*found.unique().tolist()} <= {index, index ^ 1}
            pasted += float((found != index).float().mean()) / 40
    assert 0.25 < pasted < 0.65


def test_mixing__does_nothing_unless_asked() -> None:
    batch = [example(0), example(1)]
    assert all(a is b for a, b in zip(mix(batch, rule(), generators(2)), batch, strict=True))


def test_mixing__happens_with_its_probability() -> None:
    mixed = mix([example(i % 2) for i in range(400)], rule(cutmix=0.3), generators(400))
    assert 80 < sum(one.labels is not None and len((one.labels // 10).unique()) == 2 for one in mixed) < 150


def test_mixing__leaves_the_last_of_an_odd_number_and_the_given_examples_alone() -> None:
    batch = [example(i) for i in range(3)]
    mixed = mix(batch, rule(cutmix=1.0), generators(3))
    assert mixed[2] is batch[2]
    assert owners(batch[0]).unique().tolist() == [0]


def test_mixing__of_even_parts_is_that_of_the_whole() -> None:
    batch, config = [example(i) for i in range(4)], rule(cutmix=0.5, classmix=0.5)
    whole = mix(batch, config, generators(4))
    parts = mix(batch[:2], config, generators(2)) + mix(batch[2:], config, generators(2, 2))
    assert all(torch.equal(a.image, b.image) for a, b in zip(whole, parts, strict=True))


def test_cutmix__pastes_one_rectangle_of_any_share() -> None:
    shares = []
    for generator in generators(200):
        mask = draw_mask(example(0), rule(cutmix=1.0), generator)
        assert mask is not None
        shares.append(float(mask.float().mean()))
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert int(mask.sum()) == int(rows.sum()) * int(columns.sum())
        for line in (rows, columns):
            assert int((line.int().diff() != 0).sum()) <= 2
    assert min(shares) < 0.05
    assert max(shares) > 0.6


def test_classmix__pastes_half_of_the_classes_and_no_ignored_pixel() -> None:
    donor = example(0, classes=5)
    assert donor.labels is not None
    seen = set()
    for generator in generators(50):
        mask = draw_mask(donor, rule(classmix=1.0), generator)
        assert mask is not None
        classes = donor.labels[mask].unique().tolist()
        assert len(classes) == 2
        assert torch.equal(mask, torch.isin(donor.labels, torch.tensor(classes)))
        seen |= {*classes}
    assert seen == {0, 1, 2, 3, 4}
    ignored = torch.where(donor.labels == 0, 255, donor.labels)
    for generator in generators(20):
        mask = draw_mask(Example(image=donor.image, labels=ignored), rule(classmix=1.0), generator)
        assert mask is not None
        assert not mask[ignored == 255].any()


@pytest.mark.parametrize("donor", [example(0, classes=1), example(0, labels=None)], ids=["one class", "no labels"])
def test_classmix__needs_two_classes(donor: Example) -> None:
    assert draw_mask(donor, rule(classmix=1.0), torch.Generator().manual_seed(0)) is None


def test_paste__leaves_out_what_one_of_them_lacks() -> None:
    mask = torch.ones(SIZE, dtype=torch.bool)
    pasted = paste(example(1, depth=None), example(0, values=None), mask)
    assert pasted.values is None
    assert pasted.depth is not None
    assert pasted.depth.unique().tolist() == [1.0]
    assert pasted.image.unique().tolist() == [pytest.approx(0.1)]
