"""The corrected copy."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig, FolderDataset
from densevit.doctor.fix import write_fixed
from densevit.doctor.rules import CHECKS
from densevit.errors import DataError
from densevit.io.stored import turn_upright
from tests.unit.doctor.data import classes, codes, depth_mm, each, look, mask, photo, save
from tests.unit.doctor.faults import (
    COLOURS,
    GREYS,
    a_file_of_another_kind,
    a_mask_cut_short,
    a_mask_of_half_the_size,
    a_mask_without_photo,
    a_photo_turned_by_exif_alone,
    a_text_named_like_a_photo,
    a_transposed_mask,
    an_empty_photo,
    binary_masks_of_0_and_255,
    masks_in_colours,
    masks_of_floats,
    masks_of_greys,
    masks_of_greys_with_strays,
    masks_of_three_equal_channels,
    masks_spread_to_be_seen,
    masks_that_count_from_one,
    names_in_other_case,
    some_masks_of_0_and_255,
)

SAFE: list[tuple[Callable[[Path], object], str]] = [
    (a_mask_without_photo, "target-orphan"),
    (names_in_other_case, "name-case"),
    (a_file_of_another_kind, "file-stray"),
    (an_empty_photo, "empty-file"),
    (a_text_named_like_a_photo, "not-an-image"),
    (a_mask_cut_short, "unreadable"),
    (a_photo_turned_by_exif_alone, "exif-mask-unturned"),
    (masks_in_colours, "mask-colours"),
    (masks_of_three_equal_channels, "mask-colours"),
    (binary_masks_of_0_and_255, "mask-0-255"),
    (some_masks_of_0_and_255, "mask-0-255"),
    (masks_spread_to_be_seen, "mask-stretched"),
    (masks_of_greys, "mask-spread"),
    (masks_of_greys_with_strays, "mask-strays"),
    (masks_that_count_from_one, "mask-off-by-one"),
    (masks_of_floats, "mask-floats"),
    (a_mask_of_half_the_size, "mask-size"),
]


def colour_map(root: Path) -> Path:
    path = root.parent / "colours.json"
    path.write_text(json.dumps(COLOURS))
    return path


@pytest.mark.parametrize(("plant", "code"), SAFE, ids=lambda value: getattr(value, "__name__", value))
def test_copy__is_sound(plant: Callable[[Path], object], code: str, root: Path, tmp_path: Path) -> None:
    plant(root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    keys = {"class_values": GREYS} if plant is masks_of_greys_with_strays else {}
    diagnosis = look(root, colours=colour_map(root) if plant is masks_in_colours else None, **keys)

    copy = write_fixed(diagnosis, tmp_path / "copy")

    assert codes(look(tmp_path / "copy")) == set()
    assert code in {*copy.fixed, *copy.left_out}
    assert copy.unfixed(diagnosis) == []
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for split in ("train", "val"):
        dataset = FolderDataset(FolderConfig(root=tmp_path / "copy", split=split))
        assert all(dataset[i].labels is not None for i in range(len(dataset)))


def test_safe_codes__are_marked_in_the_table() -> None:
    assert {code for _, code in SAFE} == {code for code, check in CHECKS.items() if check.fixable}


@pytest.mark.parametrize(
    "plant", [masks_in_colours, masks_of_three_equal_channels, masks_that_count_from_one, masks_of_floats]
)
def test_copy__gives_back_the_classes_that_were_meant(
    plant: Callable[[Path], object], root: Path, tmp_path: Path
) -> None:
    plant(root)
    write_fixed(look(root, colours=colour_map(root)), tmp_path / "copy")

    mended = np.asarray(Image.open(tmp_path / "copy" / "masks" / "train" / "003.png"))

    np.testing.assert_array_equal(mended, mask(3))


def test_copy__turns_targets_as_the_photo_is_turned(root: Path, tmp_path: Path) -> None:
    a_photo_turned_by_exif_alone(root)
    write_fixed(look(root), tmp_path / "copy")

    dataset = FolderDataset(FolderConfig(root=tmp_path / "copy", split="train"))
    sample = next(dataset[i] for i in range(len(dataset)) if dataset[i].name == "003")

    assert sample.labels is not None
    assert sample.depth is not None
    np.testing.assert_array_equal(sample.image, turn_upright(photo(3), 6))
    np.testing.assert_array_equal(sample.labels, turn_upright(mask(3), 6))
    np.testing.assert_allclose(sample.depth, turn_upright(depth_mm(3), 6) / 1000, rtol=1e-6)


def test_copy__leaves_alone_what_is_not_safe(root: Path, tmp_path: Path) -> None:
    masks_in_colours(root)
    a_transposed_mask(root)
    save(root / "depth" / "train" / "004.png", depth_mm(4)[::2, ::2].copy())
    diagnosis = look(root)  # without a colour map

    copy = write_fixed(diagnosis, tmp_path / "copy")

    assert copy.unfixed(diagnosis) == ["mask-transposed", "depth-size", "mask-colours"]
    assert (tmp_path / "copy" / "depth" / "train" / "004.png").read_bytes() == (
        root / "depth" / "train" / "004.png"
    ).read_bytes()


@pytest.mark.parametrize("place", ["data", "data/copy", "."])
def test_copy__is_refused_where_it_would_meet_the_data(place: str, root: Path) -> None:
    with pytest.raises(DataError, match="a corrected copy goes to a new folder"):
        write_fixed(look(root), root.parent / place)


def test_copy__needs_all_files(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without --sample and --fast"):
        write_fixed(look(root, sample=2), tmp_path / "copy")


def test_copy__that_fails_leaves_nothing(root: Path, tmp_path: Path) -> None:
    diagnosis = look(root)
    (root / "images" / "val" / "104.png").unlink()

    with pytest.raises(DataError):
        write_fixed(diagnosis, tmp_path / "copy", progress=lambda done, _: unlink_last(root, done))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def unlink_last(root: Path, done: int) -> None:
    """A file disappears while the copy is being written."""
    (root / "values" / "val" / "104.npy").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"violet": [1, 2, 3]}', "gives a colour to 'violet', which is no class"),
        ('{"wall": [1, 2, 300]}', "gives 'wall' [1, 2, 300], which is no colour"),
        ('{"wall": "#010203", "red": [1, 2, 3]}', "gives 'red' [1, 2, 3], which is the colour of another class"),
        ("[", "is not valid JSON"),
        ("3", "holds int"),
    ],
)
def test_colours__that_are_none_are_refused(content: str, message: str, sound: Path, tmp_path: Path) -> None:
    (tmp_path / "colours.json").write_text(content)

    with pytest.raises(DataError, match=re.escape(message)):
        look(sound, colours=tmp_path / "colours.json")


def test_colours__may_stand_in_the_class_list(root: Path, tmp_path: Path) -> None:
    masks_in_colours(root)
    classes(root, palette=[[10, 20, 30], [200, 50, 50], [0, 200, 0], [0, 0, 200]])
    each(root, "masks", lambda m: np.where(m.any(axis=2, keepdims=True), m, (10, 20, 30)).astype(np.uint8))

    write_fixed(look(root), tmp_path / "copy")

    assert codes(look(tmp_path / "copy")) == set()
