import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from densevit.data import ClassTable, Sample
from densevit.errors import ConfigError, DataError
from densevit.model import DenseModel
from densevit.pixels import to_tensor
from densevit.training.batches import SourceBatches, steps
from densevit.training.config import TrainConfig
from densevit.training.feature_cache import FeatureCache, to_taps
from tests.factories import tiny_encoder
from tests.tolerances import EXACT

PATCH = 16
GRID = (3, 4)
CROP = (GRID[0] * PATCH, GRID[1] * PATCH)
CLASSES = tuple(f"class {i}" for i in range(12))


class Photos:
    """Photos of noise of the size of a crop; labels count the patches, depth is one more, all rolled by the index."""

    def __init__(self, length: int = 5, names: tuple[str, ...] = CLASSES) -> None:
        self.length = length
        self.classes: ClassTable | None = ClassTable(names)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int, /) -> Sample:
        patches = np.roll(np.arange(12), index).reshape(GRID)
        labels = np.kron(patches, np.ones((PATCH, PATCH), np.int64)).astype(np.int32)
        image = np.random.default_rng(index).integers(0, 256, (*CROP, 3), dtype=np.uint8)
        return Sample(f"photo {index}", image, labels, (labels + 1).astype(np.float32))


class PatchNumbers(FeatureCache):
    """Gives, instead of features, the number that the labels have in each patch; the prefix token is -1."""

    def __init__(self, dataset: Photos) -> None:
        self.numbers = {self._key(to_tensor(dataset[i].image)): np.roll(np.arange(12), i) for i in range(len(dataset))}

    def read(self, image: Tensor) -> NDArray[np.float16]:
        numbers = np.concatenate([[-1], self.numbers[self._key(image)]])
        return np.broadcast_to(numbers[None, :, None], (4, 13, 2)).astype(np.float16)

    @staticmethod
    def _key(image: Tensor) -> bytes:
        return (image * 255).round().byte().numpy().tobytes()


def config(
    *, seed: int = 0, batch_size: int = 2, features: dict[str, Any] | None = None, **augment: Any
) -> TrainConfig:
    """Two linear heads on a tiny encoder; no augmentation but what is asked for."""
    linear = {"kind": "segmenter_linear"}
    data = {
        "model": {
            "encoder": tiny_encoder(),
            "heads": {
                "labels": {"decoder": linear, "out_channels": len(CLASSES)},
                "depth": {"decoder": linear, "out_channels": 1},
            },
        },
        "tasks": {
            "labels": {"kind": "segmentation", "classes": CLASSES},
            "depth": {"kind": "depth", "max_depth_m": 20.0},
        },
        "sources": [{"train": {"root": "data"}, "heads": ["labels", "depth"], "batch_size": batch_size}],
        "augment": {"crop": CROP, "scale": (1.0, 1.0), "flip": 0.0, "colour": 0.0, "cat_max_ratio": 1.0, **augment},
        "iterations": 10,
        "seed": seed,
        "freeze": "encoder",
        "features": features,
    }
    return TrainConfig.parse(data)


def batches(run: TrainConfig, dataset: Photos | None = None, cache: FeatureCache | None = None) -> SourceBatches:
    return SourceBatches(Photos() if dataset is None else dataset, run.sources[0], run, dict(run.tasks), cache)


def which(targets: Tensor) -> list[int]:
    """The photos that a batch of labels belongs to: the roll of its patch numbers."""
    return [-int(labels[0, 0]) % 12 for labels in targets]


@pytest.fixture
def model() -> DenseModel:
    torch.manual_seed(0)
    return DenseModel(config().model).eval()


def test_batch__holds_images_and_the_targets_of_every_head() -> None:
    batch = batches(config())[0]
    assert batch.inputs.shape == (2, 3, *CROP)
    assert batch.grid == GRID
    assert {head: (tuple(t.shape), t.dtype) for head, t in batch.targets.items()} == {
        "labels": ((2, *CROP), torch.int64),
        "depth": ((2, *CROP), torch.float32),
    }


def test_batch__of_a_source_with_its_own_augmentation_follows_that() -> None:
    run = config()
    own = run.sources[0].model_copy(update={"augment": run.augment.model_copy(update={"crop": (32, 48)})})

    batch = SourceBatches(Photos(), own, run, dict(run.tasks), None)[0]

    assert batch.inputs.shape == (2, 3, 32, 48)
    assert batch.grid == (2, 3)


def test_config__checks_the_augmentation_of_every_source() -> None:
    run = config().plain()
    run["sources"][0]["augment"] = {"crop": [40, 48]}

    with pytest.raises(ConfigError, match=r"augment.crop \(40, 48\) must be multiples of patch size \(16, 16\)"):
        TrainConfig.parse(run)


def test_batch__is_a_pure_function_of_the_step() -> None:
    run = config(scale=(0.5, 2.0), flip=0.5, colour=0.4)
    one, other = batches(run), batches(run)
    other[0]
    torch.manual_seed(99)
    for step in (3, 0, 7, 3):
        first, second = one[step], other[step]
        torch.testing.assert_close(second.inputs, first.inputs, **EXACT)
        torch.testing.assert_close(second.targets, first.targets, **EXACT)


def test_mixing__is_a_pure_function_of_the_step_too() -> None:
    run = config(batch_size=4, cutmix=0.5, classmix=0.5)
    one, other = batches(run), batches(run)
    for step in (2, 0):
        torch.testing.assert_close(other[step].inputs, one[step].inputs, **EXACT)
        torch.testing.assert_close(other[step].targets, one[step].targets, **EXACT)
    assert not torch.equal(one[0].inputs, batches(config(batch_size=4))[0].inputs)


def test_mixing__of_cached_features_is_refused(model: DenseModel, tmp_path: Path) -> None:
    run = config(features={"directory": tmp_path}, cutmix=0.5)
    with pytest.raises(ConfigError) as caught:
        batches(run, cache=FeatureCache(tmp_path, model))
    assert str(caught.value) == (
        "augment has cutmix or classmix, but cached features cannot be mixed; set both to 0 or unset features"
    )


def test_batch__differs_between_steps_and_seeds() -> None:
    run = config(scale=(0.5, 2.0), flip=0.5, colour=0.4)
    other_seed = run.model_copy(update={"seed": 1})
    inputs = [batches(run)[0].inputs, batches(run)[5].inputs, batches(other_seed)[0].inputs]
    assert [torch.equal(a, b) for a, b in zip(inputs, inputs[1:] + inputs[:1], strict=True)] == [False] * 3


def test_epoch__shows_every_photo_once_in_a_new_order() -> None:
    source = batches(config(batch_size=3))
    seen = [photo for step in range(5) for photo in which(source[step].targets["labels"])]
    epochs = [seen[i : i + 5] for i in (0, 5, 10)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 3
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_steps__are_the_same_with_workers_and_from_the_middle() -> None:
    source = batches(config(scale=(0.5, 2.0)))
    plain = [batch.inputs for batch in steps(source, 0, 4, workers=0)]
    with_worker = [batch.inputs for batch in steps(source, 2, 4, workers=1)]
    torch.testing.assert_close(with_worker, plain[2:], **EXACT)


@pytest.mark.parametrize("workers", [0, 2])
def test_steps__an_error_of_a_worker_keeps_its_message_and_no_process_lives_on(workers: int) -> None:
    class Broken(Photos):
        def __getitem__(self, index: int, /) -> Sample:
            raise DataError("the third photo is broken")

    ahead = steps(batches(config(), Broken()), 0, 4, workers)
    with pytest.raises(DataError, match=r"^the third photo is broken$"):
        next(ahead)
    assert multiprocessing.active_children() == []  # the error, which is still held, holds the loader


def test_steps__closed_in_the_middle_leave_no_process() -> None:
    ahead = steps(batches(config()), 0, 100, workers=2)
    next(ahead)
    assert len(multiprocessing.active_children()) == 2
    ahead.close()
    assert multiprocessing.active_children() == []


def test_features__of_the_plain_view_equal_the_encoders_on_the_image(model: DenseModel, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, model)
    images = batches(config())[1]
    features = batches(config(features={"directory": tmp_path}), cache=cache)[1]

    with torch.inference_mode():
        expected = model.encode(images.inputs)
    taps = to_taps(features.inputs, model, features.grid, 4)

    assert (taps.grid, taps.patch_size) == (expected.grid, expected.patch_size)
    torch.testing.assert_close(taps.tokens, expected.tokens, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(taps.prefix, expected.prefix, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features.targets, images.targets, **EXACT)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [None, (2, 2), (1, 3), GRID])
def test_features__stay_aligned_with_their_targets(crop: tuple[int, int] | None, flip: bool) -> None:
    dataset = Photos()
    features = {"directory": "unused", "crop": crop, "flip": flip}
    source = batches(config(features=features, batch_size=10), dataset, PatchNumbers(dataset))

    batch = source[0]

    h, w = crop or GRID
    assert batch.grid == (h, w)
    assert batch.inputs.shape == (10, 4, 1 + h * w, 2)
    assert (batch.inputs[:, :, 0] == -1).all()
    numbers = batch.inputs[:, 0, 1:, 0].long().unflatten(1, (h, w))
    pixels = numbers.repeat_interleave(PATCH, dim=1).repeat_interleave(PATCH, dim=2)
    assert torch.equal(batch.targets["labels"], pixels)
    assert torch.equal(batch.targets["depth"], pixels + 1.0)


def test_feature_flip__happens_about_half_of_the_time() -> None:
    dataset = Photos(1)
    source = batches(config(features={"directory": "unused", "flip": True}), dataset, PatchNumbers(dataset))
    first = torch.cat([source[step].targets["labels"][:, 0, 0] for step in range(40)])
    assert set(first.tolist()) == {0, 3}  # the left or the right end of the first row
    assert 25 <= int((first == 0).sum()) <= 55


def test_feature_crop__reaches_every_corner() -> None:
    dataset = Photos(1)
    source = batches(config(features={"directory": "unused", "crop": (2, 2)}), dataset, PatchNumbers(dataset))
    corners = torch.cat([source[step].targets["labels"][:, 0, 0] for step in range(40)])
    assert set(corners.tolist()) == {0, 1, 2, 4, 5, 6}


def test_views__are_drawn_once_and_all_of_them_are_seen(model: DenseModel, tmp_path: Path) -> None:
    run = config(features={"directory": tmp_path, "views": 3}, batch_size=30, scale=(1.0, 2.0))
    source = batches(run, Photos(2), FeatureCache(tmp_path, model))

    assert list(source.prepare()) == [1, 2, 3, 4, 5, 6]

    files = sorted(tmp_path.rglob("*.npy"))
    batch = source[0]
    assert len(files) == len(batch.inputs.flatten(1).unique(dim=0)) == 6
    assert sorted(tmp_path.rglob("*.npy")) == files


def test_prepare__encodes_only_what_the_cache_lacks(
    model: DenseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = config(features={"directory": tmp_path})
    for _ in batches(run, Photos(2), FeatureCache(tmp_path, model)).prepare():
        pass
    encoded: list[Tensor] = []
    encode = model.encode_first
    monkeypatch.setattr(model, "encode_first", lambda images, depth: encoded.append(images) or encode(images, depth))

    done = list(batches(run, Photos(3), FeatureCache(tmp_path, model)).prepare())

    assert done == [1, 2, 3]
    assert len(encoded) == 1


def test_prepare__has_nothing_to_do_without_a_cache() -> None:
    assert isinstance(batches(config()).prepare(), Iterator)
    assert list(batches(config()).prepare()) == []


def test_source__refuses_an_empty_data_set() -> None:
    with pytest.raises(DataError) as caught:
        batches(config(), Photos(0))
    assert str(caught.value) == "the data set is empty; it needs at least one photo"


def test_source__refuses_a_data_set_of_other_classes() -> None:
    source = batches(config(), Photos(names=("road", "sky")))
    with pytest.raises(DataError) as caught:
        source[0]
    assert str(caught.value) == (
        f"head 'labels' has classes {', '.join(CLASSES)} but the data set has road, sky; "
        "use the data set's names in its order, or add a view to classes.json"
    )


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("labels", "head 'labels' needs masks but the data set has none; add a folder masks/, or drop the head"),
        ("depth", "head 'depth' needs depth targets but the data set has none; add the folder, or drop the head"),
    ],
)
def test_source__refuses_a_data_set_without_the_target(field: str, message: str) -> None:
    class Without(Photos):
        def __getitem__(self, index: int, /) -> Sample:
            sample = super().__getitem__(index)
            known = {"labels": sample.labels, "depth": sample.depth} | {field: None}
            return Sample(sample.name, sample.image, known["labels"], known["depth"])

    dataset = Without()
    dataset.classes = None if field == "labels" else dataset.classes
    with pytest.raises(DataError) as caught:
        batches(config(), dataset)[0]
    assert str(caught.value) == message


class Counted(Photos):
    """Notes every photo that is read, and draws a number, as a data set that augments by itself does."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[int] = []

    def __getitem__(self, index: int, /) -> Sample:
        self.read.append(index)
        np.random.random()  # noqa: NPY002 - the global generator is what such data sets use
        return super().__getitem__(index)


@pytest.mark.parametrize(("room", "reads"), [(10**9, 5), (0, 20)])
def test_features__keep_views_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch, room: int, reads: int) -> None:
    monkeypatch.setattr("densevit.training.batches.KEPT_BYTES", room)
    run, dataset = config(features={"directory": "unused", "crop": (2, 2), "flip": True}), Counted()
    source = batches(run, dataset, PatchNumbers(Photos()))
    passed = [(source[number], float(torch.rand(()))) for number in range(10)]
    assert len(dataset.read) == reads
    for number, (batch, drawn) in enumerate(passed):  # the same in a run that begins here
        alone = batches(run, Counted(), PatchNumbers(Photos()))[number]
        assert float(torch.rand(())) == drawn  # such as a step's dropout
        torch.testing.assert_close((alone.inputs, alone.targets), (batch.inputs, batch.targets), **EXACT)
