"""Every layout and export that is recognised: examined without an error, and copied with the same labels."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.data import FolderConfig, FolderDataset
from densevit.data.description import describe
from densevit.data.pairs import find_pairs
from densevit.doctor.checks_classes import histograms
from densevit.doctor.examine import examine, fast_check
from densevit.doctor.fix import write_fixed
from tests.layouts import LAYOUTS, coco, photo, save, write

LABELLED = [name for name, made in LAYOUTS.items() if made.classes is not None]


def datasets(config: FolderConfig) -> dict[str, FolderDataset]:
    """Masks by split."""
    names = find_pairs(config).splits() or [None]
    config = config.model_copy(update={"merge": {}, "drop": ()})
    wanted = frozenset({"labels"})
    return {
        str(name or ""): FolderDataset(config.model_copy(update={"split": name}), targets=wanted)  # type: ignore[arg-type]
        for name in names
    }


def labels(config: FolderConfig) -> dict[tuple[str, bytes], NDArray[np.int32]]:
    found = {}
    for split, dataset in datasets(config).items():
        for index in range(len(dataset)):
            sample = dataset[index]
            assert sample.labels is not None
            found[split, sample.image.tobytes()] = sample.labels
    return found


def described(name: str, root: Path) -> FolderConfig:
    LAYOUTS[name].make(root)
    config = describe(root).config
    assert isinstance(config, FolderConfig)
    return config


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout__is_examined_without_an_error(name: str, tmp_path: Path) -> None:
    diagnosis = examine(described(name, tmp_path / "theirs"))

    assert [f.line() for f in diagnosis.findings if f.severity == "error"] == []


@pytest.mark.parametrize("name", LABELLED)
def test_layout__is_counted_as_training_reads_it(name: str, tmp_path: Path) -> None:
    config = described(name, tmp_path / "theirs")
    by_split = histograms(examine(config).context)

    for split, dataset in datasets(config).items():
        masks = np.concatenate([dataset.labels(index).ravel() for index in range(len(dataset))])
        pixels = by_split[split].pixels
        assert pixels.tolist() == [int((masks == number).sum()) for number in range(len(pixels))]


@pytest.mark.parametrize("name", LABELLED)
def test_copy__of_a_layout_gives_the_same_labels(name: str, tmp_path: Path) -> None:
    config = described(name, tmp_path / "theirs")

    write_fixed(examine(config), tmp_path / "copy")

    theirs, copied = labels(config), labels(FolderConfig(root=tmp_path / "copy"))
    assert copied.keys() == theirs.keys()
    for key, mask in theirs.items():
        np.testing.assert_array_equal(copied[key], mask)


def test_split__of_which_no_photo_is_in_the_annotations_is_no_fault_of_their_classes(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "val")):
        save(tmp_path / split / f"{number}.png", photo(number))
    write(tmp_path / "all.json", coco({0: "0.png", 1: "1.png"}))
    config = FolderConfig(root=tmp_path, images=Path("{split}/{name}.png"), masks=Path("all.json"))
    places = {split: config.model_copy(update={"split": split}) for split in ("train", "val")}

    codes = {finding.code for finding in fast_check(places)}  # type: ignore[arg-type]

    assert "classes-missing" not in codes
