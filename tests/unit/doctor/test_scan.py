"""Looking at files: a part of them, many, a single one, and a glance before a run."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densevit.data import FolderConfig
from densevit.doctor.checks_duplicates import near_pairs
from densevit.doctor.examine import fast_check
from densevit.doctor.facts import Broken, MaskFacts, PhotoFacts
from densevit.doctor.probe import probe
from densevit.doctor.scan import jobs_of, scan
from densevit.io.stored import data_uri, resize_nearest, shrink, turn_upright
from densevit_runtime.io.decode import UPRIGHT
from densevit_runtime.io.zipped import place
from tests.unit.doctor.data import SIZE, codes, finding, look, photo, save
from tests.unit.doctor.faults import (
    a_class_in_val_alone,
    a_copy_in_val,
    a_mask_cut_short,
    binary_masks_of_0_and_255,
    depth_of_8_bits,
)

# A part of the files, and many


def test_sample__opens_photos_spread_over_each_split(sound: Path) -> None:
    diagnosis = look(sound, sample=4)

    assert [s.stem for s in diagnosis.context.samples] == ["000", "003", "006", "009", "100", "101", "102", "103"]


def test_sample__concludes_nothing_from_what_it_did_not_open(root: Path) -> None:
    a_class_in_val_alone(root)

    assert codes(look(root, sample=4)) == set()


def test_sample__finds_equal_files_in_two_splits(root: Path) -> None:
    a_copy_in_val(root)
    shutil.copy(root / "images" / "train" / "003.png", root / "images" / "val" / "003.png")

    found = finding(look(root, sample=1), "leak-exact")

    assert found.files == tuple(str(root / "images" / split / "003.png") for split in ("train", "val"))


def test_processes__find_what_one_process_finds(root: Path) -> None:
    a_mask_cut_short(root)
    splits = look(root).context.splits
    jobs = jobs_of(splits, None) * 3
    seen: list[int] = []

    facts = scan(jobs, workers=2, progress=seen.append)

    assert [(f.split, f.stem, type(f.masks)) for f in facts] == [(f.split, f.stem, type(f.masks)) for f in scan(jobs)]
    assert seen[-1] == len(jobs)


def test_near_pairs__cost_does_not_grow_with_the_square() -> None:
    thumb = np.random.default_rng(0).integers(0, 255, (16, 18), dtype=np.uint8).tobytes()
    photos = [PhotoFacts(str(i), "PNG", SIZE, SIZE, 1, 1, b"", thumb, False, False, 0, False) for i in range(400)]

    assert len(near_pairs(photos)) <= 64 * 400


@pytest.mark.parametrize("rich", [0, 1])
def test_near_pairs__are_of_photos_with_contrast(rich: int, tmp_path: Path) -> None:
    scenes = [photo(3)] * rich + [np.full((24, 32, 3), 120 + i, np.uint8) for i in range(3)]

    facts = [probe("", str(i), {"images": save(tmp_path / f"{i}.png", s)}).photo for i, s in enumerate(scenes)]

    assert near_pairs([f for f in facts if isinstance(f, PhotoFacts)]) == []


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_near_pairs__survive_jpeg_and_resizing(quality: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    scenes = [photo(int(seed)) for seed in draw.integers(0, 10_000, 30)]
    paths = [save(tmp_path / f"{i}.png", pixels) for i, pixels in enumerate(scenes)]
    big = Image.fromarray(scenes[7]).resize((128, 96), Image.Resampling.BICUBIC)
    paths.append(save(tmp_path / "again.jpg", np.asarray(big), quality=quality))

    facts = [probe("", str(i), {"images": path}).photo for i, path in enumerate(paths)]

    assert near_pairs([f for f in facts if isinstance(f, PhotoFacts)]) == [(7, 30)]


# Single files


def test_probe__survives_any_bytes(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    good = save(tmp_path / "good.png", photo(0)).read_bytes()
    for index in range(60):
        path = tmp_path / f"{index}.{('png', 'jpg', 'npy', 'tif')[index % 4]}"
        damaged = bytearray(good)
        for at in draw.integers(0, len(good), 20):
            damaged[at] = draw.integers(0, 256)
        path.write_bytes(bytes(damaged) if index % 2 else draw.bytes(200))
        facts = probe("", "a", {"images": path, "masks": path, "depth": path, "values": path})
        assert all(fact.path == str(path) for fact in facts.files())


def test_probe__names_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")

    facts = probe("", "a", {"images": tmp_path / "a.png"}).photo

    assert isinstance(facts, Broken)
    assert (facts.code, "Git LFS pointer" in facts.reason) == ("not-an-image", True)


def test_probe__names_a_damaged_file_in_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(save(tmp_path / "a.png", photo(0)), "a.png")
    packed = archive.read_bytes()
    archive.write_bytes(packed.replace(b"IDAT", b"IDAt", 1))

    facts = probe("", "a", {"images": place(archive) / "a.png"}).photo

    assert isinstance(facts, Broken)
    assert (facts.code, "Bad CRC-32" in facts.reason) == ("unreadable", True)


def test_probe__takes_complex_numbers_for_no_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.ones(SIZE, np.complex64))

    facts = probe("", "a", {"images": save(tmp_path / "a.png", photo(0)), "depth": path}).depth

    assert isinstance(facts, Broken)
    assert facts.reason.startswith("holds complex64")


def test_probe__counts_the_values_of_a_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[0, 1, 1], [255, 1, 0]], np.uint8))

    facts = probe("", "a", {"images": path, "masks": path}).masks

    assert isinstance(facts, MaskFacts)
    assert (facts.values.tolist(), facts.counts.tolist(), facts.colours) == ([0, 1, 255], [2, 3, 1], False)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turn_upright__is_what_the_readers_do(orientation: int) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    picture = Image.fromarray(pixels)
    expected = picture.transpose(UPRIGHT[orientation]) if orientation > 1 else picture

    np.testing.assert_array_equal(turn_upright(pixels, orientation), np.asarray(expected))


def test_resize_nearest__takes_the_pixel_under_the_centre() -> None:
    pixels = np.arange(4).reshape(2, 2)

    np.testing.assert_array_equal(resize_nearest(resize_nearest(pixels, (6, 4)), (2, 2)), pixels)


def test_shrink__is_the_mean() -> None:
    assert shrink(np.array([[0, 100], [50, 250]], np.uint8), (1, 1)).tolist() == [[100]]


def test_data_uri__holds_the_picture() -> None:
    assert data_uri(photo(0), kind="PNG").startswith("data:image/png;base64,iVBOR")


# A glance before a run


def test_fast_check__finds_errors_and_leaks(root: Path) -> None:
    binary_masks_of_0_and_255(root)
    a_copy_in_val(root)
    shutil.copy(root / "images" / "train" / "003.png", root / "images" / "val" / "003.png")
    places = {split: FolderConfig(root=root, split=split) for split in ("train", "val")}

    assert [f.code for f in fast_check(places, kinds=["masks"])] == ["mask-0-255", "leak-exact"]


def test_fast_check__looks_at_wanted_targets_alone(root: Path) -> None:
    depth_of_8_bits(root)
    places = {"train": FolderConfig(root=root, split="train")}

    assert fast_check(places, kinds=["masks"]) == []
    assert [f.code for f in fast_check(places, kinds=["depth"])] == ["depth-8-bit"]


def test_fast_check__takes_one_folder_in_two_roles_as_meant(sound: Path) -> None:
    same = FolderConfig(root=sound, split="train")

    assert fast_check({"train": same, "val": same}) == []


def test_fast_check__leaves_a_missing_folder_to_the_data_set(tmp_path: Path) -> None:
    assert fast_check({"train": FolderConfig(root=tmp_path, split="train")}) == []
