"""What every row of ``DATASETS`` must do, on tiny copies of its layout."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densevit.config import to_yaml
from densevit.data import DATASETS, DataConfig, Dataset, PublicConfig, classes_of, parse_data
from densevit.data.transforms import AugmentConfig, augment
from densevit.errors import DataError
from tests.contract.fakes import FAKES, SIZE, pack

KINDS = sorted(DATASETS)
PUBLIC = [kind for kind in KINDS if issubclass(DATASETS[kind][0], PublicConfig)]


def config_of(kind: str, root: Path, split: str = "train", **facts: Any) -> DataConfig:
    places = FAKES[kind](root)
    has_split = {"split": split} if "split" in DATASETS[kind][0].model_fields else {}
    return parse_data({"kind": kind, **places, **has_split, **facts})


def open_of(config: DataConfig, **facts: bool) -> Dataset:
    return DATASETS[config.kind][1](config, **facts)


def test_fakes__cover_the_table() -> None:
    assert FAKES.keys() == DATASETS.keys()


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples__have_a_photo_and_targets_of_its_size(kind: str, split: str, tmp_path: Path) -> None:
    dataset = open_of(config_of(kind, tmp_path, split))
    assert isinstance(dataset, Dataset)
    assert len(dataset) > 0
    names = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        names.add(sample.name)
        assert (sample.image.dtype, sample.image.shape) == (np.uint8, (*SIZE, 3))
        assert sample.labels is not None or sample.depth is not None
        if sample.labels is not None:
            assert (sample.labels.dtype, sample.labels.shape) == (np.int32, SIZE)
            assert dataset.classes is not None
            dataset.classes.check(sample.labels, sample.name)
        if sample.depth is not None:
            assert (sample.depth.dtype, sample.depth.shape) == (np.float32, SIZE)
            assert 0 < sample.depth.max() < 100
        example = augment(sample, AugmentConfig(crop=(4, 4)), torch.Generator().manual_seed(0))
        assert example.image.shape == (3, 4, 4)
    assert len(names) == len(dataset)


@pytest.mark.parametrize("kind", KINDS)
def test_targets__are_left_out_when_not_wanted(kind: str, tmp_path: Path) -> None:
    dataset = open_of(config_of(kind, tmp_path), targets=frozenset())
    sample = dataset[0]
    assert (sample.labels, sample.depth, sample.values, dataset.classes) == (None, None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_config__survives_plain_data(kind: str, tmp_path: Path) -> None:
    config = config_of(kind, tmp_path)
    assert parse_data(json.loads(json.dumps(config.plain()))) == config
    assert f"kind: {kind}" in to_yaml(config)


@pytest.mark.parametrize("kind", KINDS)
def test_classes__are_known_without_the_photos(kind: str, tmp_path: Path) -> None:
    config = config_of(kind, tmp_path)
    assert classes_of(config) == open_of(config).classes


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"kitti"}))
def test_classes__can_be_merged_and_dropped(kind: str, tmp_path: Path) -> None:
    plain = config_of(kind, tmp_path)
    table = classes_of(plain)
    assert table is not None
    first, second, third, *_ = table.names
    merged = open_of(plain.model_copy(update={"merge": {"both": (first, second)}, "drop": (third,)}))
    assert merged.classes is not None
    assert merged.classes.names == ("both", *table.names[3:])
    before, after = open_of(plain)[0].labels, merged[0].labels
    assert before is not None
    assert after is not None
    final = np.array([0, 0, 255, *range(1, 253)])
    np.testing.assert_array_equal(after, np.where(before == 255, 255, final[np.minimum(before, 254)]))


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"python"}))
def test_dataset__goes_to_worker_processes(kind: str, tmp_path: Path) -> None:
    dataset = open_of(config_of(kind, tmp_path))
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[0].image, dataset[0].image)


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"python"}))
def test_archive__is_read_in_place(kind: str, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    plain = config_of(kind, tmp_path / "set")
    archive = pack(tmp_path / "set", tmp_path / "set.zip")
    zipped = open_of(plain.model_copy(update={"root": type(plain).parse({**plain.plain(), "root": archive}).root}))
    for index in range(len(zipped)):
        one, other = zipped[index], open_of(plain)[index]
        assert one.name == other.name
        np.testing.assert_array_equal(one.image, other.image)
        for part in ("labels", "depth"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".zip"] == ["set"]


@pytest.mark.parametrize("kind", PUBLIC)
@pytest.mark.parametrize("there", [False, True], ids=["no root", "an empty root"])
def test_root__of_another_layout_is_refused_with_the_one_expected(kind: str, there: bool, tmp_path: Path) -> None:
    root = tmp_path / "data"
    if there:
        root.mkdir()
    with pytest.raises(DataError) as caught:
        open_of(parse_data({"kind": kind, "root": root}))
    message = str(caught.value)
    assert message.startswith(f"{root} {'has no ' if there else 'does not exist; '}")
    assert message.count("; ") >= 2
    assert "check root" in message


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"python"}))
def test_photo__cut_short_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    config = config_of(kind, tmp_path)
    dataset = open_of(config)
    path = dataset.images[0]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert str(caught.value).startswith(f"{path} is damaged or cut short")


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"python", "kitti"}))
def test_mask__that_is_missing_is_refused(kind: str, tmp_path: Path) -> None:
    config = config_of(kind, tmp_path)
    open_of(config).masks[0].unlink()  # type: ignore[attr-defined]
    with pytest.raises(DataError):
        open_of(config)
