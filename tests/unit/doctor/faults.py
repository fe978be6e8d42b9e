"""Faults, each planted by a function into a data set that has none."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.e2e.scenes import CLASSES
from tests.unit.doctor.data import SIZE, binary, classes, depth_mm, each, mask, photo, save, with_exif


class Fault(NamedTuple):
    code: str
    plant: Callable[[Path], object]
    also: frozenset[str] = frozenset()  # what such data has as well, and rightly
    keys: Mapping[str, Any] = MappingProxyType({})  # of the config


def fault(code: str, *also: str, **keys: Any) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    def keep(plant: Callable[[Path], object]) -> Callable[[Path], object]:
        FAULTS.append(Fault(code, plant, frozenset(also), keys))
        return plant

    return keep


FAULTS: list[Fault] = []

OUTLINE = [[2, 2], [40, 2], [40, 30], [2, 30]]


def as_coco(root: Path, names: list[str], *more: dict[str, Any], size: tuple[int, int] = SIZE) -> None:
    """Replace the masks by annotations: an outline in each photo, and in the first ones ``more``."""
    shutil.rmtree(root / "masks")
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        photos = sorted(path.name for path in (root / "images" / split).iterdir())
        images = [{"id": i, "file_name": name, "height": size[0], "width": size[1]} for i, name in enumerate(photos)]
        rows = [{"image_id": i, "segmentation": [OUTLINE]} for i in range(len(photos))] + [
            {"image_id": 0, **m} for m in more
        ]
        data = {
            "images": images,
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": [{"id": i, "category_id": 0, **row} for i, row in enumerate(rows)],
        }
        (root / "annotations" / f"{split}.json").write_text(json.dumps(data))


def as_labelme(root: Path, *more: dict[str, Any]) -> None:
    """Replace the masks by labelme's files: an outline in each, and ``more``."""
    for path in sorted((root / "masks").glob("*/*.png")):
        shapes = [{"label": "wall", "points": OUTLINE}, *more]
        path.with_suffix(".json").write_text(
            json.dumps({"imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes})
        )
        path.unlink()


@fault("classes-missing")
def no_class_names(root: Path) -> None:
    (root / "classes.json").unlink()


@fault("classes-broken")
def broken_class_names(root: Path) -> None:
    (root / "classes.json").write_text('{"classes": "wall"}')


@fault("annotations-broken")
def annotations_of_a_category_that_is_no_class(root: Path) -> None:
    as_coco(root, ["wall", "tram"], {"category_id": 1, "segmentation": [OUTLINE]})


@fault("annotations-broken")
def shapes_with_a_label_that_is_no_class(root: Path) -> None:
    as_labelme(root, {"label": "tram", "points": OUTLINE})


@fault("annotations-no-photo", "class-unseen", "mask-one-class", "mask-ignored-share", "mask-all-one-class")
def annotations_of_a_photo_that_is_gone(root: Path) -> None:
    as_coco(root, ["wall"])
    (root / "images" / "train" / "003.png").unlink()
    for kind in ("depth", "values"):
        shutil.rmtree(root / kind)


@fault("annotations-passed-over", "class-unseen", "mask-one-class", "mask-ignored-share", "mask-all-one-class")
def annotations_without_an_outline(root: Path) -> None:
    as_coco(root, ["wall"], {"segmentation": [], "bbox": [1, 1, 5, 5]})


@fault("annotations-passed-over", "class-unseen", "mask-one-class", "mask-ignored-share", "mask-all-one-class")
def shapes_without_an_area(root: Path) -> None:
    as_labelme(root, {"label": "wall", "points": OUTLINE[:2], "shape_type": "line"})


@fault("mask-size", "class-unseen", "mask-one-class", "mask-all-one-class")
def annotations_of_smaller_photos(root: Path) -> None:
    as_coco(root, ["wall"], size=(24, 32))


@fault("classes-twice")
def one_name_for_two_classes(root: Path) -> None:
    classes(root, classes=["wall", "red", "Red", "blue"])


@fault("ignore-is-class", "class-unseen", "mask-range", "mask-ignored-share")
def an_ignored_class(root: Path) -> None:
    classes(root, ignore_index=0)


@fault("split-empty")
def an_empty_split(root: Path) -> None:
    (root / "images" / "test").mkdir()


@fault("split-empty", "file-stray")
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


@fault("target-left-out", missing_targets="leave_out")
def a_photo_without_depth(root: Path) -> None:
    (root / "depth" / "train" / "003.png").unlink()


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


def renamed(root: Path, name: Callable[[str, int], str]) -> None:
    """Name photos and their targets by their split and number."""
    for path in sorted(root.glob("*/*/*.*")):
        path.rename(path.with_stem(name(path.parent.name, int(path.stem))))


@fault("leak-groups")
def a_patient_in_two_splits(root: Path) -> None:
    renamed(root, lambda split, i: f"patient{i // 3 if split == 'train' else 2}_{i}")


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


def in_greys(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Numbers that stand for the classes, the first for ignored pixels too."""
    table = np.zeros(256, np.uint8)
    table[:4] = GREYS
    return table[labels]


def strays(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """``in_greys`` with a few numbers near those of the classes."""
    greys = in_greys(labels)
    greys[::9, ::13] = greys[::9, ::13].clip(4, 250) - np.uint8(4)
    greys[4::9, 5::13] = greys[4::9, 5::13].clip(0, 250) + np.uint8(3)
    return greys


@fault("mask-spread")
def masks_of_greys(root: Path) -> None:
    each(root, "masks", in_greys)


GREYS = (0, 90, 180, 250)


@fault("mask-strays", class_values=GREYS)
@fault("mask-nearest", class_values=GREYS, stray_values="nearest")
def masks_of_greys_with_strays(root: Path) -> None:
    each(root, "masks", strays)


@fault("mask-off-by-one")
def masks_that_count_from_one(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 255, m, m + 1).astype(np.uint8))


@fault("mask-range", "class-train-only")
def a_number_without_class(root: Path) -> None:
    each(root, "masks", lambda m: np.where(m == 2, 7, m).astype(np.uint8), "val")


@fault("mask-range", "class-unseen", "mask-all-one-class")
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


@fault("mask-all-one-class", "mask-one-class", "class-unseen")
def masks_of_background_alone(root: Path) -> None:
    each(root, "masks", np.zeros_like)


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
