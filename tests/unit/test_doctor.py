"""Faults are planted one at a time into a data set that has none, and each must be found by its code and no other."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig, FolderDataset
from densevit.doctor.checks_copies import near_pairs
from densevit.doctor.codes import CHECKS, Finding
from densevit.doctor.examine import Diagnosis, Options, examine, fast_check
from densevit.doctor.facts import Broken, MaskFacts, PhotoFacts
from densevit.doctor.fix import write_fixed
from densevit.doctor.page import page
from densevit.doctor.probe import probe
from densevit.doctor.report import plain
from densevit.doctor.scan import jobs_of, scan
from densevit.errors import DataError
from densevit.io.decode import UPRIGHT
from densevit.io.stored import data_uri, resize_nearest, shrink, turn_upright
from tests.e2e.scenes import CLASSES, scene

SIZE = (48, 64)
ROOT = Path(__file__).parents[2]


def photo(seed: int, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """A scene under light that falls in from a side of its own, so that no two look alike."""
    image = scene(seed, size).image.astype(np.float64)
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    light = 0.6 + 0.4 * np.sin(rows / draw.uniform(4, 14) + columns / draw.uniform(4, 14) + draw.uniform(0, 6))
    return (image * light[..., None]).clip(0, 255).astype(np.uint8)


def mask(seed: int) -> NDArray[np.uint8]:
    return scene(seed).labels


def depth_mm(seed: int) -> NDArray[np.uint16]:
    """A floor that comes nearer towards the bottom, with uneven ground, and no measurement in the first row."""
    draw = np.random.default_rng(seed)
    rows = np.linspace(6000, 1500, SIZE[0])[:, None] + draw.normal(0, 60, SIZE)
    rows[0] = 0
    return rows.clip(0, 65535).astype(np.uint16)


def save(path: Path, array: NDArray[Any], **facts: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **facts)
    return path


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos to train on and five to measure with, without a fault."""
    root = tmp_path_factory.mktemp("sound") / "data"
    for split, seeds in (("train", range(12)), ("val", range(100, 105))):
        for seed in seeds:
            save(root / "images" / split / f"{seed:03}.png", photo(seed))
            save(root / "masks" / split / f"{seed:03}.png", mask(seed))
            save(root / "depth" / split / f"{seed:03}.png", depth_mm(seed))
            values = np.random.default_rng(seed).normal(size=(*SIZE, 2)).astype(np.float32)
            (root / "values" / split).mkdir(parents=True, exist_ok=True)
            np.save(root / "values" / split / f"{seed:03}.npy", values)
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255}))
    return root


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """A data set to plant faults in."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def look(root: Path, **facts: Any) -> Diagnosis:
    options = facts.pop("options", Options())
    return examine(FolderConfig.parse({"root": root, **facts}), options)


def codes(diagnosis: Diagnosis) -> set[str]:
    return {finding.code for finding in diagnosis.findings}


def finding(diagnosis: Diagnosis, code: str) -> Finding:
    (found,) = [finding for finding in diagnosis.findings if finding.code == code]
    return found


def each(root: Path, kind: str, change: Callable[[NDArray[Any]], NDArray[Any]], split: str = "*") -> None:
    for path in sorted(root.glob(f"{kind}/{split}/*.png")):
        save(path, change(np.asarray(Image.open(path))))


def classes(root: Path, **facts: Any) -> None:
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "ignore_index": 255} | facts))


def binary(root: Path) -> None:
    """Classes that are two, and no ignored pixel."""
    classes(root, classes=["no", "yes"])
    each(root, "masks", lambda m: ((m > 0) & (m < 255)).astype(np.uint8))


def with_exif(path: Path, orientation: int, pixels: NDArray[np.uint8]) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    save(path, pixels, exif=exif)


def test_sound_data__has_no_finding(sound: Path) -> None:
    assert [f.line() for f in look(sound).findings] == []


def test_sound_data__has_no_finding_at_a_glance(sound: Path) -> None:
    places = {split: FolderConfig(root=sound, split=split) for split in ("train", "val")}

    assert fast_check(places) == []


# Faults


class Fault(NamedTuple):
    code: str
    plant: Callable[[Path], object]
    also: frozenset[str] = frozenset()  # what such data has as well, and rightly


def fault(code: str, *also: str) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def keep(plant: Callable[[Path], object]) -> Callable[[Path], object]:
        FAULTS.append(Fault(code, plant, frozenset(also)))
        return plant

    return keep


FAULTS: list[Fault] = []


@fault("classes-missing")
def no_class_names(root: Path) -> None:
    (root / "classes.json").unlink()


@fault("classes-broken")
def broken_class_names(root: Path) -> None:
    (root / "classes.json").write_text('{"classes": "wall"}')


@fault("classes-twice")
def one_name_for_two_classes(root: Path) -> None:
    classes(root, classes=["wall", "red", "Red", "blue"])


@fault("ignore-is-class", "class-unseen", "mask-range", "mask-ignored-share")
def an_ignored_class(root: Path) -> None:
    classes(root, ignore_index=0)


@fault("split-empty")
def an_empty_split(root: Path) -> None:
    (root / "images" / "test").mkdir()


@fault("split-empty")
def photos_one_folder_too_deep(root: Path) -> None:
    save(root / "images" / "test" / "city" / "a.png", photo(900))


@fault("split-without-photos")
def masks_of_a_split_without_photos(root: Path) -> None:
    save(root / "masks" / "validation" / "a.png", mask(0))


@fault("split-missing")
def nothing_to_measure_with(root: Path) -> None:
    for kind in ("images", "masks", "depth", "values"):
        shutil.rmtree(root / kind / "val")


@fault("no-targets")
def photos_alone(root: Path) -> None:
    for kind in ("masks", "depth", "values"):
        shutil.rmtree(root / kind / "val")


@fault("target-missing")
def a_photo_without_mask(root: Path) -> None:
    (root / "masks" / "train" / "003.png").unlink()


@fault("target-orphan")
def a_mask_without_photo(root: Path) -> None:
    save(root / "masks" / "train" / "999.png", mask(3))


@fault("name-case")
def names_in_other_case(root: Path) -> None:
    (root / "images" / "train" / "003.png").rename(root / "images" / "train" / "A3.png")
    for kind in ("masks", "depth"):
        (root / kind / "train" / "003.png").rename(root / kind / "train" / "a3.png")
    (root / "values" / "train" / "003.npy").rename(root / "values" / "train" / "A3.npy")


@fault("name-twice")
def two_photos_of_one_name(root: Path) -> None:
    save(root / "images" / "train" / "003.jpg", photo(901))


@fault("file-stray")
def a_file_of_another_kind(root: Path) -> None:
    (root / "images" / "train" / "notes.txt").write_text("sunny")


@fault("file-dangling")
def a_link_to_nowhere(root: Path) -> None:
    (root / "images" / "train" / "gone.png").symlink_to(root / "gone.png")


@fault("empty-file")
def an_empty_photo(root: Path) -> None:
    (root / "images" / "train" / "003.png").write_bytes(b"")


@fault("not-an-image")
def a_text_named_like_a_photo(root: Path) -> None:
    (root / "images" / "train" / "003.png").write_text("<html>404 not found</html>")


@fault("unreadable")
def a_mask_cut_short(root: Path) -> None:
    path = root / "masks" / "train" / "003.png"
    path.write_bytes(path.read_bytes()[:80])


@fault("photo-sizes", "mask-size", "depth-size", "values-size")
def a_photo_of_another_size(root: Path) -> None:
    save(root / "images" / "train" / "003.png", photo(3, (50, 60)))


@fault("photo-small", "photo-sizes", "mask-size", "depth-size", "values-size")
def a_tiny_photo(root: Path) -> None:
    save(root / "images" / "train" / "003.png", photo(3, (16, 20)))


@fault("photo-aspect", "photo-sizes", "mask-size", "depth-size", "values-size")
def a_panorama(root: Path) -> None:
    save(root / "images" / "train" / "003.png", photo(3, (48, 400)))


@fault("photo-grey")
def a_grey_photo(root: Path) -> None:
    path = root / "images" / "train" / "003.png"
    Image.open(path).convert("L").save(path)


@fault("photo-transparent")
def a_photo_with_a_hole(root: Path) -> None:
    alpha = np.full(SIZE, 255, np.uint8)
    alpha[10:20, 10:20] = 0
    save(root / "images" / "train" / "003.png", np.dstack([photo(3), alpha]))


@fault("photo-dark", "photo-grey")
def a_photo_of_twelve_bits(root: Path) -> None:
    save(root / "images" / "train" / "003.png", photo(3)[..., 0].astype(np.uint16) * 16)


@fault("photo-blank")
def a_photo_of_one_colour(root: Path) -> None:
    save(root / "images" / "train" / "003.png", np.full((*SIZE, 3), 90, np.uint8))


@fault("photo-frames")
def an_animation(root: Path) -> None:
    (root / "images" / "train" / "003.png").unlink()
    others = [Image.fromarray(photo(seed)) for seed in (910, 911)]
    Image.fromarray(photo(3)).save(root / "images" / "train" / "003.tif", save_all=True, append_images=others)


@fault("exif-mask-unturned")
def a_photo_turned_by_exif_alone(root: Path) -> None:
    with_exif(root / "images" / "train" / "003.png", 6, photo(3))


@fault("exif-unclear")
def a_photo_upside_down_by_exif(root: Path) -> None:
    with_exif(root / "images" / "train" / "003.png", 3, photo(3))


@fault("photo-twice")
def a_copy_within_a_split(root: Path) -> None:
    for kind, suffix in (("images", "png"), ("masks", "png"), ("depth", "png"), ("values", "npy")):
        shutil.copy(root / kind / "train" / f"003.{suffix}", root / kind / "train" / f"copy.{suffix}")


@fault("photo-twice-masks-differ", "photo-twice")
def a_copy_with_another_mask(root: Path) -> None:
    a_copy_within_a_split(root)
    save(root / "masks" / "train" / "copy.png", mask(50))


@fault("photo-near")
def a_photo_saved_again_as_jpeg(root: Path) -> None:
    a_copy_within_a_split(root)
    (root / "images" / "train" / "copy.png").unlink()
    save(root / "images" / "train" / "copy.jpg", photo(3), quality=80)


@fault("leak-exact")
def a_copy_in_val(root: Path) -> None:
    for kind, suffix in (("images", "png"), ("masks", "png"), ("depth", "png"), ("values", "npy")):
        shutil.copy(root / kind / "train" / f"003.{suffix}", root / kind / "val" / f"003.{suffix}")
    # Other bytes, equal pixels.
    save(root / "images" / "val" / "003.png", photo(3), compress_level=1)


@fault("leak-near")
def a_mirrored_copy_in_val(root: Path) -> None:
    a_copy_in_val(root)
    for kind in ("images", "masks", "depth"):
        path = root / kind / "val" / "003.png"
        save(path, np.asarray(Image.open(path))[:, ::-1].copy())


@fault("mask-jpeg")
def masks_as_jpeg(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        save(path.with_suffix(".jpg"), np.asarray(Image.open(path)))
        path.unlink()


@fault("mask-jpeg")
def a_jpeg_that_is_named_png(root: Path) -> None:
    save(root / "masks" / "train" / "003.png", mask(3), format="JPEG")


COLOURS = {"wall": [10, 20, 30], "red": "#c83232", "green": [0, 200, 0], "blue": [0, 0, 200], "ignore": [0, 0, 0]}


def in_colours(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), np.uint8)
    table[:4] = (10, 20, 30), (200, 50, 50), (0, 200, 0), (0, 0, 200)
    return table[labels]


@fault("mask-colours")
def masks_in_colours(root: Path) -> None:
    each(root, "masks", in_colours)


@fault("mask-colours")
def masks_of_three_equal_channels(root: Path) -> None:
    each(root, "masks", lambda m: np.dstack([m, m, m]))


@fault("mask-0-255")
def binary_masks_of_0_and_255(root: Path) -> None:
    binary(root)
    each(root, "masks", lambda m: m * np.uint8(255))


@fault("mask-0-255")
def some_masks_of_0_and_255(root: Path) -> None:
    binary(root)
    each(root, "masks", lambda m: m * np.uint8(255), "val")


@fault("mask-stretched")
def masks_spread_to_be_seen(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 255, 0, m) * np.uint8(85))


@fault("mask-off-by-one")
def masks_that_count_from_one(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 255, m, m + 1).astype(np.uint8))


@fault("mask-range", "class-train-only")
def a_number_without_class(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 2, 7, m).astype(np.uint8), "val")


@fault("mask-range", "class-unseen")
def instances_instead_of_classes(root: Path) -> None:
    each(root, "masks", lambda m: m.astype(np.uint16) * np.uint16(1000) + np.uint16(1))


@fault("mask-blurred")
def a_mask_resized_with_smoothing(root: Path) -> None:
    classes(root, ignore_index=200)
    each(root, "masks", lambda m: np.where(m == 255, 200, m).astype(np.uint8))
    small = Image.fromarray(np.where(mask(3) == 255, 200, mask(3)).astype(np.uint8) // 3 * 100).resize((32, 24))
    small.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(root / "masks" / "train" / "003.png")


@fault("mask-floats")
def masks_of_floats(root: Path) -> None:
    for path in root.glob("masks/*/*.png"):
        save(path.with_suffix(".tif"), np.asarray(Image.open(path)).astype(np.float32))
        path.unlink()


@fault("mask-size")
def a_mask_of_half_the_size(root: Path) -> None:
    save(root / "masks" / "train" / "003.png", mask(3)[::2, ::2].copy())


@fault("mask-transposed")
def a_transposed_mask(root: Path) -> None:
    save(root / "masks" / "train" / "003.png", mask(3).T.copy())


@fault("mask-turned")
def mirrored_masks(root: Path) -> None:
    each(root, "masks", lambda m: m[:, ::-1].copy())


@fault("mask-palettes")
def palettes_made_up_file_by_file(root: Path) -> None:
    for index, path in enumerate(sorted(root.glob("masks/*/*.png"))):
        picture = Image.fromarray(np.asarray(Image.open(path)))
        picture = picture.convert("P")
        picture.putdata(np.asarray(Image.open(path)).ravel().tolist())
        colours = np.zeros((256, 3), np.uint8)
        colours[:4] = np.array([(0, 0, 0), (200, 0, 0), (0, 200, 0), (0, 0, 200)])[:: -1 if index == 3 else 1]
        picture.putpalette(colours.tobytes())
        picture.save(path)


@fault("mask-ignored")
def a_mask_of_nothing(root: Path) -> None:
    save(root / "masks" / "train" / "003.png", np.full(SIZE, 255, np.uint8))


@fault("mask-ignored-share")
def masks_that_are_mostly_ignored(root: Path) -> None:
    def erase(m: NDArray[Any]) -> NDArray[Any]:
        grown = m.copy()
        grown[:, ::2] = grown[::2] = 255
        return grown

    each(root, "masks", erase)


@fault("mask-one-class")
def a_mask_of_one_class(root: Path) -> None:
    save(root / "masks" / "train" / "003.png", np.zeros(SIZE, np.uint8))


@fault("class-unseen")
def a_class_that_is_nowhere(root: Path) -> None:
    classes(root, classes=[*CLASSES, "violet"])


@fault("class-val-only")
def a_class_in_val_alone(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 2, 0, m).astype(np.uint8), "train")


@fault("class-train-only")
def a_class_in_train_alone(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 2, 0, m).astype(np.uint8), "val")


@fault("class-rare")
def a_class_of_few_pixels(root: Path) -> None:
    def shrink_class(m: NDArray[Any]) -> NDArray[Any]:
        kept = np.where(m == 2, 0, m).astype(np.uint8)
        kept[5, 5] = 2
        return kept

    each(root, "masks", shrink_class)


@fault("depth-8-bit")
def depth_of_8_bits(root: Path) -> None:
    each(root, "depth", lambda d: (d // 256).astype(np.uint8))


@fault("depth-colours")
def depth_as_a_picture(root: Path) -> None:
    save(root / "depth" / "train" / "003.png", photo(3))


@fault("depth-size")
def depth_of_half_the_size(root: Path) -> None:
    save(root / "depth" / "train" / "003.png", depth_mm(3)[::2, ::2].copy())


@fault("depth-transposed")
def transposed_depth(root: Path) -> None:
    save(root / "depth" / "train" / "003.png", depth_mm(3).T.copy())


def depth_as_floats(root: Path, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> None:
    for path in sorted(root.glob("depth/*/*.png")):
        np.save(path.with_suffix(".npy"), change(np.asarray(Image.open(path)).astype(np.float32) / 1000))
        path.unlink()


@fault("depth-negative")
def depth_below_zero(root: Path) -> None:
    depth_as_floats(root, lambda d: np.where(d == 0, np.float32(-1), d))


@fault("depth-nan")
def depth_with_nan(root: Path) -> None:
    depth_as_floats(root, lambda d: np.where(d == 0, np.float32(np.nan), d))


@fault("depth-empty")
def depth_without_a_measurement(root: Path) -> None:
    save(root / "depth" / "train" / "003.png", np.zeros(SIZE, np.uint16))


@fault("depth-constant")
def depth_of_one_value(root: Path) -> None:
    save(root / "depth" / "train" / "003.png", np.full(SIZE, 4000, np.uint16))


@fault("depth-sparse")
def depth_of_few_points(root: Path) -> None:
    def thin(d: NDArray[Any]) -> NDArray[Any]:
        kept = np.zeros_like(d)
        kept[1::7, ::5] = d[1::7, ::5]
        return kept

    each(root, "depth", thin)


@fault("depth-unit")
def depth_in_centimetres(root: Path) -> None:
    each(root, "depth", lambda d: (d // 100).astype(np.uint16))  # read as millimetres, 6 m are 60 mm


@fault("depth-unit")
def floats_in_millimetres(root: Path) -> None:
    depth_as_floats(root, lambda d: d * 1000)


@fault("depth-units-differ")
def metres_and_millimetres(root: Path) -> None:
    (root / "depth" / "val" / "100.png").unlink()
    np.save(root / "depth" / "val" / "100.npy", depth_mm(100).astype(np.float32))


@fault("depth-normalised")
def depth_from_0_to_1(root: Path) -> None:
    depth_as_floats(root, lambda d: d / d.max())


@fault("depth-inverted")
def disparity_instead_of_depth(root: Path) -> None:
    each(
        root, "depth", lambda d: np.where(d == 0, 0, 12_000_000 // np.maximum(d, 1).astype(np.int64)).astype(np.uint16)
    )


@fault("depth-saturated")
def depth_of_65535_where_nothing_was_measured(root: Path) -> None:
    each(root, "depth", lambda d: np.where(d == 0, 65535, d).astype(np.uint16))


@fault("depth-levels")
def depth_that_was_8_bit_once(root: Path) -> None:
    each(root, "depth", lambda d: (d // 256 * 256).astype(np.uint16))


@fault("values-broken")
def values_without_channels(root: Path) -> None:
    np.save(root / "values" / "train" / "003.npy", np.zeros(SIZE, np.float32))


@fault("values-size")
def values_of_half_the_size(root: Path) -> None:
    np.save(root / "values" / "train" / "003.npy", np.zeros((24, 32, 2), np.float32))


@fault("values-channels")
def values_of_three_channels(root: Path) -> None:
    np.save(root / "values" / "train" / "003.npy", np.zeros((*SIZE, 3), np.float32))


@fault("values-empty")
def values_that_are_nan(root: Path) -> None:
    np.save(root / "values" / "train" / "003.npy", np.full((*SIZE, 2), np.nan, np.float32))


@pytest.mark.parametrize("planted", FAULTS, ids=lambda planted: planted.plant.__name__)
def test_fault__is_found_by_its_code_and_no_other(planted: Fault, root: Path) -> None:
    planted.plant(root)

    assert codes(look(root)) == {planted.code} | planted.also


def test_every_code__has_a_planted_fault() -> None:
    assert {planted.code for planted in FAULTS} == set(CHECKS)


# What a finding says


def test_finding__names_count_files_reason_and_remedy(root: Path) -> None:
    masks_that_count_from_one(root)
    found = finding(look(root), "mask-off-by-one")

    assert found.what == "17 masks hold 1 to 4 and never 0, for 4 classes"
    assert len(found.files) == 17
    assert found.severity == "error"
    assert found.line() == (
        f"mask-off-by-one: 17 masks hold 1 to 4 and never 0, for 4 classes, {root}/masks/train/000.png for one; "
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

    assert found.what.startswith("blue (3)")
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
    small = finding_in(look(root, options=Options(crop=(96, 96))), "photo-small", "train")

    assert (
        small.what == "12 of 12 photos are enlarged over 1.5 times to cover the crop of 96 x 96, the smallest 48 x 64"
    )
    assert codes(look(root, options=Options(crop=(64, 64)))) == set()


def finding_in(diagnosis: Diagnosis, code: str, split: str) -> Finding:
    (found,) = [finding for finding in diagnosis.findings if (finding.code, finding.split) == (code, split)]
    return found


def test_data_set__without_splits_and_by_folders_is_looked_at(root: Path) -> None:
    a_mask_of_half_the_size(root)
    flat = {"images": root / "images" / "train", "masks": root / "masks" / "train", "classes": 4}

    diagnosis = examine(FolderConfig.parse(flat))

    assert codes(diagnosis) == {"mask-size"}
    assert diagnosis.material.splits[0].name == ""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "nowhere",
            "{}/nowhere is not a folder; the root of a data set, with images/ in it, is accepted; check the path",
        ),
        (
            "images",
            "{}/images has no folder images/ (it has train/, val/); photos belong in images/<split>/ and their targets "
            "in masks/<split>/ or depth/<split>/; rename the folders, or name them by --images and --masks",
        ),
    ],
)
def test_root__that_is_none_is_refused(place: str, message: str, sound: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(sound / place)

    assert str(caught.value) == message.format(sound)


def test_split__that_is_not_there_is_refused(sound: Path) -> None:
    with pytest.raises(DataError) as caught:
        look(sound, options=Options(only=("test",)))

    assert str(caught.value) == f"{sound} has no split 'test'; splits found: train, val; name one of them"


# A part of the files, and many


def test_sample__opens_photos_spread_over_each_split(sound: Path) -> None:
    diagnosis = look(sound, options=Options(sample=4))

    assert [s.stem for s in diagnosis.material.samples] == ["000", "003", "006", "009", "100", "101", "102", "103"]


def test_sample__concludes_nothing_from_what_it_did_not_open(root: Path) -> None:
    a_class_in_val_alone(root)

    assert codes(look(root, options=Options(sample=4))) == set()


def test_sample__finds_equal_files_in_two_splits(root: Path) -> None:
    a_copy_in_val(root)
    shutil.copy(root / "images" / "train" / "003.png", root / "images" / "val" / "003.png")

    found = finding(look(root, options=Options(sample=1)), "leak-exact")

    assert found.files == tuple(str(root / "images" / split / "003.png") for split in ("train", "val"))


def test_processes__find_what_one_process_finds(root: Path) -> None:
    a_mask_cut_short(root)
    splits = look(root).material.splits
    jobs = jobs_of(splits, None) * 3
    seen: list[int] = []

    facts = scan(jobs, workers=2, progress=seen.append)

    assert [(f.split, f.stem, type(f.masks)) for f in facts] == [(f.split, f.stem, type(f.masks)) for f in scan(jobs)]
    assert seen[-1] == len(jobs)


def test_near_pairs__cost_does_not_grow_with_the_square() -> None:
    thumb = np.random.default_rng(0).integers(0, 255, (16, 18), dtype=np.uint8).tobytes()
    photos = [
        PhotoFacts(str(i), "PNG", "RGB", SIZE, SIZE, 1, 1, b"", thumb, False, False, None, False) for i in range(400)
    ]

    assert len(near_pairs(photos)) <= 64 * 400


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


# A corrected copy

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
    diagnosis = look(root, options=Options(colours=colour_map(root) if plant is masks_in_colours else None))

    copy = write_fixed(diagnosis, tmp_path / "copy")

    assert codes(look(tmp_path / "copy")) == set()
    assert code in {*copy.mended, *copy.left_out}
    assert copy.left_alone(diagnosis) == []
    assert before == {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for split in ("train", "val"):
        dataset = FolderDataset(FolderConfig(root=tmp_path / "copy", split=split))
        assert all(dataset[i].labels is not None for i in range(len(dataset)))


def test_safe_codes__are_marked_in_the_table() -> None:
    assert {code for _, code in SAFE} == {code for code, check in CHECKS.items() if check.written}


@pytest.mark.parametrize(
    "plant", [masks_in_colours, masks_of_three_equal_channels, masks_that_count_from_one, masks_of_floats]
)
def test_copy__gives_back_the_classes_that_were_meant(
    plant: Callable[[Path], object], root: Path, tmp_path: Path
) -> None:
    plant(root)
    write_fixed(look(root, options=Options(colours=colour_map(root))), tmp_path / "copy")

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

    assert copy.left_alone(diagnosis) == ["mask-transposed", "depth-size", "mask-colours"]
    assert (tmp_path / "copy" / "depth" / "train" / "004.png").read_bytes() == (
        root / "depth" / "train" / "004.png"
    ).read_bytes()


@pytest.mark.parametrize("place", ["data", "data/copy", "."])
def test_copy__is_refused_where_it_would_meet_the_data(place: str, root: Path) -> None:
    with pytest.raises(DataError, match="a corrected copy goes to a"):
        write_fixed(look(root), root.parent / place)


def test_copy__needs_all_files(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="goes without --sample"):
        write_fixed(look(root, options=Options(sample=2)), tmp_path / "copy")


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
        ("[", "cannot be read as JSON"),
        ("3", "holds int"),
    ],
)
def test_colours__that_are_none_are_refused(content: str, message: str, sound: Path, tmp_path: Path) -> None:
    (tmp_path / "colours.json").write_text(content)

    with pytest.raises(DataError, match=re.escape(message)):
        look(sound, options=Options(colours=tmp_path / "colours.json"))


def test_colours__may_stand_in_the_class_list(root: Path, tmp_path: Path) -> None:
    masks_in_colours(root)
    classes(root, palette=[[10, 20, 30], [200, 50, 50], [0, 200, 0], [0, 0, 200]])
    each(root, "masks", lambda m: np.where(m.any(axis=2, keepdims=True), m, (10, 20, 30)).astype(np.uint8))

    write_fixed(look(root), tmp_path / "copy")

    assert codes(look(tmp_path / "copy")) == set()


# Reports


def test_plain__has_figures_and_findings(root: Path) -> None:
    a_mask_of_half_the_size(root)

    record = json.loads(json.dumps(plain(look(root), "mine")))

    train = record["splits"][0]
    assert record["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert (train["name"], train["photos"], train["targets"]["masks"]) == ("train", 12, 12)
    assert train["sizes"] == [{"height": 48, "width": 64, "photos": 12}]
    assert sum(row["share"] for row in train["classes"].values()) == pytest.approx(1)
    assert train["depth_m"]["max"] == pytest.approx(6.1, abs=0.1)
    assert record["findings"][0]["files"] == ["masks/train/003.png"]


def test_page__holds_pictures_and_needs_no_other_file(root: Path) -> None:
    a_mask_of_half_the_size(root)
    masks_in_colours(root)

    text = page(look(root), "mine & <yours>")

    assert "mine &amp; &lt;yours&gt;" in text
    assert text.count("<img src='data:image/") > 10
    assert not re.findall(r"(?:src|href)=(?!['\"]?data:)", text)
    assert all(code in text for code in ("mask-size", "mask-colours"))


def test_page__survives_files_that_cannot_be_shown(root: Path) -> None:
    for plant in (an_empty_photo, depth_as_a_picture, values_that_are_nan, a_transposed_mask):
        plant(root)
    (root / "images" / "train" / "<script>.png").write_bytes(b"")

    text = page(look(root), "mine")

    assert "<script>" not in text


def test_documentation__lists_every_code() -> None:
    text = (ROOT / "docs" / "how-to" / "check-your-data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (\w+) \| (\w*) ?\|", text, re.MULTILINE)
    stated = {code: (severity, mended) for code, severity, mended in rows}

    assert stated == {code: (check.severity, "yes" if check.written else "") for code, check in CHECKS.items()}
