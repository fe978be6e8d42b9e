import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data.mask_colours import judge_colours
from densevit.data.mask_values import Histogram, judge_values


def masks(*values: int, number: int = 4) -> list[NDArray[np.uint8]]:
    """Masks of the first value, with a rectangle of each other one."""
    made = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        mask = np.full((160, 200), values[0], np.uint8)
        for place, value in enumerate(values[1:]):
            top, left = rng.integers(0, 40), 5 + place * 190 // len(values)
            mask[top : top + 80, left : left + 150 // len(values)] = value
        made.append(mask)
    return made


def blurred(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Resized by interpolation, as a careless script does."""
    image = Image.fromarray(mask)
    return np.asarray(image.resize((90, 70), Image.Resampling.BILINEAR).resize((200, 160), Image.Resampling.BILINEAR))


def compressed(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "JPEG", quality=70)
    return np.asarray(Image.open(buffer))


def histogram(mask: NDArray[np.generic]) -> Histogram:
    values, counts = np.unique(mask, return_counts=True)
    return values.astype(np.int64), counts.astype(np.int64)


@pytest.mark.parametrize(
    ("values", "classes", "stored"),
    [
        ((0, 1), ("background", "foreground"), None),
        ((0, 255), ("background", "foreground"), (0, 255)),
        ((0, 1, 255), ("background", "foreground"), None),
        ((0, 1, 2), ("class 0", "class 1", "class 2"), None),
        ((0, 1, 3, 255), ("class 0", "class 1", "class 2", "class 3"), None),
        ((1, 2, 3), ("class 0", "class 1", "class 2"), (1, 2, 3)),
        ((0, 128, 255), ("class 0", "class 1", "class 2"), (0, 128, 255)),
        ((0, 85, 170, 255), ("class 0", "class 1", "class 2", "class 3"), (0, 85, 170, 255)),
        ((0, 7, 26), ("class 0", "class 1", "class 2"), (0, 7, 26)),
    ],
)
def test_judge_values__exact(values: tuple[int, ...], classes: tuple[str, ...], stored: tuple[int, ...] | None) -> None:
    judged = judge_values([histogram(mask) for mask in masks(*values)])

    assert judged.problem == ""
    assert (judged.keys["classes"], judged.keys.get("class_values")) == (classes, stored)
    assert "stray_values" not in judged.keys


@pytest.mark.parametrize("spoil", [blurred, compressed])
@pytest.mark.parametrize("values", [(0, 255), (0, 128, 255), (0, 64, 128, 192, 255)])
def test_judge_values__stray_ones_are_the_nearest(values: tuple[int, ...], spoil: object) -> None:
    assert callable(spoil)
    judged = judge_values([histogram(spoil(mask)) for mask in masks(*values)])

    assert judged.keys["class_values"] == values
    assert judged.keys["stray_values"] == "nearest"
    assert "stray" in judged.found


def test_judge_values__a_few_stray_pixels_are_no_class() -> None:
    spoilt = masks(0, 128, 255)
    spoilt[0][:2, :3] = 129

    assert judge_values([histogram(mask) for mask in spoilt]).keys["class_values"] == (0, 128, 255)


@pytest.mark.parametrize(
    "mask",
    [
        np.random.default_rng(0).normal(120, 40, (80, 80)).clip(0, 255).astype(np.uint8),
        np.arange(120, dtype=np.uint8).repeat(20).reshape(40, 60),
        np.zeros((8, 8), np.uint8),
        np.array([[0, 1001, 1002, 26001]]),
        np.arange(0, 6000, 100).repeat(9).reshape(27, 20),
    ],
    ids=["photo", "many", "nothing", "instances", "regression"],
)
def test_judge_values__refuses(mask: NDArray[np.generic]) -> None:
    judged = judge_values([histogram(mask)])

    assert judged.problem
    assert not judged.keys


def coloured(mask: NDArray[np.uint8], *colours: int) -> NDArray[np.int64]:
    return np.array(colours)[mask]


def test_judge_colours__are_named() -> None:
    made = [histogram(coloured(mask, 0, 0xFF0000, 0x123456)) for mask in masks(0, 1, 2)]

    judged = judge_colours(made)

    assert judged.keys == {
        "classes": ("black", "#123456", "red"),
        "palette": ((0, 0, 0), (0x12, 0x34, 0x56), (255, 0, 0)),
    }


def test_judge_colours__stray_ones_are_the_nearest() -> None:
    mask = coloured(masks(0, 1)[0], 0, 0x00FF00)
    mask[0, :60] = np.arange(60) * 0x10101 + 7

    judged = judge_colours([histogram(mask)])

    assert judged.keys["classes"] == ("black", "green")
    assert judged.keys["unknown_colours"] == "nearest"


def test_judge_colours__of_a_few_pixels_are_stray() -> None:
    mask = coloured(masks(0, 1)[0], 0, 0x00FF00)
    mask[0, :3] = 0x00FE00

    assert judge_colours([histogram(mask)]).keys["classes"] == ("black", "green")


def test_judge_colours__of_jpegs() -> None:
    made = []
    for mask in masks(0, 1, 2):
        buffer = io.BytesIO()
        Image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255)], np.uint8)[mask]).save(
            buffer, "JPEG", quality=90
        )
        pixels = np.asarray(Image.open(buffer)).astype(np.int64)
        made.append(histogram(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]))

    judged = judge_colours(made)

    assert judged.keys["classes"] == ("black", "blue", "red")
    assert judged.keys["unknown_colours"] == "nearest"


def test_judge_colours__refuses_photos() -> None:
    photo = np.random.default_rng(0).integers(0, 1 << 24, (64, 64))

    assert "colours" in judge_colours([histogram(photo)]).problem


def test_judge_values__numbers_of_objects_are_no_classes() -> None:
    counts = [*range(3, 9), 0]

    judged = judge_values([histogram(masks(*range(count + 1), number=1)[0]) for count in counts])

    assert judged.problem == "each mask counts its objects, up to 3 to 8,"


def test_judge_values__classes_with_gaps_are_no_objects() -> None:
    present = [(0, 1, 2), (0, 1, 2, 3, 4, 5, 6, 7), (0, 3, 5), (0, 1, 2, 3), (0, 1, 2, 3, 4, 5)]

    judged = judge_values([histogram(masks(*values, number=1)[0]) for values in present])

    assert len(judged.keys["classes"]) == 8


def test_judge_values__one_class_in_two_forms() -> None:
    judged = judge_values([histogram(mask) for mask in (*masks(0, 1), *masks(0, 255))])

    assert judged.keys["class_values"] == (0, 1, 255)
    assert judged.keys["merge"] == {"foreground": ("foreground", "foreground as 255")}
    assert "4 masks hold 255 and others 1" in judged.found
