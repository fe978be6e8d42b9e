"""What a prediction holds and what it writes, from logits that are known."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from densevit.errors import DataError, DensevitError
from densevit.inference.decode import mean_entropy
from densevit.inference.prediction import Prediction
from densevit.inference.results import DepthResult, RegressionResult, SegmentationResult, head_result
from densevit.inference.tiled_logits import StitchedLogits, resized_logits, tile_entropy, tile_labels, tile_scores
from densevit.inference.tta import MeanLogits
from densevit.tasks import Depth, Regression, Segmentation
from tests.tolerances import SAME_MATHS

SIZE = (21, 34)
IMAGE = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
STREETS = Segmentation(classes=("road", "sky", "tree"))
ROOMS = Segmentation(classes=("wall", "floor", "bed"))
METRES = Depth()
DISPARITY = Depth(quantity="disparity")


def logits(channels: int = 3, *, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(channels, 5, 8, generator=torch.Generator().manual_seed(seed)) * scale


def segmentation(
    task: Segmentation = STREETS, *, align_corners: bool = False, scale: float = 1.0
) -> SegmentationResult:
    result = head_result(
        "streets", task, IMAGE, resized_logits(logits(scale=scale), IMAGE.shape[:2], align_corners=align_corners)
    )
    assert isinstance(result, SegmentationResult)
    return result


def depth(task: Depth = METRES, values: Tensor | None = None) -> DepthResult:
    given = logits(1).abs() + 0.5 if values is None else values
    result = head_result("depth", task, IMAGE, resized_logits(given, IMAGE.shape[:2], align_corners=True))
    assert isinstance(result, DepthResult)
    return result


def regression(channels: int) -> RegressionResult:
    task = Regression(channels=tuple("abcd"[:channels]))
    result = head_result("values", task, IMAGE, resized_logits(logits(channels), IMAGE.shape[:2], align_corners=True))
    assert isinstance(result, RegressionResult)
    return result


def stitched(plain: Tensor, *, align_corners: bool = False) -> StitchedLogits:
    """Logits as tiled logits of the image's size."""
    return resized_logits(plain, SIZE, align_corners=align_corners)


def saved(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def prediction() -> Prediction:
    """Rooms are unsure, streets are sure, and there is depth."""
    rooms = head_result(
        "rooms", ROOMS, IMAGE, resized_logits(logits(scale=0.1, seed=1), IMAGE.shape[:2], align_corners=False)
    )
    return Prediction(IMAGE, {"rooms": rooms, "streets": segmentation(scale=4.0), "depth": depth()})


# Segmentation


@pytest.mark.parametrize("align_corners", [False, True])
def test_segmentation__labels_scores_and_entropy_are_those_of_the_resized_logits(align_corners):
    result = segmentation(align_corners=align_corners)
    full = F.interpolate(result.logits[None], SIZE, mode="bilinear", align_corners=align_corners)[0]
    p = full.softmax(0)
    entropy = -(p * p.log()).sum(0) / np.log(3)
    np.testing.assert_array_equal(result.labels, full.argmax(0))
    np.testing.assert_allclose(result.scores, p.amax(0), **SAME_MATHS)
    np.testing.assert_allclose(result.entropy, entropy, **SAME_MATHS)


def test_segmentation__shares_count_every_class():
    result = segmentation()
    assert result.shares == {name: (result.labels == i).mean() for i, name in enumerate(STREETS.classes)}
    assert sum(result.shares.values()) == pytest.approx(1)


def test_segmentation__overlay_leaves_the_photo_as_it_was():
    before = IMAGE.copy()
    assert segmentation().overlay().shape == IMAGE.shape
    np.testing.assert_array_equal(IMAGE, before)


def test_segmentation__save_writes_ids_with_colours(tmp_path):
    result = segmentation()
    record = result.save(tmp_path, "a.b")
    assert (record["labels"], record["overlay"]) == ("a.b.streets.labels.png", "a.b.streets.overlay.png")
    with Image.open(tmp_path / record["labels"]) as image:
        np.testing.assert_array_equal(np.asarray(image), result.labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), result.colours())
    np.testing.assert_array_equal(saved(tmp_path / record["overlay"]), result.overlay())


def test_segmentation__more_than_256_classes_are_saved_in_16_bit(tmp_path):
    task = Segmentation(
        classes=tuple(f"class {i}" for i in range(300)),
        palette=tuple((i % 256, i // 256, 7) for i in range(300)),
        ignore_index=-1,
    )
    result = head_result("many", task, IMAGE, resized_logits(logits(300), IMAGE.shape[:2], align_corners=False))
    assert isinstance(result, SegmentationResult)
    result.save(tmp_path, "a")
    found = saved(tmp_path / "a.many.labels.png")
    assert (found.dtype, found.max() > 255) == (np.uint16, True)
    np.testing.assert_array_equal(found, result.labels)


@pytest.mark.parametrize("align_corners", [False, True])
def test_mean_entropy__is_taken_at_points_of_the_decoders_grid(align_corners):
    p = logits().softmax(0)
    expected = -(p * p.log()).sum(0).mean() / np.log(3)
    tiled = stitched(logits(), align_corners=align_corners)
    assert mean_entropy(tiled) == pytest.approx(float(expected))
    assert head_result("streets", STREETS, IMAGE, tiled).mean_entropy == mean_entropy(tiled)


def test_mean_entropy__of_blended_views_is_that_of_their_mean():
    views = [(stitched(logits(seed=seed)), False) for seed in (0, 1)]
    p = sum(F.interpolate(logits(seed=seed)[None], SIZE, mode="bilinear")[0].softmax(0) for seed in (0, 1)) / 2
    expected = -(p * p.log()).sum(0).mean() / np.log(3)
    assert mean_entropy(MeanLogits(views, probabilities=True)) == pytest.approx(float(expected))


def test_logits__are_those_of_the_decoder_where_the_result_is_their_resize():
    plain = logits()
    result = head_result("streets", STREETS, IMAGE, stitched(plain))
    assert torch.equal(result.logits, plain)


# Depth


def test_depth__is_the_resized_value_in_metres():
    result = depth()
    full = F.interpolate(result.logits[None], SIZE, mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_allclose(result.depth, full, **SAME_MATHS)
    assert (result.quantity, result.unit) == ("depth", "m")


def test_depth__is_saved_in_millimetres(tmp_path):
    record = depth().save(tmp_path, "a")
    np.testing.assert_array_equal(saved(tmp_path / "a.depth.mm.png"), np.rint(depth().depth.astype(float) * 1000))
    assert (record["values"], record["colours"], record["unit"]) == ("a.depth.mm.png", "a.depth.colours.png", "m")


def test_disparity__is_saved_over_its_range(tmp_path):
    result = depth(DISPARITY, logits(1))
    record = result.save(tmp_path, "a")
    found = saved(tmp_path / "a.depth.disparity.png")
    assert (found.min(), found.max(), found.dtype) == (0, 65535, np.uint16)
    back = found / 65535 * (record["max"] - record["min"]) + record["min"]
    np.testing.assert_allclose(back, result.depth, atol=2e-4)  # the record has four decimals
    assert (record["quantity"], record["unit"]) == ("disparity", "")


def test_relative_depth__is_saved_over_its_range(tmp_path):
    record = depth(Depth(quantity="relative_depth"), logits(1)).save(tmp_path, "a")
    assert saved(tmp_path / "a.depth.relative_depth.png").max() == 65535
    assert (record["values"], record["quantity"], record["unit"]) == (
        "a.depth.relative_depth.png",
        "relative_depth",
        "",
    )


def test_disparity__without_any_range_is_zero(tmp_path):
    depth(DISPARITY, torch.full((1, 5, 8), 0.7)).save(tmp_path, "a")
    assert saved(tmp_path / "a.depth.disparity.png").max() == 0


def test_depth__and_disparity_both_show_what_is_near_brightly():
    ramp = torch.linspace(1, 5, 8).expand(1, 5, 8)
    far_right, near_right = depth(METRES, ramp).colours(), depth(DISPARITY, ramp).colours()
    assert far_right[:, 0].sum() > far_right[:, -1].sum()
    assert near_right[:, 0].sum() < near_right[:, -1].sum()


# Regression


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_regression__is_saved_as_an_array_and_a_picture(tmp_path, channels):
    result = regression(channels)
    record = result.save(tmp_path, "a")
    np.testing.assert_array_equal(np.load(tmp_path / "a.values.npy"), result.values)
    assert saved(tmp_path / "a.values.colours.png").shape == (*SIZE, 3)
    assert record["channels"] == list("abcd"[:channels])


# Prediction


def test_prediction__is_a_mapping_by_head(prediction):
    assert (list(prediction), len(prediction), "streets" in prediction) == (["rooms", "streets", "depth"], 3, True)
    assert repr(prediction) == "Prediction(21 x 34; rooms, streets, depth)"


def test_segmentation_result__surprise_is_entropy_above_what_is_typical(prediction):
    result = prediction["streets"]
    usual = dataclasses.replace(result, task=result.task.model_copy(update={"typical_entropy": 0.25}))
    assert usual.excess_entropy == pytest.approx(result.mean_entropy - 0.25)


def test_prediction__primary_is_the_least_surprised_segmentation(prediction):
    assert prediction.primary == "streets"
    assert prediction.class_names == ("road", "sky", "tree")
    np.testing.assert_array_equal(prediction.labels, prediction["streets"].labels)


def test_prediction__primary_takes_into_account_how_sure_a_head_usually_is(prediction):
    unsure = ROOMS.model_copy(update={"typical_entropy": 0.99})
    rooms = head_result(
        "rooms", unsure, IMAGE, resized_logits(prediction["rooms"].logits, IMAGE.shape[:2], align_corners=False)
    )
    assert Prediction(IMAGE, {"rooms": rooms, "streets": prediction["streets"]}).primary == "rooms"


def test_prediction__depth_is_that_of_the_depth_head(prediction):
    np.testing.assert_array_equal(prediction.depth, prediction["depth"].depth)
    assert (prediction.depth_quantity, prediction.depth_unit) == ("depth", "m")


def test_prediction__overlay_is_of_the_primary_or_the_named_head(prediction):
    np.testing.assert_array_equal(prediction.overlay(), prediction["streets"].overlay())
    np.testing.assert_array_equal(prediction.overlay("depth", alpha=0.3), prediction["depth"].overlay(0.3))


def test_prediction__overlay_without_segmentation_is_of_the_first_head():
    only = depth()
    prediction = Prediction(IMAGE, {"depth": only})
    assert prediction.primary is None
    np.testing.assert_array_equal(prediction.overlay(), only.overlay())


def test_prediction__save_writes_all_and_returns_the_record(prediction, tmp_path):
    record = prediction.save(tmp_path / "new" / "folder", "a", extra={"source": "b.jpg"})
    files = {
        *(f"a.{head}.{file}.png" for head in ("rooms", "streets") for file in ("labels", "overlay")),
        "a.depth.mm.png",
        "a.depth.colours.png",
        "a.json",
    }
    assert {path.name for path in (tmp_path / "new" / "folder").glob("[!.]*")} == files
    assert json.loads((tmp_path / "new" / "folder" / "a.json").read_text()) == record
    assert (record["source"], record["height"], record["width"], record["primary"]) == ("b.jpg", 21, 34, "streets")


def test_prediction__a_failed_save_leaves_no_record(prediction, tmp_path):
    (tmp_path / "a.depth.mm.png").mkdir()
    with pytest.raises(DataError):
        prediction.save(tmp_path, "a")
    assert not (tmp_path / "a.json").exists()


def test_prediction__a_folder_that_cannot_be_made_is_refused(prediction, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError) as caught:
        prediction.save(tmp_path / "file")
    assert str(caught.value) == (
        f"folder {tmp_path / 'file'} cannot be made (File exists); choose another name or fix the permissions"
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda p: p["depht"], "there is no head 'depht'; this prediction has streets"),
        (lambda p: p.depth, "this model has no depth head; it has streets"),
    ],
)
def test_prediction__says_what_it_has_instead(ask, message):
    with pytest.raises(DensevitError) as caught:
        ask(Prediction(IMAGE, {"streets": segmentation()}))
    assert str(caught.value) == message


def test_prediction__knows_which_heads_it_has():
    found = Prediction(IMAGE, {"streets": segmentation()})

    assert "streets" in found
    assert "depth" not in found
    assert found.get("depth") is None


def test_prediction__without_segmentation_has_no_labels():
    with pytest.raises(DensevitError) as caught:
        _ = Prediction(IMAGE, {"depth": depth()}).labels
    assert str(caught.value) == "this model has no segmentation head; it has depth"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (300, 2)])
def test_prediction__takes_photos_of_any_size(size):
    image = np.zeros((*size, 3), np.uint8)
    prediction = Prediction(
        image,
        {
            "streets": head_result(
                "streets", STREETS, image, resized_logits(logits(), image.shape[:2], align_corners=True)
            ),
            "depth": head_result(
                "depth", METRES, image, resized_logits(logits(1).abs(), image.shape[:2], align_corners=False)
            ),
        },
    )
    assert (prediction.labels.shape, prediction.depth.shape, prediction.overlay().shape[:2]) == (size, size, size)


@pytest.mark.parametrize("size", [(5, 6), (10, 12), (7, 17)])
def test_tiles__of_logits_that_are_not_finite_are_so_only_near_them(size: tuple[int, int]) -> None:
    plain = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    plain[1] = -torch.inf
    plain[2, 2, 3] = torch.nan
    logits = resized_logits(plain, size, align_corners=False)

    tile = logits.tile(slice(0, size[0]), slice(0, size[1]))

    clean = plain.clone()
    clean[1], clean[2, 2, 3] = 0, 0
    expected = resized_logits(clean, size, align_corners=False).tile(slice(0, size[0]), slice(0, size[1]))
    assert tile[1].isneginf().all()
    nan = tile[2].isnan()
    assert 0 < nan.sum() < nan.numel() / 2
    torch.testing.assert_close(tile[0], expected[0], rtol=0, atol=0)
    torch.testing.assert_close(tile[2][~nan], expected[2][~nan], rtol=0, atol=0)
    assert tile_labels(tile)[nan].eq(2).all()
    assert tile_scores(tile)[nan].isnan().all()
    assert tile_scores(tile)[~nan].isfinite().all()
    assert tile_entropy(tile)[~nan].isfinite().all()
