"""What a finding says, and of which part of the data."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig, FolderDataset
from densevit.doctor.examine import Diagnosis, examine
from densevit.doctor.rules import Finding
from densevit.errors import DataError
from tests.e2e.scenes import CLASSES
from tests.unit.doctor.data import SIZE, binary, classes, codes, each, finding, look, photo, with_exif
from tests.unit.doctor.faults import (
    a_grey_photo,
    a_mask_of_half_the_size,
    a_mask_without_photo,
    masks_that_count_from_one,
)


def test_finding__names_count_files_reason_and_remedy(root: Path) -> None:
    masks_that_count_from_one(root)
    found = finding(look(root), "mask-off-by-one")

    assert found.what == "17 of 17 masks hold 1 to 4 and never 0, for 4 classes"
    assert len(found.files) == 17
    assert found.severity == "error"
    assert found.line() == (
        f"mask-off-by-one: 17 of 17 masks hold 1 to 4 and never 0, for 4 classes, for example "
        f"{root}/masks/train/000.png; "
        "numbers count from 1, so each is taken for the next class; set reduce_zero_label: true"
    )


def test_findings__come_with_errors_first(root: Path) -> None:
    for plant in (a_grey_photo, a_mask_of_half_the_size, a_mask_without_photo):
        plant(root)

    assert [f.severity for f in look(root).findings] == ["error", "warning", "note"]


def test_files__are_those_with_the_fault(root: Path) -> None:
    a_mask_of_half_the_size(root)

    assert finding(look(root), "mask-size").files == (str(root / "masks" / "train" / "003.png"),)


def test_remedy__of_masks_from_one_is_enough(root: Path) -> None:
    masks_that_count_from_one(root)

    assert codes(look(root, reduce_zero_label=True)) == set()


def test_reduce_zero_label__that_is_wrong_is_suspected(root: Path) -> None:
    found = finding(look(root, reduce_zero_label=True), "class-unseen")

    assert found.what == "1 of 4 classes are in no mask: blue (3)"
    assert "leave reduce_zero_label out" in found.fix


def test_remedy__of_depth_in_centimetres_is_named_and_enough(root: Path) -> None:
    each(root, "depth", lambda d: (d // 10).astype(np.uint16))

    assert codes(look(root, depth_unit_m=0.01)) == set()
    depth_in_metres = finding(look(root, depth_unit_m=0.0001), "depth-unit")
    assert "set depth_unit_m: 0.01" in depth_in_metres.fix


def test_0_and_255__is_no_fault_where_ignored_pixels_are_meant(root: Path) -> None:
    binary(root)
    each(root, "masks", lambda m: np.where(np.arange(SIZE[1]) < 3, 255, m).astype(np.uint8))

    assert codes(look(root)) == set()


def test_exif__is_judged_by_the_outlines_of_the_masks(root: Path) -> None:
    for seed in range(12):
        with_exif(root / "images" / "train" / f"{seed:03}.png", 2, photo(seed)[:, ::-1].copy())
    right = finding(look(root), "exif-unclear")
    each(root, "masks", lambda m: m[:, ::-1].copy(), "train")
    wrong = finding(look(root), "exif-unclear")

    assert "probably right" in right.fix
    assert "probably wrong" in wrong.fix


def test_crop__makes_photos_small(root: Path) -> None:
    small = finding_in(look(root, crop=(96, 96)), "photo-small", "train")

    assert (
        small.what == "12 of 12 photos are enlarged over 1.5 times to cover the crop of 96 x 96, the smallest 48 x 64"
    )
    assert codes(look(root, crop=(64, 64))) == set()


def finding_in(diagnosis: Diagnosis, code: str, split: str) -> Finding:
    (found,) = [finding for finding in diagnosis.findings if (finding.code, finding.split) == (code, split)]
    return found


def test_data_set__without_splits_and_by_folders_is_looked_at(root: Path) -> None:
    a_mask_of_half_the_size(root)
    flat = {"images": root / "images" / "train", "masks": root / "masks" / "train", "classes": 4}

    diagnosis = examine(FolderConfig.parse(flat))

    assert codes(diagnosis) == {"mask-size"}
    assert diagnosis.context.splits[0].name == ""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no folder {0}/nowhere/images; a data set needs images/<split>"),
        ("images", "there is no folder {0}/images/images; a data set needs images/<split> and masks/<split> or"),
    ],
)
def test_root__that_is_none_is_refused(place: str, message: str, sound: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(sound / place)

    assert str(caught.value).startswith(message.format(sound))


def test_split__that_is_not_there_is_refused(sound: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(sound, only=("test",))

    assert str(caught.value) == f"{sound} has no split 'test'; splits found: train, val; name one of them"


def test_depth__of_floats_in_millimetres_names_their_key(root: Path) -> None:
    for path in sorted((root / "depth").glob("*/*.png")):
        np.save(path.with_suffix(".npy"), np.asarray(Image.open(path)).astype(np.float32))
        path.unlink()

    assert (
        "They look like millimetres: set depth_scale_m: 0.001, which makes it" in finding(look(root), "depth-unit").fix
    )
    assert codes(look(root, depth_scale_m=0.001)) == set()


@pytest.mark.parametrize("photo", ["caf\u00e9", "cafe\u0301"])
def test_names__are_matched_in_either_unicode_form(photo: str, root: Path) -> None:
    other = {"caf\u00e9": "cafe\u0301", "cafe\u0301": "caf\u00e9"}[photo]
    for kind in ("images", "masks", "depth", "values"):
        (path,) = (root / kind / "train").glob("003.*")
        path.rename(path.with_stem(photo if kind == "images" else other))

    assert codes(look(root)) == set()


ARRAYS = {
    "one channel": lambda labels: labels[..., None],
    "two channels": lambda labels: np.stack([labels] * 2, axis=-1),
    "equal channels": lambda labels: np.stack([labels] * 3, axis=-1),
    "colours": lambda labels: np.stack([labels, labels // 2, labels], axis=-1),
    "five channels": lambda labels: np.stack([labels] * 5, axis=-1),
    "beyond 32 bits": lambda labels: labels.astype(np.int64) + 2**40,
    "fractions": lambda labels: labels.astype(np.float32) + 0.5,
    "text": lambda labels: labels.astype(str),
}


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("name", list(ARRAYS))
def test_array__that_the_reader_refuses_is_an_error(name: str, palette: bool, root: Path) -> None:
    if palette:
        classes(root, palette=[[i, i // 2, i] for i in range(len(CLASSES))])
    (path,) = (root / "masks" / "train").glob("003.*")
    np.save(path.with_suffix(".npy"), ARRAYS[name](np.asarray(Image.open(path))))
    path.unlink()

    with pytest.raises(DataError):
        FolderDataset(FolderConfig(root=root, split="train"))[3]
    assert [f for f in look(root).findings if f.severity == "error"]


def test_colours__of_masks_that_are_read_as_numbers_are_an_error(root: Path) -> None:
    palette = np.array([[i, 100, 200] for i in range(len(CLASSES))], np.uint8)
    classes(root, palette=palette.tolist())
    each(root, "masks", lambda m: palette[np.where(m == 255, 0, m)])

    assert "mask-colours" not in codes(look(root))
    assert "mask-colours" in codes(look(root, mask_format="index"))


def test_note__among_masks_is_a_stray(root: Path) -> None:
    (root / "masks" / "train" / "meta.json").write_text("{}")

    assert codes(look(root)) == {"file-stray"}


def test_classes__beyond_255_are_no_encoding_fault(root: Path) -> None:
    classes(root, classes=[f"class {i}" for i in range(300)], ignore_index=65535)
    each(root, "masks", lambda m: np.where(m > 0, 255, 0).astype(np.uint8))

    assert not codes(look(root)) & {"mask-0-255", "mask-range", "ignore-is-class", "mask-ignored-share"}
