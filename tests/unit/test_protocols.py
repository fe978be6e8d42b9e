"""The published programs' ways from a photo to a result, on models small enough to compute them twice."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densevit.checkpoints.native import Bundle, Card
from densevit.errors import ConfigError, ShapeError
from densevit.inference import protocols
from densevit.inference.predictor import Predictor
from densevit.inference.protocol_resize import (
    opencv_cubic,
    opencv_linear,
    pillow,
    single_scale_size,
    tta_sizes,
)
from densevit.inference.tiled_logits import full
from densevit.inference_config import InferenceConfig, WholeProtocol, WindowProtocol
from densevit.model import DenseModel
from densevit.tasks import Depth, Segmentation, Task
from tests.factories import random_images, tiny_model
from tests.tolerances import SAME_MATHS

LABELS = Segmentation(classes=tuple("abcde"))
DISPARITY = Depth(quantity="disparity")
MMSEG = WindowProtocol(kind="mmseg", base=(128, 48), window=(48, 48), stride=(32, 32))
SEGMENTER = WindowProtocol(kind="segmenter", base=(128, 40), window=(48, 48), stride=(16, 16))
DPT = WholeProtocol(kind="dpt", net_size=(64, 64), multiple=32, label_offset=1)
HF = WholeProtocol(kind="transformers", net_size=(64, 64), multiple=1, keep_aspect=False)
DA = WholeProtocol(kind="depth_anything", net_size=(42, 42), multiple=14)


def as_transformers(image: NDArray[np.uint8], size: tuple[int, int]) -> torch.Tensor:
    return pillow(image, size, "bicubic")


def photo(height: int = 50, width: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def predictor(name: str, task: Task, **facts: Any) -> Predictor:
    return Predictor(Bundle(tiny_model(name, **facts), {"main": task}, InferenceConfig(), Card()), device="cpu")


def run_protocol(*arguments: Any, **options: Any) -> torch.Tensor:
    """All logits (K, H, W) of an image."""
    with torch.inference_mode():
        return full(protocols.tiled_logits(*arguments, **options))


def network(model: DenseModel, pixels: torch.Tensor) -> torch.Tensor:
    """Logits at the size of the input, which the patch size divides."""
    logits = model(pixels)["main"].logits
    size = pixels.shape[-2:]
    return F.interpolate(logits, size, mode="bilinear", align_corners=model.decoder("main").align_corners)


def test_mmseg__averages_windows_of_the_resized_photo() -> None:
    model = tiny_model("segmenter_linear")
    pixels = opencv_linear(photo(), (48, 67))[None]
    with torch.no_grad():
        left, right = network(model, pixels[..., :48]), network(model, pixels[..., 19:])
    merged = F.pad(left, (0, 19)) + F.pad(right, (19, 0))
    merged[..., 19:48] /= 2
    expected = F.interpolate(merged, (50, 70), mode="bilinear", align_corners=False)[0]

    given = run_protocol(MMSEG, model, "main", LABELS, photo())

    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_segmenter__enlarges_to_a_window_and_anchors_the_last() -> None:
    model = tiny_model("segmenter_linear")
    pixels = opencv_linear(photo(), (40, 56))[None]
    normalised = F.interpolate((pixels - model.mean) / model.std, (48, 67), mode="bilinear", align_corners=False)
    pixels = normalised * model.std + model.mean
    total, visits = torch.zeros(1, 5, 48, 67), torch.zeros(48, 67)
    with torch.no_grad():
        for left in (0, 16, 19):
            total[..., left : left + 48] += network(model, pixels[..., left : left + 48])
            visits[:, left : left + 48] += 1
    expected = F.interpolate(total / visits, (50, 70), mode="bilinear", align_corners=False)[0]

    given = run_protocol(SEGMENTER, model, "main", LABELS, photo())

    torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)


def test_whole_photo__is_one_pass_without_a_window() -> None:
    model = tiny_model("segmenter_linear")
    whole = WindowProtocol(kind="mmseg", base=None)

    given = run_protocol(whole, model, "main", LABELS, photo(48, 64))

    with torch.no_grad():
        expected = network(model, opencv_linear(photo(48, 64), (48, 64))[None])[0]
    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_odd_sides__are_cropped_after_the_resize_by_segmenter_and_before_by_mmseg() -> None:
    model = tiny_model("segmenter_linear")
    images = (random_images((3, 4))[:1, :, :41, :50] - model.mean) / model.std
    with torch.no_grad():
        logits = model.heads["main"](model.encoder(F.pad(images, (0, 14, 0, 7)))).logits
        segmenter = protocols.forward("segmenter", model, "main")(images)
        mmseg = protocols.forward("mmseg", model, "main")(images)

    padded = F.interpolate(logits, (48, 64), mode="bilinear", align_corners=False)[..., :41, :50]
    torch.testing.assert_close(segmenter, padded, **SAME_MATHS)
    torch.testing.assert_close(mmseg, F.interpolate(logits, (41, 50), mode="bilinear"), **SAME_MATHS)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (70, 64),
        (50, 64),  # of 3 patches the coarsest level makes 2, which every fusion and the head double
    ],
)
def test_odd_sides__are_dropped_by_transformers(width: int, expected: int) -> None:
    model = tiny_model("dpt/doubling, depth")
    images = torch.randn(1, 3, 41, width, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        output = protocols.forward("transformers", model, "main")(images)

    assert output.shape == (1, 1, 32, expected)


def test_odd_sides__are_refused_by_dpt() -> None:
    model = tiny_model("dpt/doubling, depth")

    with pytest.raises(ShapeError, match="image is 41 x 50 but protocol dpt takes multiples of patch size 16 x 16"):
        protocols.forward("dpt", model, "main")(torch.zeros(1, 3, 41, 50))


@pytest.mark.parametrize(
    ("protocol", "size", "resize", "mode", "corners"),
    [
        (DPT, (32, 64), opencv_cubic, "bicubic", False),
        (HF, (64, 64), as_transformers, "bicubic", False),
    ],
    ids=["dpt", "transformers"],
)
def test_depth__is_resized_as_the_source_does(
    protocol: WholeProtocol, size: tuple[int, int], resize: Any, mode: str, corners: bool
) -> None:
    model = tiny_model("dpt/doubling, depth")
    with torch.no_grad():
        output = network(model, resize(photo(), size)[None])
    expected = F.interpolate(output, (50, 70), mode=mode, align_corners=corners)[0]

    given = run_protocol(protocol, model, "main", DISPARITY, photo())

    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_depth_anything__covers_the_net_and_aligns_corners() -> None:
    model = tiny_model("dpt/ignore, depth", patch_size=14)
    with torch.no_grad():
        output = model(opencv_cubic(photo(), (42, 56))[None])["main"].logits
    expected = F.interpolate(output, (50, 70), mode="bilinear", align_corners=True)[0]

    given = run_protocol(DA, model, "main", DISPARITY, photo())

    torch.testing.assert_close(given, expected, **SAME_MATHS)


@pytest.mark.parametrize(("protocol", "mode"), [(DPT, "bicubic"), (HF, "bilinear")], ids=["dpt", "transformers"])
def test_labels__are_resized_as_the_source_does(protocol: WholeProtocol, mode: str) -> None:
    model = tiny_model("dpt/doubling, segmentation")
    size, resize = ((32, 64), opencv_cubic) if protocol is DPT else ((64, 64), as_transformers)
    with torch.no_grad():
        output = network(model, resize(photo(), size)[None])
    expected = F.interpolate(output, (50, 70), mode=mode, align_corners=False)[0]

    given = run_protocol(protocol, model, "main", LABELS, photo())

    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_transformers__may_neither_resize_nor_spare_the_padding() -> None:
    model = tiny_model("dpt/doubling, segmentation")
    protocol = WholeProtocol(kind="transformers", net_size=(64, 64), multiple=1, resize=False, pad_multiple=32)
    padded = F.pad((as_transformers(photo(50, 90), (50, 90))[None] - model.mean) / model.std, (3, 3, 7, 7))
    with torch.no_grad():
        output = network(model, padded * model.std + model.mean)
    expected = F.interpolate(output, (50, 90), mode="bilinear", align_corners=False)[0]

    given = run_protocol(protocol, model, "main", LABELS, photo(50, 90))

    torch.testing.assert_close(given, expected, **SAME_MATHS)


@pytest.mark.parametrize("setting", [{"resample": "box"}, {"resize": False}, {"pad_multiple": 2}])
def test_settings_of_transformers__belong_to_no_other_program(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="belong to transformers, but kind is dpt"):
        WholeProtocol.parse({"kind": "dpt", "net_size": (64, 64), "multiple": 32, **setting})


def test_tta__averages_every_scale_with_its_mirror_image() -> None:
    model = tiny_model("segmenter_linear")
    protocol = WindowProtocol(kind="mmseg", base=(96, 32), tta_scales=(1.0, 1.5))
    total = torch.zeros(5, 50, 70)
    with torch.no_grad():
        for size in ((32, 45), (48, 67)):
            pixels = opencv_linear(photo(), size)[None]
            for mirrored in (False, True):
                view = pixels.flip(-1) if mirrored else pixels
                images = (view - model.mean) / model.std
                logits = protocols.forward("mmseg", model, "main")(images)
                logits = F.interpolate(logits, (50, 70), mode="bilinear", align_corners=False)
                total += (logits.flip(-1) if mirrored else logits)[0].softmax(dim=0)

    given = run_protocol(protocol, model, "main", LABELS, photo(), tta=True)

    torch.testing.assert_close(given.softmax(dim=0), total / 4, **SAME_MATHS)


def test_tta__of_the_photo_scales_the_photo() -> None:
    protocol = MMSEG.model_copy(update={"tta_of": "photo", "tta_scales": (0.5, 2.0)})

    assert list(tta_sizes(protocol, (50, 75))) == [(25, 38), (100, 150)]


def test_setr_single_scale__keeps_its_window() -> None:
    protocol = WindowProtocol(kind="setr", base=(520, 520), window=(480, 480), stride=(320, 320))

    assert single_scale_size(protocol, (683, 512)) == (694, 520)
    assert single_scale_size(protocol, (512, 512)) == (520, 520)


def test_predictor__follows_a_protocol_by_name() -> None:
    model = predictor("segmenter_linear", LABELS)
    model.protocol = MMSEG

    labels = model.predict(photo(), protocol="mmseg").labels

    expected = run_protocol(MMSEG, model.model, "main", LABELS, photo()).argmax(dim=0)
    assert np.array_equal(labels, expected.numpy())


def test_predictor__makes_a_protocol_for_the_models_size_where_none_came_along() -> None:
    chosen = predictor("segmenter_linear", LABELS).choose_protocol("segmenter")

    assert chosen == WindowProtocol(kind="segmenter", base=(192, 48), window=(48, 48), stride=(16, 16))


def test_labels_of_dpt__are_one_higher_in_its_own_files() -> None:
    model = predictor("dpt/doubling, segmentation", LABELS)

    result = model.predict(photo(), protocol=DPT).segmentation

    assert np.array_equal(result.source_labels, result.labels.astype(np.int32) + 1)


def test_unknown_protocol__is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="there is no protocol 'mmsegmenter'; did you mean 'segmenter'"):
        predictor("segmenter_linear", LABELS).predict(photo(), protocol="mmsegmenter")


def test_tta__without_a_protocol_is_refused() -> None:
    with pytest.raises(ConfigError, match="tta is on but no protocol is named"):
        predictor("segmenter_linear", LABELS).predict(photo(), tta=True)


@pytest.mark.parametrize(("name", "task", "protocol"), [("dpt/doubling, depth", DISPARITY, DPT)])
def test_tta__of_depth_is_refused(name: str, task: Task, protocol: WholeProtocol) -> None:
    with pytest.raises(ConfigError, match="protocol dpt has no multi-scale set for depth"):
        predictor(name, task).predict(photo(), protocol=protocol, tta=True)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"kind": "mmseg", "base": None, "window": (8, 8)}, "they come together"),
        ({"kind": "mmseg", "base": None, "window": (8, 8), "stride": (9, 8)}, "would leave gaps"),
        ({"kind": "segmenter", "base": None}, "needs a square window"),
    ],
)
def test_protocol__refuses_windows_that_make_no_sense(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WindowProtocol.parse(facts)
