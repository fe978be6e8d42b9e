"""Downloads and exports that are like no other: which numbers are objects, and what stands beside the data."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densevit.data import DATASETS, FolderConfig, FolderDataset
from densevit.data.description import describe
from densevit.data.discover import discover
from densevit.data.nearest import nearest_names
from densevit.errors import DataError
from tests.contract import fakes
from tests.layouts import LAYOUTS, coco, depth_mm, labelme, pack, photo, save, truth, write


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (["1.00", "2.00"], ["1.01", "2.03"], {"1.00": "1.01"}),
        (["1.00", "1.01"], ["1.008"], {"1.01": "1.008"}),
        (["1.00", "1.02"], ["1.01", "1.03"], {"1.00": "1.01", "1.02": "1.03"}),
        (["a", "nan", "1e999", "-1"], ["a", "nan", "1"], {}),
        ([], ["1"], {}),
    ],
)
def test_nearest_names__gives_each_name_one_partner(ours: list[str], theirs: list[str], expected: Any) -> None:
    assert nearest_names(ours, theirs, 0.0201) == expected


@pytest.mark.parametrize("digits", [3, 6, 9])
def test_discover__time_stamps_may_have_any_unit(digits: int, tmp_path: Path) -> None:
    second = 10**digits
    for i in range(4):
        moment = (1305031102 + i) * second
        save(tmp_path / f"rgb/{moment}.png", photo(i))
        save(tmp_path / f"depth/{moment + second // 100}.png", depth_mm(i))

    config = discover(tmp_path).config

    assert isinstance(config, FolderConfig)
    assert config.nearest == pytest.approx(0.02 * second)
    assert len(FolderDataset(config.model_copy(update={"splits": None}))) == 4


def objects(i: int) -> NDArray[np.uint16]:
    """Objects numbered from the top down, as by scipy.ndimage.label."""
    mask = np.zeros((24, 64), np.uint16)
    for k in range(8):
        top, left = 12 * (k // 4) + 1, 15 * (k % 4) + i
        mask[top : top + 9, left : left + 9] = k + 1
    return mask


def layers(i: int) -> NDArray[np.uint16]:
    """Classes one above the other, as in a scan of a retina."""
    return np.roll(np.repeat(np.arange(8, dtype=np.uint16), 3), i % 2)[:, None].repeat(64, 1)


@pytest.mark.parametrize(("mask", "refused"), [(objects, True), (layers, False)])
def test_discover__tells_numbered_objects_from_layers(mask: Any, refused: bool, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i).repeat(2, 1))
        save(tmp_path / f"masks/{i}.png", mask(i))

    if refused:
        with pytest.raises(DataError, match="the masks number their objects from the top down"):
            discover(tmp_path)
    else:
        assert len(discover(tmp_path).config.classes) == 8


def test_discover__numbers_in_even_steps_are_classes(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.png", photo(i))
        save(tmp_path / f"masks/{i}.png", truth(i).astype(np.uint16) * 1000)

    assert discover(tmp_path).config.class_values == (0, 1000, 2000)


@pytest.mark.parametrize("kind", ["kitti", "cityscapes"])
def test_discover__public_layouts_are_read_as_such(kind: str, tmp_path: Path) -> None:
    getattr(fakes, kind)(tmp_path)

    found = discover(tmp_path)

    assert found.config.kind == kind
    assert f"in the layout of {kind}" in found.remarks[0]


def test_discover__a_public_layout_may_be_read_by_its_names(tmp_path: Path) -> None:
    fakes.cityscapes(tmp_path)
    shutil.rmtree(tmp_path / "gtCoarse")

    assert discover(tmp_path, kind="folder").config.kind == "folder"


def test_kitti__without_a_list_has_the_splits_of_its_folders(tmp_path: Path) -> None:
    fakes.kitti(tmp_path)
    for path in tmp_path.glob("*.txt"):
        path.unlink()

    for split in ("train", "val"):
        dataset = DATASETS["kitti"][1](discover(tmp_path, split=split).config)
        assert len(dataset) == 1
        assert dataset[0].depth is not None
        assert dataset[0].depth.max() == 10.5


def test_discover__a_photo_in_two_splits_of_coco_is_refused(tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"images/{i}.jpg", photo(i))
    write(tmp_path / "train.json", coco({i: f"{i}.jpg" for i in range(3)}))
    write(tmp_path / "val.json", coco({i: f"{i}.jpg" for i in range(2, 4)}))

    with pytest.raises(DataError, match=r"lists 2\.jpg, and so do the annotations of"):
        discover(tmp_path)


def test_discover__enters_the_one_archive_of_a_folder(tmp_path: Path) -> None:
    LAYOUTS["suffixes"].make(tmp_path / "x")
    expected = discover(pack(tmp_path / "x")).config
    shutil.rmtree(tmp_path / "x")
    write(tmp_path / "README.md", "downloaded")

    assert discover(tmp_path).config == expected


def test_discover__photos_inside_of_labelme_files_are_said(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.json", labelme(i, f"{i}.jpg"))

    with pytest.raises(DataError, match=r"3 files of labelme.*and no photo; photos inside of them \(imageData\)"):
        discover(tmp_path)


@pytest.mark.parametrize("ending", [".npz", ".mat", ".h5"])
def test_discover__arrays_that_are_not_read_are_said(ending: str, tmp_path: Path) -> None:
    for i in range(3):
        save(tmp_path / f"rgb/{i}.png", photo(i))
        write(tmp_path / f"depth/{i}{ending}", "")

    with pytest.raises(DataError, match=f"{ending} is not read, so save the arrays as .npy"):
        discover(tmp_path)


@pytest.mark.parametrize("name", ["depth_colormap_{}", "depth_map/{}"])
def test_discover__depth_for_the_eye_is_passed_over(name: str, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"color_{i:03}.png", photo(i))
        save(tmp_path / f"depth_{i:03}.png", depth_mm(i))
        save(tmp_path / f"{name.format(f'{i:03}')}.png", photo(i + 9)[..., 0])

    assert str(discover(tmp_path).config.depth) == "depth_{name}.png"


def test_discover__lists_for_segmentation_go_before_others(tmp_path: Path) -> None:
    LAYOUTS["pascal_voc_palette"].make(tmp_path)
    for split, numbers in (("train", range(5)), ("val", range(5, 6))):
        write(tmp_path / f"ImageSets/Main/{split}.txt", "\n".join(f"2007_{i}" for i in numbers))

    assert "splits by the lists ImageSets/Segmentation/" in "\n".join(discover(tmp_path).remarks)


def test_discover__a_list_of_pairs_beside_the_data_is_said(tmp_path: Path) -> None:
    LAYOUTS["prefixes_in_one_folder"].make(tmp_path)
    write(tmp_path / "pairs.csv", "image,mask\nimg_0.jpg,mask_1.png\n")

    assert "pairs.csv, which lists pairs; --pairs '" in "\n".join(discover(tmp_path).remarks)


def test_pairs__in_an_archive_have_the_classes_of_their_masks(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for i in range(3):
            save(tmp_path / f"{i}.png", photo(i))
            save(tmp_path / f"m{i}.png", truth(i))
            archive.write(tmp_path / f"{i}.png", f"a/{i}.png")
            archive.write(tmp_path / f"m{i}.png", f"b/{2 - i}.png")
    rows = "".join(f"data.zip!/a/{i}.png,data.zip!/b/{2 - i}.png\n" for i in range(3))
    write(tmp_path / "list.csv", f"image,mask\n{rows}")

    config = describe(None, pairs=tmp_path / "list.csv").config

    assert isinstance(config, FolderConfig)
    assert config.classes == ("class 0", "class 1", "class 2")
    assert len(FolderDataset(config)) == 3


@pytest.mark.parametrize(
    "text", ["5", '"text"', "true", "[]", "{}", "[5]", '{"_via_img_metadata": 5}', '{"objects": [5]}']
)
def test_discover__of_stray_json_says_what_is_missing(text: str, tmp_path: Path) -> None:
    save(tmp_path / "photo.jpg", photo(0))
    write(tmp_path / "stray.json", text)

    with pytest.raises(DataError):
        discover(tmp_path)
