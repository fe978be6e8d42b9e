import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import ClassTable, Dataset, FolderConfig, FolderDataset
from densevit.data.folder import read_classes
from densevit.errors import ConfigError, DataError
from densevit.io import write_array, write_depth_mm, write_json, write_labels, write_png

CLASSES = ("road", "sky", "tree")
SIZE = (4, 6)


def photo(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def mask(seed: int) -> NDArray[np.uint8]:
    """Classes 0 to 2 with an ignored corner."""
    labels = np.random.default_rng(seed).integers(0, 3, SIZE, dtype=np.uint8)
    labels[0, 0] = 255
    return labels


def depth(seed: int) -> NDArray[np.float32]:
    """Whole millimetres up to 9.999 m with an unmeasured corner."""
    values = np.random.default_rng(seed).integers(1, 10_000, SIZE).astype(np.float32) / 1000
    values[0, 0] = 0
    return values


def values(seed: int) -> NDArray[np.float32]:
    found = np.random.default_rng(seed).normal(size=(*SIZE, 2)).astype(np.float32)
    found[0, 0] = np.nan
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos 0 to 2 in the split train, 3 in val, each with mask, depth and values; and classes.json."""
    for index, split in enumerate(("train", "train", "train", "val")):
        write_png(tmp_path / "images" / split / f"p{index}.png", photo(index))
        write_labels(tmp_path / "masks" / split / f"p{index}.png", mask(index), np.zeros((3, 3), np.uint8))
        write_depth_mm(tmp_path / "depth" / split / f"p{index}.png", depth(index))
        write_array(tmp_path / "values" / split / f"p{index}.npy", values(index))
    write_json(tmp_path / "classes.json", {"classes": CLASSES, "ignore_index": 255})
    return tmp_path


def dataset(**facts: Any) -> FolderDataset:
    return FolderDataset(FolderConfig.parse(facts))


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def test_layout__is_read_split_by_split(root: Path) -> None:
    train, val = (dataset(root=root, split=split) for split in ("train", "val"))
    assert [train[i].name for i in range(len(train))] == ["p0", "p1", "p2"]
    assert [val[i].name for i in range(len(val))] == ["p3"]


def test_sample__holds_photo_and_targets(root: Path) -> None:
    sample = dataset(root=root, split="train")[1]

    assert sample.labels is not None
    assert sample.depth is not None
    assert sample.values is not None
    np.testing.assert_array_equal(sample.image, photo(1))
    np.testing.assert_array_equal(sample.labels, mask(1))
    np.testing.assert_array_equal(sample.depth, depth(1))
    np.testing.assert_array_equal(sample.values, values(1))
    assert [a.dtype for a in (sample.image, sample.labels, sample.depth, sample.values)] == [
        np.uint8,
        np.int32,
        np.float32,
        np.float32,
    ]


def test_folder_dataset__is_a_dataset(root: Path) -> None:
    assert isinstance(dataset(root=root, split="val"), Dataset)


def test_targets__that_are_not_asked_for_are_not_read(root: Path) -> None:
    for kind in ("masks", "depth", "values"):
        (root / kind / "val" / ("p3.npy" if kind == "values" else "p3.png")).write_bytes(b"broken")

    plain = FolderDataset(FolderConfig(root=root, split="val"), targets=frozenset())

    assert (plain[0].labels, plain[0].depth, plain[0].values, plain.classes) == (None, None, None, None)


def test_targets__that_the_root_lacks_are_none(tmp_path: Path) -> None:
    write_png(tmp_path / "images" / "a.png", photo(0))
    sample = dataset(root=tmp_path)[0]
    assert (sample.labels, sample.depth, sample.values) == (None, None, None)


def test_layout__without_splits_has_the_files_in_the_folders_themselves(root: Path) -> None:
    (root / "flat").mkdir()
    for kind in ("images", "masks"):
        (root / kind / "val").rename(root / "flat" / kind)

    sample = dataset(root=root / "flat")[0]

    assert sample.labels is not None
    np.testing.assert_array_equal(sample.labels, mask(3))


def test_two_folders__are_a_data_set_without_names(root: Path) -> None:
    pair = dataset(images=root / "images" / "train", masks=root / "masks" / "train")

    assert len(pair) == 3
    assert pair.classes is None
    assert pair[2].labels is not None
    np.testing.assert_array_equal(pair[2].labels, mask(2))


def test_two_folders__take_names_or_their_number_from_the_config(root: Path) -> None:
    folders = {"images": root / "images" / "train", "masks": root / "masks" / "train"}
    named = dataset(**folders, classes=("a", "b", "c"), ignore_index=7).classes
    counted = dataset(**folders, classes=2).classes
    assert (named, counted) == (ClassTable(("a", "b", "c"), 7), ClassTable(("class 0", "class 1")))


def test_reduce_zero_label__ignores_0_and_counts_the_others_from_0(root: Path) -> None:
    folders = {"images": root / "images" / "train", "masks": root / "masks" / "train"}

    labels = dataset(**folders, classes=("b", "c"), reduce_zero_label=True)[2].labels

    assert labels is not None
    expected = mask(2).astype(np.int32)
    assert {0, 1, 2} <= set(expected.flat)
    np.testing.assert_array_equal(labels, np.where((expected == 0) | (expected == 255), 255, expected - 1))


def test_depth_unit__scales_integer_maps(root: Path) -> None:
    sample = dataset(root=root, split="val", depth_unit_m=0.01)[0]
    assert sample.depth is not None
    np.testing.assert_allclose(sample.depth, 10 * depth(3), rtol=1e-6)


def test_views__come_from_classes_json(root: Path) -> None:
    write_json(root / "classes.json", {"classes": CLASSES, "classes2": ["made", "grown"], "to_2": [0, 255, 1]})
    table = dataset(root=root, split="val").classes
    assert table is not None
    assert table.views == {"classes2": (("made", "grown"), (0, 255, 1))}


def test_lookup__of_the_own_names_keeps_the_ids() -> None:
    table = ClassTable(CLASSES).lookup(CLASSES)
    assert table is not None
    assert table[[0, 1, 2, 3, 255]].tolist() == [0, 1, 2, 255, 255]


def test_lookup__of_a_view_maps_ids_and_drops_classes() -> None:
    views = {"classes2": (("made", "grown"), (0, 9, 1))}
    table = ClassTable(CLASSES, ignore_index=9, views=views).lookup(("made", "grown"))
    assert table is not None
    assert table[[0, 1, 2, 9]].tolist() == [0, 255, 1, 255]


def test_lookup__maps_the_data_sets_ignore_value_to_the_one_asked_for() -> None:
    table = ClassTable(CLASSES, ignore_index=1000).lookup(CLASSES, ignore_index=-1)
    assert table is not None
    assert table[[0, 2, 3, 255, 1000]].tolist() == [0, 2, -1, -1, -1]


def test_lookup__knows_no_other_names_or_order() -> None:
    table = ClassTable(CLASSES)
    assert table.lookup(("sky", "road", "tree")) is None
    assert table.lookup(("road", "sky")) is None


def test_config__refuses_neither_root_nor_images() -> None:
    with pytest.raises(ConfigError, match=r"give root \(a folder with images/ and masks/ or depth/\), or images and"):
        FolderConfig.parse({"masks": "masks"})


def test_split__that_does_not_exist_is_refused_with_those_that_do(root: Path) -> None:
    assert refusal(lambda: dataset(root=root, split="test")) == f"{root} has no split 'test'; splits found: train, val"


def test_split__must_be_named_where_there_are_some(root: Path) -> None:
    assert refusal(lambda: dataset(root=root)) == (
        f"{root} has splits and none was named; splits found: train, val; name one"
    )


def test_root__that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: dataset(root=tmp_path / "none", split="val")) == (
        f"there is no folder {tmp_path / 'none' / 'images' / 'val'}; a data set needs images/<split> and masks/<split> "
        "or depth/<split> in its root"
    )


def test_images__without_a_photo_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert refusal(lambda: dataset(root=tmp_path)).startswith(f"{tmp_path / 'images'} is a folder without a photo")


@pytest.mark.parametrize(("key", "what"), [("masks", "mask"), ("depth", "depth map"), ("values", "value map")])
def test_target_folder__that_is_named_must_exist(root: Path, key: str, what: str) -> None:
    folder = root / "none"
    assert refusal(lambda: dataset(images=root / "images" / "val", **{key: folder})) == (
        f"{what} folder {folder} does not exist; give the folder that holds one {what} per photo"
    )


def test_photo__without_its_mask_is_refused(root: Path) -> None:
    (root / "masks" / "train" / "p1.png").unlink()
    assert refusal(lambda: dataset(root=root, split="train")) == (
        f"1 of 3 photos have no mask in {root / 'masks' / 'train'}, for example p1.png; each photo needs a mask of the "
        "same name with one of .png, .tif, .tiff, .npy, .pfm, .bmp, .gif"
    )


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_name__that_occurs_twice_is_refused(root: Path, kind: str) -> None:
    twin = root / kind / "val" / "p3.bmp"
    Image.fromarray(photo(3) if kind == "images" else mask(3).astype(np.uint8)).save(twin)

    assert refusal(lambda: dataset(root=root, split="val")) == (
        f"{twin} and {twin.with_suffix('.png')} have the same name up to the suffix, by which photos and targets are "
        "matched; each name may occur once; rename or remove one"
    )


@pytest.mark.parametrize("kind", ["masks", "depth", "values"])
def test_target__of_another_size_than_its_photo_is_refused(root: Path, kind: str) -> None:
    target = root / kind / "val" / ("p3.npy" if kind == "values" else "p3.png")
    write = {
        "masks": lambda: write_png(target, mask(0).T),
        "depth": lambda: write_depth_mm(target, depth(0).T),
        "values": lambda: write_array(target, np.swapaxes(values(0), 0, 1)),
    }
    write[kind]()
    assert refusal(lambda: dataset(root=root, split="val")[0]) == (
        f"{root / 'images' / 'val' / 'p3.png'} is 4 x 6 but {target} is 6 x 4; both must have the same height and "
        "width (was one rotated by its EXIF tag, or resized?)"
    )


def test_mask__with_a_class_out_of_range_is_refused(root: Path) -> None:
    labels = mask(3)
    labels[1, 1:3] = (3, 200)
    target = root / "masks" / "val" / "p3.png"
    write_png(target, labels)
    assert refusal(lambda: dataset(root=root, split="val")[0]) == (
        f"mask {target} holds class 3, 200 but the data set has 3 classes, 0..2, and 255 for ignored pixels; "
        "fix the mask, or list the missing class in classes.json"
    )


def test_check__takes_classes_and_the_ignore_value_alone() -> None:
    table = ClassTable(CLASSES, ignore_index=-1)
    table.check(np.array([[0, 2, -1]], np.int32), "m")
    assert refusal(lambda: table.check(np.array([[255]], np.int32), "m")).startswith("mask m holds class 255 but")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "classes is missing"),
        ("[1, 2]", "it holds a list, not a mapping"),
        ("null", "it holds a NoneType, not a mapping"),
        ('{"classes": "road"}', "classes is a str, not a list of names"),
        ('{"classes": {"0": "road"}}', "classes is a dict, not a list of names"),
        ('{"classes": []}', "classes is empty"),
        ('{"classes": ["road", 1]}', "classes has 1, which is no name"),
        ('{"classes": ["road"], "ignore_index": "none"}', "invalid literal"),
        ('{"classes": ["road"], "ignore_index": null}', "NoneType instead of a whole number"),
        ('{"classes": ["road"], "ignore_index": true}', "bool instead of a whole number"),
        ('{"classes": ["road"], "ignore_index": [255]}', "list instead of a whole number"),
        ('{"classes": ["road"], "ignore_index": 0.5}', "0.5 instead of a whole number"),
        ('{"classes": ["road"], "palette": [[0, 0]]}', "palette is not a list of [red, green, blue]"),
        ('{"classes": ["road"], "palette": {"road": [0, 0, 0]}}', "palette is not a list of"),
        ('{"classes": ["road"], "palette": null}', "palette is not a list of"),
        ('{"classes": ["road"], "classes2": ["a", "b"]}', "to_2 is missing"),
        ('{"classes": ["road"], "classes2": ["a"], "to_2": 0}', "to_2 is a int, not a list of whole numbers"),
    ],
)
def test_classes_json__that_is_no_class_list_is_refused(root: Path, text: str, reason: str) -> None:
    (root / "classes.json").write_text(text)
    message = refusal(lambda: read_classes(FolderConfig(root=root)))
    assert message.startswith(f"{root / 'classes.json'} is not a class list ({reason}")
    assert message.endswith('; it must look like {"classes": ["road", "sky"], "ignore_index": 255}')


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "\\",
        '{"classes": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"classes": ["road", "\\ud800"]}',
        '{"classes": ["road"], "ignore_index": Infinity}',
        '{"classes": ["road"], "ignore_index": 1e400}',
        '{"classes": ["road"], "ignore_index": NaN}',
        '{"classes": ["road"], "classes2": ["a"], "to_2": [-Infinity]}',
    ],
)
def test_classes_json__that_is_no_json_is_refused(root: Path, text: str) -> None:
    (root / "classes.json").write_text(text)
    assert " is not valid JSON (" in refusal(lambda: read_classes(FolderConfig(root=root)))


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (json.dumps({"classes": ["a"], "ignore_index": 2_000_000_000}), "class_id"),
        (json.dumps({"classes": ["a"], "ignore_index": -(10**400)}), "class_id"),
        (json.dumps({"classes": [str(i) for i in range(70_000)]}), "classes"),
        (json.dumps({"classes": ["a" * 11_000_000]}), "config_bytes"),
    ],
)
def test_classes_json__beyond_the_budget_is_refused(root: Path, text: str, limit: str) -> None:
    (root / "classes.json").write_text(text)
    assert f"DENSEVIT_LIMITS={limit}=NUMBER" in refusal(lambda: read_classes(FolderConfig(root=root)))


@pytest.mark.parametrize("classes", [0, -3, (), 100_000_000])
def test_classes__of_the_config_are_bounded(root: Path, classes: Any) -> None:
    with pytest.raises(ConfigError, match="classes"):
        FolderConfig.parse({"root": root, "classes": classes})


@pytest.mark.parametrize("photo", ["caf\u00e9", "cafe\u0301"])
def test_names__are_matched_in_either_unicode_form(root: Path, photo: str) -> None:
    other = {"caf\u00e9": "cafe\u0301", "cafe\u0301": "caf\u00e9"}[photo]
    for kind, name in (("images", photo), ("masks", other)):
        (path,) = (root / kind / "val").glob("[!.]*")
        path.rename(path.with_stem(name))
    (root / "depth" / "val" / "p3.png").rename(root / "depth" / "val" / f"{other}.png")
    (root / "values" / "val" / "p3.npy").rename(root / "values" / "val" / f"{other}.npy")
    data = dataset(root=root, split="val")
    assert [path.stem for path in (*data.images, *(data.masks or ()))] == [photo, other]


@pytest.mark.parametrize("mapping", [[0, 1], [0, 1, 2], [0, 1, -1]], ids=["short", "beyond", "negative"])
def test_classes_json__with_a_view_that_does_not_fit_is_refused(root: Path, mapping: list[int]) -> None:
    path = root / "classes.json"
    path.write_text(json.dumps({"classes": CLASSES, "classes2": ["made", "grown"], "to_2": mapping}))
    assert refusal(lambda: read_classes(FolderConfig(root=root))) == (
        f"{path}: to_2 must give one index of classes2 for each class"
    )


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.zeros((4, 6), np.float32), "an array (4, 6) of float32"),
        (np.zeros((4, 6, 2), np.int64), "an array (4, 6, 2) of int64"),
        (np.zeros((0, 6, 2)), "an array (0, 6, 2) of float64"),
    ],
)
def test_values__that_are_no_map_of_floats_are_refused(root: Path, array: NDArray[Any], what: str) -> None:
    path = root / "values" / "val" / "p3.npy"
    np.save(path, array)
    assert refusal(lambda: dataset(root=root, split="val")[0]) == (
        f"{path} holds {what}; one (H, W, K) array of floats is accepted"
    )


@pytest.mark.parametrize("keep", [0, 20, 150])
def test_values__cut_short_are_refused(root: Path, keep: int) -> None:
    path = root / "values" / "val" / "p3.npy"
    path.write_bytes(path.read_bytes()[:keep])
    pattern = f"{re.escape(str(path))} (is empty|is damaged|claims an array).*; copy"
    assert re.match(pattern, refusal(lambda: dataset(root=root, split="val")[0]))


def test_values__of_double_precision_become_float32(root: Path) -> None:
    write_array(root / "values" / "val" / "p3.npy", values(5).astype(np.float64))
    sample = dataset(root=root, split="val")[0]
    assert sample.values is not None
    assert sample.values.dtype == np.float32
    np.testing.assert_array_equal(sample.values, values(5))
