"""Many images: in order, lazily, of any kind, and with the results of ``predict``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from densevit.errors import ConfigError, DataError
from densevit.inference.batching import run_many
from densevit.inference.prediction import Prediction
from densevit.inference.predictor import Predictor
from densevit.inference.sliding_window import SlidingWindow
from densevit.io import write_png
from densevit.tasks import Depth
from tests.tolerances import SAME_MATHS
from tests.unit.predictors import photo, predictor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Predictor:
    return predictor()


def photos(count: int = 3, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """(B, H, W, 3), all different."""
    return np.stack([np.roll(photo(height, width), 9 * number, axis=1) for number in range(count)])


def logits(prediction: Prediction) -> torch.Tensor:
    return prediction["main"].logits


@pytest.mark.parametrize("batch", ["auto", 1])
def test_predict_many__one_at_a_time_gives_the_bits_of_predict(model, batch):
    images = [*photos(2), photo(40, 50), *photos(1)]

    for image, found in zip(images, model.predict_many(images, batch=batch), strict=True):
        assert torch.equal(logits(found), logits(model.predict(image)))
        assert (found.image == image).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"flip": True}, {"scales": (0.5, 1.0)}, {"windows": SlidingWindow(window=32)}, {"protocol": "mmseg"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["segmenter_linear", "dpt/ignore, depth"])
def test_predict_many__in_batches_differs_by_rounding(options, name):
    model = predictor(name) if name == "segmenter_linear" else predictor(name, Depth())
    if "protocol" in options and name != "segmenter_linear":
        pytest.skip("mmsegmentation has no depth")
    images = [*photos(3), photo(40, 50), *photos(2)]

    for image, found in zip(images, model.predict_many(images, batch=2, **options), strict=True):
        torch.testing.assert_close(logits(found), logits(model.predict(image, **options)), **SAME_MATHS)


def test_run_many__batches_neighbours_of_one_size():
    sizes: list[list[tuple[int, int]]] = []

    def run(images: Any) -> list[int]:
        sizes.append([image.shape[:2] for image in images])
        return list(range(len(images)))

    wide, tall = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8)
    list(run_many([wide, wide, wide, tall, wide, tall, tall], run, 2, CPU))

    assert sizes == [[(2, 3)] * 2, [(2, 3)], [(3, 2)], [(2, 3)], [(3, 2)] * 2]


def test_run_many__reads_no_more_than_a_batch_ahead():
    read: list[int] = []

    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            read.append(1)
            yield np.zeros((2, 2), np.uint8)

    results = run_many(endless(), lambda images: [None] * len(images), 4, CPU)

    assert read == []
    next(results)
    assert len(read) <= 5


def test_run_many__holds_few_large_images(monkeypatch):
    monkeypatch.setattr("densevit.inference.batching.HELD_PIXELS", 50)
    sizes: list[int] = []

    def run(images: Any) -> list[None]:
        sizes.append(len(images))
        return [None] * len(images)

    list(run_many([np.zeros((4, 5), np.uint8)] * 5, run, 100, CPU))

    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    "convert",
    [
        lambda array: array,
        lambda array: array.transpose(0, 3, 1, 2),
        lambda array: torch.from_numpy(array),
        lambda array: torch.from_numpy(array).permute(0, 3, 1, 2),
        lambda array: torch.from_numpy(array).permute(0, 3, 1, 2).double() / 255,
        lambda array: (image for image in array),
        tuple,
    ],
    ids=["BHWC", "BCHW", "tensor BHWC", "tensor BCHW", "tensor of floats", "generator", "tuple"],
)
def test_predict_many__takes_batches_in_any_layout(model, convert):
    array = photos(2)

    found = list(model.predict_many(convert(array)))

    assert [(prediction.image == image).all() for prediction, image in zip(found, array, strict=True)] == [True] * 2


def test_predict_many__takes_grey_images_in_one_array(model):
    found = list(model.predict_many(np.full((2, 30, 40), 7, np.uint8)))
    assert [prediction.image.shape for prediction in found] == [(30, 40, 3)] * 2


def test_predict_many__of_nothing_is_nothing(model):
    assert list(model.predict_many([])) == []


def test_predict_many__says_which_image_is_broken_after_the_others(model, tmp_path):
    write_png(tmp_path / "a.png", photo(40, 50))
    (tmp_path / "b.png").write_text("no photo")
    results = model.predict_many([tmp_path / "a.png", tmp_path / "a.png", tmp_path / "b.png"], batch=8)

    next(results), next(results)
    with pytest.raises(DataError, match=r"image 2 \(counted from 0\): .*b.png is a text file"):
        next(results)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.png", "'a.png' is one path; an iterable of images is accepted; give ['a.png'], or use predict"),
        (Path("a.png"), f"{Path('a.png')!r} is one path"),
        (
            np.zeros((9, 8, 3), np.uint8),
            "the images are an array (9, 8, 3); (B, C, H, W), (B, H, W, C) and (B, H, W) of B images are accepted; put "
            "a single one into a list, or use predict",
        ),
        (torch.zeros(3, 9, 8), "the images are an array (3, 9, 8); "),
        (np.zeros((9, 8), np.uint8), "the images are an array (9, 8); "),
        (7, "the images are of type int; an iterable of images is accepted; put a single one into a list"),
    ],
)
def test_predict_many__refuses_a_single_image_at_once(model, images, message):
    with pytest.raises(DataError) as error:
        model.predict_many(images)

    assert str(error.value).startswith(message)


@pytest.mark.parametrize("batch", [0, -1, True, 2.5, "many"])
def test_predict_many__refuses_odd_batches_at_once(model, batch):
    with pytest.raises(ConfigError, match=r"batch is .*; 1 to [\d,]+ images, or 'auto', are accepted"):
        model.predict_many([], batch=batch)


def test_predict_many__refuses_wrong_options_at_once(model):
    with pytest.raises(ConfigError, match="tta is on but no protocol is named"):
        model.predict_many([], tta=True)
