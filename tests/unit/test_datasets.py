"""Facts of the single data sets; what all of them must do is in the contract tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densevit.data import DATASETS, ClassTable, Dataset, Sample, parse_data
from densevit.data.cityscapes import CityscapesConfig
from densevit.data.class_names import (
    ADE20K,
    CAMVID,
    CAMVID_COLOURS,
    CITYSCAPES,
    CITYSCAPES_COLOURS,
    CITYSCAPES_IDS,
    COCO_STUFF,
    COCO_STUFF_GAPS,
    NYUV2,
    NYUV2_13,
    NYUV2_TO_13,
    PASCAL_CONTEXT,
    PASCAL_VOC,
)
from densevit.data.description import describe
from densevit.errors import ConfigError, DataError, DensevitError
from densevit.training.resolve_config import resolve_config
from tests.contract import fakes
from tests.contract.fakes import SIZE, stored


def dataset(kind: str, **facts: Any) -> Dataset:
    config = parse_data({"kind": kind, **facts})
    return DATASETS[kind][1](config)


def labels_of(kind: str, **facts: Any) -> Any:
    return dataset(kind, **facts)[0].labels


def refusal(action: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def test_class_lists__have_their_known_lengths() -> None:
    lists = (ADE20K, CITYSCAPES, PASCAL_CONTEXT, PASCAL_VOC, COCO_STUFF, NYUV2, NYUV2_13, CAMVID)
    assert [len(names) for names in lists] == [150, 19, 60, 21, 171, 40, 13, 11]
    assert [len(set(names)) for names in lists] == [len(names) for names in lists]
    assert len(CITYSCAPES_COLOURS) == len(set(CITYSCAPES_COLOURS)) == len(CITYSCAPES_IDS) == 19
    assert len(COCO_STUFF) + len(COCO_STUFF_GAPS) == 182
    assert {*NYUV2_TO_13} == {*range(13)}
    assert {final for _, _, final in CAMVID_COLOURS} == {*CAMVID}
    assert len({colour for _, colour, _ in CAMVID_COLOURS}) == 31


def test_ade20k__counts_from_1(tmp_path: Path) -> None:
    raw = stored(0, 151).astype(int)
    found = labels_of("ade20k", **fakes.ade20k(tmp_path))
    np.testing.assert_array_equal(found, np.where((raw == 0) | (raw == 255), 255, raw - 1))


def test_cityscapes__brings_label_ids_to_train_ids(tmp_path: Path) -> None:
    np.testing.assert_array_equal(labels_of("cityscapes", **fakes.cityscapes(tmp_path)), fakes.cityscapes_expected())


def test_cityscapes__takes_train_ids_where_they_are(tmp_path: Path) -> None:
    found = labels_of("cityscapes", **fakes.cityscapes(tmp_path, train_ids=True), split="val")
    np.testing.assert_array_equal(found, stored(0, 19))


def test_cityscapes__has_coarse_masks_for_the_extra_photos(tmp_path: Path) -> None:
    facts = {**fakes.cityscapes(tmp_path), "split": "train_extra"}
    np.testing.assert_array_equal(labels_of("cityscapes", annotation="coarse", **facts), fakes.cityscapes_expected())
    assert "has no gtFine/train_extra" in refusal(lambda: labels_of("cityscapes", **facts))


def test_cityscapes__colours_become_those_of_the_task(tmp_path: Path) -> None:
    fakes.cityscapes(tmp_path)
    run = resolve_config(
        None, ["iterations=1"], preset_name="segmenter-s-mask", data=describe(tmp_path, kind="cityscapes").config
    )
    (task,) = run.tasks.values()
    assert getattr(task, "classes", None) == CITYSCAPES
    assert getattr(task, "palette", None) == CITYSCAPES_COLOURS
    assert [type(place) for place in (run.sources[0].train, run.sources[0].val)] == [CityscapesConfig] * 2
    assert run.sources[0].val is not None
    assert getattr(run.sources[0].val, "split", None) == "val"


def test_camvid__knows_both_kinds_of_masks(tmp_path: Path) -> None:
    raw = stored(0, 12)
    found = labels_of("camvid", **fakes.camvid(tmp_path / "numbers"))
    np.testing.assert_array_equal(found, np.where(raw >= 11, 255, raw))
    coloured = labels_of("camvid", **fakes.camvid_colours(tmp_path / "colours"), split="test")
    np.testing.assert_array_equal(coloured, fakes.camvid_expected())


def test_camvid__refuses_a_colour_that_it_does_not_have(tmp_path: Path) -> None:
    facts = fakes.camvid_colours(tmp_path)
    mask = tmp_path / "train_labels" / "0001TP_006690_L.png"
    Image.fromarray(np.full((*SIZE, 3), 9, np.uint8)).save(mask)
    assert refusal(lambda: labels_of("camvid", **facts)).startswith(
        f"mask {mask} has 1 colours that no class has, (9, 9"
    )


@pytest.mark.parametrize("train_ids", [False, True])
def test_coco_stuff__has_171_classes_from_either_kind_of_mask(train_ids: bool, tmp_path: Path) -> None:
    found = labels_of("coco_stuff", **fakes.coco_stuff(tmp_path, train_ids=train_ids))
    np.testing.assert_array_equal(found, stored(0, 171) if train_ids else fakes.coco_stuff_expected())


def test_coco_stuff__refuses_a_number_that_no_class_has(tmp_path: Path) -> None:
    facts = fakes.coco_stuff(tmp_path)
    mask = tmp_path / "annotations" / "train2017" / "000000000009.png"
    Image.fromarray(np.full(SIZE, 11, np.uint8)).save(mask)
    assert refusal(lambda: labels_of("coco_stuff", **facts)) == (
        f"mask {mask} holds 11, which no class of this data set has; its masks have 171 numbers from 0 to 181 and 255; "
        "check that it is of this data set"
    )


def test_pascal_voc__takes_the_numbers_of_palette_masks_and_the_masks_of_sbd(tmp_path: Path) -> None:
    facts = fakes.pascal_voc(tmp_path)
    np.testing.assert_array_equal(labels_of("pascal_voc", **facts), stored(0, 21))
    augmented = dataset("pascal_voc", **facts, split="trainaug")
    assert [augmented[i].name for i in range(len(augmented))] == ["2007_000032", "2008_000002"]
    np.testing.assert_array_equal(augmented[1].labels, stored(0, 21, 1))


def test_pascal_voc__names_what_a_list_has_and_the_folder_lacks(tmp_path: Path) -> None:
    facts = fakes.pascal_voc(tmp_path)
    lists = tmp_path / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    lists.write_text("2007_000032\n2099_000001\n")
    missing = tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2099_000001.jpg"
    assert refusal(lambda: labels_of("pascal_voc", **facts)).startswith(
        f"{lists} lists '2099_000001' but {missing} does not exist; pascal_voc needs JPEGImages/*.jpg,"
    )


def test_pascal_context__has_60_classes_or_59(tmp_path: Path) -> None:
    facts, raw = fakes.pascal_context(tmp_path), stored(0, 60).astype(int)
    np.testing.assert_array_equal(labels_of("pascal_context", **facts), raw)
    found = dataset("pascal_context", **facts, background=False)
    assert found.classes is not None
    assert (len(found.classes.names), found.classes.names[0]) == (59, "aeroplane")
    np.testing.assert_array_equal(found[0].labels, np.where((raw == 0) | (raw == 255), 255, raw - 1))


def test_kitti__is_sparse_metres_and_leaves_out_photos_without_depth(tmp_path: Path) -> None:
    found = dataset("kitti", **fakes.kitti(tmp_path))
    assert len(found) == 1
    sample = found[0]
    assert sample.name == "2011_09_26_drive_0002_sync_image_02_0000000069"
    expected = np.zeros(SIZE, np.float32)
    expected[2, 3] = 10.5
    np.testing.assert_array_equal(sample.depth, expected)


def test_kitti__reads_lists_of_drive_frame_and_side(tmp_path: Path) -> None:
    facts = fakes.kitti(tmp_path)
    lists = tmp_path / "mine.txt"
    lists.write_text("2011_09_26/2011_09_26_drive_0002_sync 69 l\n")
    found = dataset("kitti", **facts, split_file=lists)
    assert [found[i].name for i in range(len(found))] == ["2011_09_26_drive_0002_sync_image_02_0000000069"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("word\n", "has the line 'word'; photo and depth map are accepted"),
        ("a/b/image_02/data/1.png c.png\n", "lists 'a/b/image_02/data/1.png', which is not below"),
        ("\n\n", "has no lines"),
    ],
)
def test_kitti__refuses_a_list_of_something_else(text: str, problem: str, tmp_path: Path) -> None:
    facts = fakes.kitti(tmp_path)
    lists = tmp_path / "mine.txt"
    lists.write_text(text)
    message = refusal(lambda: dataset("kitti", **facts, split_file=lists))
    assert message.startswith(f"{lists} ")
    assert problem in message


def test_nyuv2__reads_the_official_files(tmp_path: Path) -> None:
    facts = fakes.nyuv2_official(tmp_path)
    train, val = (dataset("nyuv2", **facts, split=split) for split in ("train", "val"))
    assert [train[i].name for i in range(len(train))] == ["0001", "0003"]
    sample = val[0]
    import h5py

    with h5py.File(tmp_path / "nyu_depth_v2_labeled.mat") as file:
        raw = file["labels"][1].T.astype(int)
        np.testing.assert_array_equal(sample.image, file["images"][1].transpose(2, 1, 0))
        np.testing.assert_array_equal(sample.depth, file["depths"][1].T)
    np.testing.assert_array_equal(sample.labels, np.where(raw == 0, 255, (raw - 1) % 40))
    assert val.classes is not None
    assert val.classes.lookup(NYUV2_13) is not None


def test_nyuv2__official_files_that_are_damaged_are_refused(tmp_path: Path) -> None:
    facts = fakes.nyuv2_official(tmp_path)
    for name in ("splits.mat", "nyu_depth_v2_labeled.mat"):
        path = tmp_path / name
        path.write_bytes(b"MATLAB 5.0 MAT-file nonsense" * 9)
        assert refusal(lambda: dataset("nyuv2", **facts)[0]).startswith(f"{path} is damaged or cut short")
        fakes.nyuv2_official(tmp_path)


def test_nyuv2__reads_lists_of_photo_and_depth(tmp_path: Path) -> None:
    facts = fakes.nyuv2_listed(tmp_path)
    for split in ("train", "val"):
        sample = dataset("nyuv2", **facts, split=split)[0]
        assert sample.name == "kitchen_rgb_00045"
        assert sample.depth is not None
        assert np.unique(sample.depth).tolist() == [2.5]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"kind": "cityscape", "root": "x"}, "data set kind 'cityscape' is unknown; did you mean 'cityscapes'?"),
        ({"kind": "cityscapes"}, "root: Field required"),
        (
            {"kind": "cityscapes", "root": "x", "split": "test"},
            "split: Input should be 'train', 'val' or 'train_extra'",
        ),
        ({"kind": "cityscapes", "roots": "x"}, "roots: unknown key; did you mean 'root'?"),
        ("cityscapes", "a data set is a mapping of keys to values, not 'cityscapes'"),
    ],
)
def test_config__that_is_wrong_is_explained(data: Any, problem: str) -> None:
    assert problem in refusal(lambda: parse_data(data), ValueError)


def test_command__refuses_a_kind_without_a_root(tmp_path: Path) -> None:
    assert refusal(lambda: describe(tmp_path, kind="citiscapes"), ConfigError) == (
        "the data set kind 'citiscapes' has no root with splits; did you mean 'cityscapes'?"
    )
    assert refusal(lambda: describe(None, kind="cityscapes"), ConfigError) == (
        "no data was named; give --data PATH, or --images and one of --masks, --depth, --values"
    )


# Data sets in Python


class One:
    """A data set of one sample."""

    def __init__(self, sample: Any, classes: ClassTable | None = None) -> None:
        self.sample, self.classes = sample, classes

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Any:
        return self.sample


IMAGE = np.zeros((*SIZE, 3), np.uint8)
LABELS = np.zeros(SIZE, np.int64)


def make_one(**parts: Any) -> One:
    classes = ClassTable(("a", "b"))
    return One(Sample(**{"name": "s", "image": IMAGE, **parts}) if "whole" not in parts else parts["whole"], classes)


def make_nothing() -> int:
    return 5


def ours(**arguments: Any) -> dict[str, Any]:
    return {"factory": f"{__name__}:make_one", "arguments": arguments}


def test_python__finds_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    (tmp_path / "my_own_data.py").write_text(
        "from tests.contract.fakes import make_samples\n\ndef make(n):\n    return make_samples(n)\n"
    )
    found = dataset("python", factory="my_own_data:make", arguments={"n": 3})
    assert [found[i].name for i in range(len(found))] == ["s0", "s1", "s2"]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"factory": "no_such_module_of_ours:f"}, "cannot be imported (No module named 'no_such_module_of_ours')"),
        ({"factory": "json:nothing"}, "has no attribute 'nothing'; name a function of the module"),
        ({"factory": "tests.contract.fakes:make_samples"}, "was called with {}: make_samples() missing 1 required"),
        (
            {"factory": f"{__name__}:make_nothing"},
            "gave a int; an object with len(), indexing and the attribute classes",
        ),
        ({"factory": "os.path"}, "should be 'module:function'"),
        ({"factory": "os;import:x"}, "should be 'module:function'"),
    ],
)
def test_python__refuses_a_factory_that_gives_no_data_set(facts: dict[str, Any], problem: str) -> None:
    with pytest.raises((DensevitError, ValueError)) as caught:
        dataset("python", **facts)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ({"whole": 3}, "is a int; densevit.data.Sample is accepted; return one"),
        ({"image": IMAGE[0]}, "image is uint8 (8, 3); uint8, uint16 or float32"),
        ({"image": IMAGE.astype(np.float64)}, "image is float64 (6, 8, 3);"),
        ({"labels": LABELS.astype(float)}, "labels is float64 (6, 8); whole numbers with 2 axes"),
        ({"labels": LABELS.T}, "labels is 8 x 6 but the image 6 x 8"),
        ({"labels": LABELS + 2}, "holds class 2 but the data set has 2 classes"),
        ({"depth": LABELS}, "depth is int64 (6, 8); floats with 2 axes"),
        ({"values": np.zeros(SIZE)}, "values is float64 (6, 8); floats with 3 axes"),
    ],
)
def test_python__names_what_is_wrong_with_a_sample(parts: dict[str, Any], problem: str) -> None:
    message = refusal(lambda: dataset("python", **ours(**parts))[0])
    assert f"sample 0 of {__name__}:make_one" in message
    assert problem in message
