"""Our own windows and test-time augmentation, on models small enough to compute them twice."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from densevit.errors import ConfigError, DensevitError
from densevit.inference.batching import in_batches
from densevit.inference.predictor import Predictor
from densevit.inference.sliding_window import SlidingWindow
from densevit.inference.tiled_logits import full, to_hold
from densevit.inference_config import InferenceConfig
from densevit.pixels import fit_image, to_tensor
from densevit.tasks import Depth, Regression, Segmentation, Task
from tests.tolerances import SAME_MATHS
from tests.unit.predictors import LABELS, photo, predictor

CPU = torch.device("cpu")
WAY = SlidingWindow(window=48, overlap=16, blend="hann")


def reference(
    model: Predictor, image: NDArray[np.uint8], starts: Sequence[Sequence[int]], side: int, hann: bool
) -> Any:
    """The weighted mean of the windows, at full size and window by window."""
    network, corners = model.model, model.model.decoder("main").align_corners
    ramp = torch.sin(torch.pi * (torch.arange(side) + 0.5) / side) ** 2 if hann else torch.ones(side)
    total, seen = 0, torch.zeros(image.shape[:2])
    for y in starts[0]:
        for x in starts[1]:
            crop = to_tensor(image[y : y + side, x : x + side])[None]
            with torch.no_grad():
                logits = network(crop)["main"].logits
            full = F.interpolate(logits, (side, side), mode="bilinear", align_corners=corners)[0]
            place = (x, image.shape[1] - x - side, y, image.shape[0] - y - side)
            total, seen = total + F.pad(full * ramp[:, None] * ramp, place), seen + F.pad(ramp[:, None] * ramp, place)
    return total / seen


@pytest.mark.parametrize("blend", ["uniform", "hann"])
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("segmenter_linear", LABELS),
        ("setr_pup/mmseg", LABELS),
        ("dpt/ignore, segmentation", LABELS),
        ("dpt/ignore, depth", Depth()),
        ("dpt/regression at 2 x fusion", Regression(channels=tuple("abc"))),
    ],
)
def test_windows__are_blended_at_the_photos_pixels(name: str, task: Task, blend: str) -> None:
    model = predictor(name, task)
    way = SlidingWindow.parse({"window": 48, "overlap": 16, "blend": blend})

    given = model.predict(photo(), windows=way)["main"].logits

    expected = reference(model, photo(), ((0, 32, 52), (0, 32, 64, 82)), 48, blend == "hann")
    torch.testing.assert_close(given, expected, **SAME_MATHS)


def test_labels_scores_and_depth__are_those_of_the_blend() -> None:
    result = predictor().predict(photo(), windows=WAY).segmentation
    assert np.array_equal(result.labels, result.logits.argmax(0).numpy())
    np.testing.assert_allclose(result.scores, result.logits.softmax(0).amax(0), **SAME_MATHS)
    assert result.entropy.shape == result.labels.shape
    depth = predictor("dpt/ignore, depth", Depth()).predict(photo(), windows=WAY)
    assert np.array_equal(depth.depth, depth["main"].logits[0].numpy())


@pytest.mark.parametrize("name", ["segmenter_mask", "setr_pup/mmseg", "dpt/ignore, segmentation"])
def test_labels__are_the_same_for_any_batch(name: str) -> None:
    model = predictor(name)

    labels = [
        model.predict(photo(), windows=WAY.model_copy(update={"batch": batch})).labels
        for batch in (1, 2, 5, 64, "auto")
    ]

    assert all(np.array_equal(labels[0], other) for other in labels[1:])


@pytest.mark.parametrize("fill", ["edge", "mean"])
@pytest.mark.parametrize(("small", "sides"), [("shrink", (32, 48)), ("pad", (48, 48))])
def test_small_photo__shrinks_the_window_or_is_padded(small: str, sides: tuple[int, int], fill: str) -> None:
    model, image = predictor(), photo(20, 41)
    way = SlidingWindow.parse({"window": 48, "small": small, "fill": fill})

    given = model.predict(image, windows=way)["main"].logits

    padding = (0, sides[1] - 41, 0, sides[0] - 20)
    pixels = F.pad(to_tensor(image)[None], padding, mode="replicate")
    if fill == "mean":
        pixels = (F.pad(to_tensor(image)[None] - model.model.mean, padding)) + model.model.mean
    with torch.no_grad():
        logits = model.model(pixels)["main"].logits
    expected = F.interpolate(logits, sides, mode="bilinear")[0, :, :20, :41]
    torch.testing.assert_close(given, expected, **SAME_MATHS)


@pytest.mark.parametrize(
    ("name", "task"),
    [("segmenter_linear", LABELS), ("dpt/ignore, segmentation", LABELS), ("dpt/ignore, depth", Depth())],
)
def test_window_of_the_model__is_that_of_the_resized_photo(name: str, task: Task) -> None:
    model, image = predictor(name, task), photo(60, 90)
    model.fit = InferenceConfig(short_side=70, window=50)  # 64 x 112 pixels in windows of 48

    given = model.predict(image)["main"].logits

    pixels = fit_image(image, (64, 112)).permute(1, 2, 0).numpy()
    blend = reference(model, pixels, ((0, 16), (0, 23, 46, 64)), 48, hann=False)
    expected = F.interpolate(blend[None], (60, 90), mode="bilinear")[0]
    torch.testing.assert_close(given, expected, **SAME_MATHS)


@pytest.mark.parametrize("fit", [{"window": 48}, {}], ids=["windows", "whole"])
def test_resized_image_of_8_bits__is_not_rounded_to_8_bits_again(fit: dict[str, int]) -> None:
    model = predictor()
    model.fit = InferenceConfig(short_side=64, **fit)

    labels_of_8_bits, of_floats = (
        model.predict(image)["main"] for image in (photo(), photo().astype(np.float32) / 255)
    )

    torch.testing.assert_close(full(labels_of_8_bits.tiled), full(of_floats.tiled), rtol=0, atol=0)


def test_flip_of_the_model__is_that_of_predict() -> None:
    plain, mirrored = predictor("dpt/ignore, depth", Depth()), predictor("dpt/ignore, depth", Depth())
    mirrored.fit = InferenceConfig(short_side=48, flip=True)

    assert np.array_equal(mirrored.predict(photo()).depth, plain.predict(photo(), flip=True).depth)
    assert not np.array_equal(mirrored.predict(photo()).depth, plain.predict(photo()).depth)


def test_windows__are_the_same_under_autocast() -> None:
    model = predictor("dpt/ignore, depth", Depth())
    expected = model.predict(photo(), windows=WAY).depth

    with torch.autocast("cpu", torch.bfloat16):
        given = model.predict(photo(), windows=WAY).depth

    assert np.abs(given - expected).max() < 0.05 * expected.max()


def test_scale__gives_results_of_the_photos_size() -> None:
    result = predictor().predict(photo(), windows=WAY.model_copy(update={"scale": 0.6}))

    assert result.labels.shape == (100, 130)


def test_accumulation_at_the_stride__equals_the_exact_one_for_one_window_and_is_near_it_else() -> None:
    model = predictor()
    one, rough = photo(48, 48), WAY.model_copy(update={"accumulate": "stride"})

    exact, given = (model.predict(one, windows=way)["main"].logits for way in (WAY, rough))
    torch.testing.assert_close(given, exact, **SAME_MATHS)

    exact, given = (model.predict(photo(), windows=way)["main"].logits for way in (WAY, rough))
    assert (given.argmax(0) == exact.argmax(0)).float().mean() > 0.8
    assert given.shape == exact.shape


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"window": 50}, "window is 50 but must be a multiple of patch size 16; use 64"),
        ({"overlap": 48}, "overlap is 48 but must be below the window 48; use 12"),
    ],
)
def test_windows__that_do_not_suit_the_model_are_refused(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor().predict(photo(), windows=SlidingWindow.parse(facts))


def test_windows__with_a_protocol_are_refused() -> None:
    with pytest.raises(ConfigError, match="protocol mmseg has its own windows and scales"):
        predictor().predict(photo(), windows=WAY, protocol="mmseg")


# Test-time augmentation


@pytest.mark.parametrize("windows", [None, WAY], ids=["whole", "windows"])
@pytest.mark.parametrize(
    ("name", "task"), [("segmenter_linear", LABELS), ("dpt/ignore, depth", Depth())], ids=["labels", "depth"]
)
def test_scales_and_flip__are_averaged(name: str, task: Task, windows: SlidingWindow | None) -> None:
    model, total = predictor(name, task), torch.zeros(())
    scales = (0.75, 1.0, 1.5)

    given = model.predict(photo(), scales=scales, flip=True, windows=windows)["main"].logits

    for scale in scales:
        for image in (photo(), np.ascontiguousarray(photo()[:, ::-1])):
            part = model.predict(image, scales=(scale,), windows=windows)["main"].logits
            if windows is None:
                part = F.interpolate(part[None], (100, 130), mode="bilinear", align_corners="dpt" in name)[0]
            part = part.softmax(0) if isinstance(task, Segmentation) else part
            total = total + (part if np.array_equal(image, photo()) else part.flip(-1))
    expected = total / 6
    given = given.softmax(0) if isinstance(task, Segmentation) else given
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


def test_flip__of_a_direction_changes_the_sign_of_its_x() -> None:
    task = Regression(channels=("x", "y", "z"), unit_vectors=True)
    model = predictor("dpt/ignore, regression", task)
    symmetric = np.concatenate([photo(48, 24), photo(48, 24)[:, ::-1]], axis=1)

    values = model.predict(symmetric, flip=True)["main"].logits

    torch.testing.assert_close(values[0], -values[0].flip(-1), **SAME_MATHS)
    torch.testing.assert_close(values[1:], values[1:].flip(-1), **SAME_MATHS)


# Memory


@pytest.mark.parametrize(
    "message",
    [
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 12 bytes",
        "could not create a primitive",  # oneDNN's, without a reason
    ],
)
def test_batch__is_halved_when_memory_runs_out(message: str, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def run(items: Sequence[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > 2:
            raise RuntimeError(message)
        return [item * 10 for item in items]

    with caplog.at_level(logging.WARNING):
        given = list(in_batches(run, range(7), 8, device=CPU, what="window"))

    assert given == [0, 10, 20, 30, 40, 50, 60]
    assert tried == [7, 4, 2, 2, 2, 1]
    assert "not enough memory for" in caplog.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "MemoryError"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), "CUDA out of memory"),
        (RuntimeError("could not create a primitive\nmore"), "could not create a primitive"),
    ],
)
def test_one_window__that_does_not_fit_is_an_error(error: Exception, said: str) -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(
        DensevitError, match=rf"there is not enough memory on cpu for one window \({said}\); choose a smaller window"
    ):
        list(in_batches(run, [1, 2], 4, device=CPU, what="window"))


def test_other_errors__pass() -> None:
    def run(items: Sequence[int]) -> list[int]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_batches(run, [1], 1, device=CPU, what="window"))


LIMITED = """
import logging, resource, sys
import numpy as np, torch
sys.path.insert(0, {root!r})
from tests.unit.predictors import predictor, photo
from densevit.inference.sliding_window import SlidingWindow
logging.basicConfig(level="WARNING", format="%(message)s")
torch.set_num_threads(1)
model = predictor("segmenter_linear")
image = photo(512, 8192)
way = SlidingWindow(window=512, overlap=0)
expected = model.predict(image, windows=way).labels
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + {spare} * 2**20, resource.RLIM_INFINITY))
try:
    labels = model.predict(image, windows=way.model_copy(update=dict(batch=16))).labels
    print("equal", np.array_equal(labels, expected))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_memory_limit__halves_the_batch_and_gives_the_same_labels() -> None:
    script = LIMITED.format(root=str(Path(__file__).parents[2]), spare=100)

    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)

    assert run.stdout.strip() == "equal True", run.stderr
    assert "continuing with" in run.stderr


def test_hold__copies_what_is_part_of_more() -> None:
    whole = torch.rand(2, 3, 4, 5)

    assert to_hold(whole).data_ptr() == whole.data_ptr()
    part = to_hold(whole[1])
    assert torch.equal(part, whole[1])
    assert part.untyped_storage().nbytes() == part.numel() * 4
