import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import ClassTable, FolderConfig, FolderDataset, classes_of
from densevit.data.labels import LabelRule, merge_classes
from densevit.data.shapes import decode_rle, fill_polygon
from densevit.errors import ConfigError, DataError

SIZE = (12, 16)
CLASSES = ("road", "car", "bus", "sky")
PALETTE = ((128, 64, 128), (0, 0, 142), (0, 60, 100), (70, 130, 180))


def refusal(action: Callable[[], object], kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


def random_labels(seed: int = 0, high: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high, SIZE, dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One photo, a.png, and the names of the classes; masks are up to the test."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": CLASSES}))
    return tmp_path


def mask_of(root: Path, **facts: Any) -> NDArray[np.int32]:
    labels = FolderDataset(FolderConfig.parse({"root": root, **facts}))[0].labels
    assert labels is not None
    assert labels.dtype == np.int32
    return labels


# Kinds of mask images


def grey(labels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(labels)


def palette(labels: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(labels, "P")
    image.putpalette([part for colour in PALETTE for part in colour])
    return image


def sixteen(labels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(labels.astype(np.uint16))


def colours(labels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.array(PALETTE, np.uint8)[labels])


def with_alpha(labels: NDArray[np.uint8]) -> Image.Image:
    image = colours(labels).convert("RGBA")
    image.putalpha(7)
    return image


@pytest.mark.parametrize("encode", [grey, palette, sixteen, colours, with_alpha])
def test_mask__of_every_kind_gives_the_same_labels(root: Path, encode: Callable[..., Image.Image]) -> None:
    encode(random_labels()).save(root / "masks" / "a.png")
    np.testing.assert_array_equal(mask_of(root, palette=PALETTE), random_labels())


def test_mask__may_be_an_array_of_numbers(root: Path) -> None:
    np.save(root / "masks" / "a.npy", random_labels().astype(np.int64))
    np.testing.assert_array_equal(mask_of(root), random_labels())


def test_array__of_other_than_whole_numbers_is_refused(root: Path) -> None:
    np.save(root / "masks" / "a.npy", random_labels().astype(np.float32))
    assert refusal(lambda: mask_of(root)) == (
        f"{root / 'masks' / 'a.npy'} holds an array (12, 16) of float32; one (H, W) array of integers, as np.save "
        "writes it, is accepted; save it as such"
    )


def test_palette_image__counts_its_colours_when_asked(root: Path) -> None:
    image = palette(3 - random_labels())
    image.putpalette([part for colour in PALETTE[::-1] for part in colour])
    image.save(root / "masks" / "a.png")
    np.testing.assert_array_equal(mask_of(root, palette=PALETTE), 3 - random_labels())
    np.testing.assert_array_equal(mask_of(root, palette=PALETTE, mask_format="colour"), random_labels())


def test_palette__comes_from_classes_json_too(root: Path) -> None:
    (root / "classes.json").write_text(json.dumps({"classes": CLASSES, "palette": PALETTE}))
    colours(random_labels()).save(root / "masks" / "a.png")
    np.testing.assert_array_equal(mask_of(root), random_labels())
    table = classes_of(FolderConfig(root=root))
    assert table is not None
    assert table.palette == PALETTE


def test_colour__that_no_class_has_is_refused_and_named(root: Path) -> None:
    pixels = np.array(PALETTE, np.uint8)[random_labels()]
    pixels[0, :3], pixels[1, 0] = (1, 2, 3), (255, 255, 255)
    Image.fromarray(pixels).save(root / "masks" / "a.png")
    assert refusal(lambda: mask_of(root, palette=PALETTE)) == (
        f"mask {root / 'masks' / 'a.png'} has 2 colours that no class has, (1, 2, 3), (255, 255, 255) in 4 pixels; the "
        "palette has 4 colours; add theirs to it, or set unknown_colours: ignore (many colours that nearly fit come "
        "from a resized or lossy mask: export it again)"
    )
    labels = mask_of(root, palette=PALETTE, unknown_colours="ignore")
    assert (labels == 255).sum() == 4
    np.testing.assert_array_equal(labels[2:], random_labels()[2:])


def test_colour_mask__without_a_palette_is_refused(root: Path) -> None:
    colours(random_labels()).save(root / "masks" / "a.png")
    assert " is a mask of mode RGB; one channel of class indices " in refusal(lambda: mask_of(root))


@pytest.mark.parametrize(
    ("palette", "problem"),
    [
        (PALETTE[:2], "the config has 2 colours in palette for 4 classes; one for each is accepted"),
        ((*PALETTE[:3], PALETTE[0]), "palette has the colour (128, 64, 128) twice; each class needs one of its own"),
        ((*PALETTE[:3], (0, 0, 256)), "palette has a colour beyond 0..255"),
    ],
)
def test_palette__that_does_not_fit_is_refused(root: Path, palette: Any, problem: str) -> None:
    def action() -> object:
        return classes_of(FolderConfig.parse({"root": root, "classes": CLASSES, "palette": palette}))

    with pytest.raises((DataError, ConfigError)) as caught:
        action()
    assert problem in str(caught.value)


def test_sixteen_bits__reach_classes_beyond_255(root: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 1000, SIZE).astype(np.uint16)
    Image.fromarray(labels).save(root / "masks" / "a.png")
    facts = {"classes": 1000, "ignore_index": 65535}
    np.testing.assert_array_equal(mask_of(root, **facts), labels)
    sample = FolderDataset(FolderConfig.parse({"root": root, **facts}))[0]
    assert sample.ignore_index == 65535


@pytest.mark.parametrize("value", [70000, -3])
def test_number__beyond_16_bits_is_refused(root: Path, value: int) -> None:
    (root / "classes.json").unlink()
    labels = random_labels().astype(np.int32)
    labels[0, 0] = value
    np.save(root / "masks" / "a.npy", labels)
    assert refusal(lambda: mask_of(root)).startswith(
        f"mask {root / 'masks' / 'a.npy'} holds {value}; class numbers of 0 to 65535 are accepted; "
    )


def test_ignore_values__stand_for_no_class(root: Path) -> None:
    labels = random_labels()
    labels[0, :4] = (200, 201, 255, 3)
    grey(labels).save(root / "masks" / "a.png")
    found = mask_of(root, ignore_values=[200, 201, 3])
    np.testing.assert_array_equal(found, np.where(labels >= 3, 255, labels))
    (root / "classes.json").unlink()
    np.testing.assert_array_equal(mask_of(root, ignore_values=[200, 201, 3]), np.where(labels >= 3, 255, labels))


# Merging, renaming and dropping


@pytest.mark.parametrize(
    ("merge", "drop", "names", "final"),
    [
        ({"vehicle": ["bus", "car"]}, [], ("road", "vehicle", "sky"), (0, 1, 1, 2)),
        ({"street": ["road"]}, [], ("street", "car", "bus", "sky"), (0, 1, 2, 3)),
        ({"car": ["bus"]}, [], ("road", "car", "sky"), (0, 1, 1, 2)),
        ({}, ["road"], ("car", "bus", "sky"), (255, 0, 1, 2)),
        ({"all": ["road", "sky"]}, ["car"], ("all", "bus"), (0, 255, 1, 0)),
    ],
)
def test_classes__are_merged_renamed_and_dropped(
    root: Path, merge: dict[str, list[str]], drop: list[str], names: tuple[str, ...], final: tuple[int, ...]
) -> None:
    labels = random_labels()
    labels[0, 0] = 255
    grey(labels).save(root / "masks" / "a.png")
    dataset = FolderDataset(FolderConfig.parse({"root": root, "merge": merge, "drop": drop}))
    assert dataset.classes is not None
    assert dataset.classes.names == names
    expected = np.full(256, 255)
    expected[:4] = final
    np.testing.assert_array_equal(dataset[0].labels, expected[labels])
    assert classes_of(dataset.config) == dataset.classes


@pytest.mark.parametrize(
    ("merge", "drop", "problem"),
    [
        ({"vehicle": ["cat"]}, [], "merge or drop names class 'cat'; did you mean 'car'?"),
        ({"a": ["car"], "b": ["car"]}, [], "merge or drop names class 'car' twice; each class may go to one place"),
        ({"a": ["car"]}, ["car"], "merge or drop names class 'car' twice; each class may go to one place"),
        ({"a": []}, [], "merge has no class for 'a'; list the classes that it is made of"),
        ({}, list(CLASSES), "drop names every class; one at least must stay"),
    ],
)
def test_merging__of_what_is_not_there_is_refused(merge: dict[str, list[str]], drop: list[str], problem: str) -> None:
    assert refusal(lambda: merge_classes(ClassTable(CLASSES), merge, drop), ConfigError) == problem


def test_merging__needs_names(root: Path) -> None:
    (root / "classes.json").unlink()
    grey(random_labels()).save(root / "masks" / "a.png")
    assert refusal(lambda: mask_of(root, drop=["car"]), ConfigError).startswith(
        "merge or drop is set but the classes have no names;"
    )


def test_merging__keeps_the_views_and_colours_that_still_fit() -> None:
    views = {"classes2": (("ground", "rest"), (0, 1, 1, 255)), "classes3": (("a", "b", "c"), (0, 1, 2, 2))}
    table, _ = merge_classes(ClassTable(CLASSES, views=views, palette=PALETTE), {"vehicle": ["car", "bus"]})
    assert table.views == {"classes2": (("ground", "rest"), (0, 1, 255))}
    assert table.palette == (PALETTE[0], PALETTE[1], PALETTE[3])


def test_rule__refuses_a_number_that_its_ids_lack() -> None:
    rule = LabelRule(ClassTable(CLASSES), ids={7: 0, 26: 1, 28: 2, 23: 3}, ignored=(0,))
    np.testing.assert_array_equal(rule(np.array([[7, 26], [0, 255]], np.int32), "m"), [[0, 1], [255, 255]])
    assert refusal(lambda: rule(np.array([[7, 8, 300]], np.int32), "m.png")) == (
        "mask m.png holds 8, 300, which no class of this data set has; its masks have 4 numbers from 7 to 28 and 255; "
        "check that it is of this data set"
    )


# Polygons and run lengths


def inside(points: NDArray[np.float64], x: float, y: float) -> bool:
    """The even-odd rule, edge by edge."""
    odd = False
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            odd = not odd
    return odd


@pytest.mark.parametrize("seed", range(12))
def test_polygon__has_the_pixels_whose_centre_lies_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-4, 20, (rng.integers(3, 12), 2))
    canvas = np.zeros(SIZE, np.int32)
    fill_polygon(canvas, points, 5)
    expected = [[5 * inside(points, x + 0.5, y + 0.5) for x in range(SIZE[1])] for y in range(SIZE[0])]
    np.testing.assert_array_equal(canvas, expected)


def test_polygon__of_whole_pixels_is_exact() -> None:
    canvas = np.zeros(SIZE, np.int32)
    fill_polygon(canvas, np.array([[2.0, 3.0], [5.0, 3.0], [5.0, 7.0], [2.0, 7.0]]), 1)
    expected = np.zeros(SIZE, np.int32)
    expected[3:7, 2:5] = 1
    np.testing.assert_array_equal(canvas, expected)


def test_polygons__that_share_an_edge_share_no_pixel() -> None:
    canvas = np.zeros(SIZE, np.int32)
    a, b, c, d = np.array([1.2, 1.7]), np.array([13.1, 2.3]), np.array([12.4, 10.9]), np.array([2.8, 9.6])
    fill_polygon(canvas, np.array([a, b, c, d]), 1)
    whole = canvas.sum()
    parts = []
    for triangle in ([a, b, c], [a, c, d]):
        part = np.zeros(SIZE, np.int32)
        fill_polygon(part, np.array(triangle), 1)
        parts.append(part)
    assert parts[0].sum() + parts[1].sum() == whole
    assert not (parts[0] & parts[1]).any()


def runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs down the columns, zeros first."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths


def compress(counts: list[int]) -> str:
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | 32 * more))
    return text


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths__of_both_kinds_are_decoded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((6, 5)) < 0.5, np.ones((1 + 40 * (seed % 2), 3))).astype(bool)
    counts = runs(mask)
    for form in (counts, compress(counts), compress(counts).encode()):
        np.testing.assert_array_equal(decode_rle(form, mask.shape, "m"), mask)


def test_run_lengths__of_a_known_text() -> None:
    """6 x 1: two zeros, three ones, one zero is "231" in five-bit characters."""
    np.testing.assert_array_equal(decode_rle("231", (6, 1), "m").ravel(), [0, 0, 1, 1, 1, 0])


@pytest.mark.parametrize(
    "counts",
    [[3, 4], [-1, 193], "zz", [], [[1]], ["a"], "2\x7f", "o" * 40, [1e300], [2**63 - 1, 2**63 - 1, 194]],
)
def test_run_lengths__that_do_not_fit_are_refused(counts: Any) -> None:
    assert "m has run lengths" in refusal(lambda: decode_rle(counts, SIZE, "m"))


# COCO


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def coco(annotations: list[dict[str, Any]], **over: Any) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "train/a.png", "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 9, "name": "bus"}, {"id": 2, "name": "car"}],
        "annotations": [{"id": i, "image_id": 5, **annotation} for i, annotation in enumerate(annotations)],
        **over,
    }


def write_coco(root: Path, data: Any) -> dict[str, Any]:
    path = root / "annotations.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return {"images": root / "images", "masks": path}


def draw_coco(root: Path, annotations: list[dict[str, Any]], **facts: Any) -> NDArray[np.int32]:
    places = write_coco(root, coco(annotations))
    labels = FolderDataset(FolderConfig.parse({**places, **facts}))[0].labels
    assert labels is not None
    return labels


def test_coco__draws_small_instances_on_large_ones(root: Path) -> None:
    small = {"category_id": 2, "segmentation": [square(3, 3, 2)]}
    large = {"category_id": 9, "segmentation": [square(1, 1, 8)], "area": 1}
    expected = np.full(SIZE, 255)
    expected[1:9, 1:9], expected[3:5, 3:5] = 1, 0
    for order in ([small, large], [large, small]):
        np.testing.assert_array_equal(draw_coco(root, order), expected)


def test_coco__draws_later_instances_on_equal_ones(root: Path) -> None:
    pair = [{"category_id": c, "segmentation": [square(2, 2, 3)]} for c in (2, 9)]
    assert draw_coco(root, pair)[3, 3] == 1
    assert draw_coco(root, pair[::-1])[3, 3] == 0


def test_coco__takes_all_parts_of_an_instance_and_passes_over_points(root: Path) -> None:
    parts = [square(0, 0, 2), square(6, 6, 3), [1.0, 1.0], [4.0, 4.0, 5.0, 5.0]]
    labels = draw_coco(root, [{"category_id": 2, "segmentation": parts}])
    assert (labels == 0).sum() == 4 + 9


def test_coco__takes_run_lengths_and_ignores_a_crowd(root: Path) -> None:
    mask = np.zeros(SIZE, bool)
    mask[2:10, 4:12] = True
    crowd = {"category_id": 9, "iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": runs(mask)}}
    one = {"category_id": 9, "segmentation": {"size": list(SIZE), "counts": compress(runs(mask))}}
    inner = {"category_id": 2, "segmentation": [square(5, 5, 2)]}
    labels = draw_coco(root, [inner, crowd], classes=["background", "car", "bus"], background="background")
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {0: 192 - 64, 1: 4, 255: 60}
    np.testing.assert_array_equal(draw_coco(root, [one]) == 1, mask)


def test_coco__classes_are_the_categories_by_id_or_by_the_names_given(root: Path) -> None:
    places = write_coco(root, coco([{"category_id": 9, "segmentation": [square(0, 0, 4)]}]))
    by_id = FolderDataset(FolderConfig.parse(places))
    with_background = FolderDataset(FolderConfig.parse({**places, "background": "other"}))
    named = FolderDataset(FolderConfig.parse({"root": root, "masks": places["masks"], "images": root / "images"}))
    tables = [dataset.classes for dataset in (by_id, with_background, named)]
    assert [table.names for table in tables if table is not None] == [("car", "bus"), ("other", "car", "bus"), CLASSES]
    assert [int(d.labels(0)[0, 0]) for d in (by_id, with_background, named)] == [1, 2, 2]
    assert [int(d.labels(0)[11, 15]) for d in (by_id, with_background, named)] == [255, 0, 255]
    assert classes_of(with_background.config) == with_background.classes


@pytest.mark.parametrize(
    "name", ["annotations/val.json", "annotations/instances_val.json", "val.json", "annotations_val.json"]
)
def test_coco__is_found_where_it_usually_lies(tmp_path: Path, name: str) -> None:
    (tmp_path / "images" / "val").mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "images" / "val" / "a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps(coco([{"category_id": 2, "segmentation": [square(0, 0, 4)]}])))
    dataset = FolderDataset(FolderConfig(root=tmp_path, split="val"))
    assert dataset.masks == [tmp_path / name]
    assert int((dataset.labels(0) == 0).sum()) == 16


def test_coco__leaves_out_photos_that_it_does_not_list(root: Path) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(root / "images" / "b.png")
    dataset = FolderDataset(FolderConfig.parse(write_coco(root, coco([]))))
    assert [path.name for path in dataset.images] == ["a.png"]
    assert (dataset.labels(0) == 255).all()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not COCO's annotations (TypeError"),
        ({"images": []}, "is not COCO's annotations (KeyError: 'categories')"),
        (coco([], images=[{"id": 5, "file_name": "a.png", "height": 10**6, "width": 10**6}]), "gives a.png the size"),
        (coco([{"image_id": 77, "category_id": 2}]), "is not COCO's annotations (KeyError: 77)"),
        (coco([], categories=[{"id": 1, "name": "tram"}]), "has categories that the classes lack: tram"),
        (coco([], categories=[]), "has no categories; "),
        (coco([], images=[]), "lists none of the photos in"),
    ],
)
def test_coco__that_is_malformed_is_refused(root: Path, data: Any, problem: str) -> None:
    places = write_coco(root, data)
    message = refusal(lambda: FolderDataset(FolderConfig.parse({**places, "classes": CLASSES})))
    assert message.startswith(f"{places['masks']}")
    assert problem in message


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ({"category_id": 4, "segmentation": [square(0, 0, 2)]}, "annotation 0 has the category 4"),
        ({"category_id": 2}, "annotation 0 has no segmentation"),
        ({"category_id": 2, "segmentation": [["a", "b", "c", "d"]]}, "points that are not pairs of numbers"),
        ({"category_id": 2, "segmentation": [[1, 2, 3]]}, "has a shape with points of (3,)"),
        ({"category_id": 2, "segmentation": [[0, 0, 1e300, 0, 1, 1]]}, "has a shape with points of (3, 2)"),
        ({"category_id": 2, "segmentation": {"size": [3, 3], "counts": [9]}}, "annotation 0 is [3, 3] but its photo"),
        ({"category_id": 2, "segmentation": {"size": list(SIZE), "counts": [9]}}, "that do not add up to its size"),
    ],
)
def test_coco__with_a_malformed_annotation_is_refused(root: Path, annotation: dict[str, Any], problem: str) -> None:
    message = refusal(lambda: draw_coco(root, [annotation]))
    assert message.startswith(f"{root / 'annotations.json'}: annotation 0")
    assert problem in message


def test_coco__of_another_size_than_the_photo_is_refused(root: Path) -> None:
    places = write_coco(root, coco([], images=[{"id": 5, "file_name": "a.png", "height": 16, "width": 12}]))
    assert f"{root / 'images' / 'a.png'} is 12 x 16 but {places['masks']} is 16 x 12" in refusal(
        lambda: FolderDataset(FolderConfig.parse(places))[0]
    )


# labelme


def labelme(*shapes: dict[str, Any], **over: Any) -> dict[str, Any]:
    return {"imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": list(shapes), "imageData": None, **over}


def write_labelme(root: Path, data: Any) -> None:
    (root / "masks" / "a.json").write_text(data if isinstance(data, str) else json.dumps(data))


def test_labelme__draws_polygons_rectangles_and_circles_in_their_order(root: Path) -> None:
    write_labelme(
        root,
        labelme(
            {"label": "car", "points": [[0, 0], [8, 0], [8, 8], [0, 8]], "shape_type": "polygon"},
            {"label": "bus", "points": [[6, 6], [4, 4]], "shape_type": "rectangle"},
            {"label": "sky", "points": [[12, 6], [12, 8]], "shape_type": "circle"},
        ),
    )
    expected = np.zeros(SIZE, np.int32)
    expected[:8, :8], expected[4:6, 4:6] = 1, 2
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    expected[(rows - 6) ** 2 + (columns - 12) ** 2 <= 4] = 3
    np.testing.assert_array_equal(mask_of(root, background="road"), expected)
    np.testing.assert_array_equal(mask_of(root), np.where(expected == 0, 255, expected))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("nonsense", "is not valid JSON"),
        ({"shapes": []}, "is not a file of labelme (KeyError: 'imageHeight')"),
        (labelme(imageHeight=float("inf")), "is not a file of labelme (OverflowError"),
        (labelme(imageHeight=0), "gives the size 0 x 16"),
        (labelme({"label": "tram", "points": [[0, 0], [1, 0], [1, 1]]}), "has a shape 'tram' but the classes are road"),
        (labelme({"label": "car", "points": [[0, 0]], "shape_type": "point"}), "has a shape with points of (1, 2)"),
        (labelme({"label": "car", "points": [[0, 0], [1, 1]], "shape_type": "line"}), "has a shape of kind 'line'"),
        (labelme({"label": "car", "points": [[0, 0], [1, None], [2, 2]]}), "finite pairs"),
        (labelme({"label": "car", "points": "abc"}), "has points that are not pairs of numbers"),
    ],
)
def test_labelme__that_is_malformed_is_refused(root: Path, data: Any, problem: str) -> None:
    write_labelme(root, data)
    message = refusal(lambda: mask_of(root))
    assert message.startswith(str(root / "masks" / "a.json"))
    assert problem in message


def test_labelme__needs_the_names_of_the_classes(root: Path) -> None:
    (root / "classes.json").unlink()
    write_labelme(root, labelme())
    assert refusal(lambda: mask_of(root)).startswith(f"{root / 'masks'} has files of labelme, but the classes are not")


def test_background__that_is_no_class_is_refused(root: Path) -> None:
    write_labelme(root, labelme())
    assert refusal(lambda: mask_of(root, background="wall")).startswith(
        "background is 'wall' but the classes are road, car, bus, sky; one of them is accepted"
    )


def test_ignore_value__may_be_negative(root: Path) -> None:
    labels = random_labels().astype(np.int32)
    labels[0, :2] = -1
    np.save(root / "masks" / "a.npy", labels)
    facts = {"classes": CLASSES, "ignore_index": -1}
    np.testing.assert_array_equal(mask_of(root, **facts), labels)
    labels[0, 0] = 4
    np.save(root / "masks" / "a.npy", labels)
    assert "holds class 4 but the data set has 4 classes" in refusal(lambda: mask_of(root, **facts))
    labels[0, 0] = -2
    np.save(root / "masks" / "a.npy", labels)
    assert "holds -2; class numbers of 0 to 65535 are accepted" in refusal(lambda: mask_of(root, **facts))


@pytest.mark.parametrize(("facts", "name"), [({}, "class 255"), ({"reduce_zero_label": True}, "class 254")])
def test_ignore_value__that_is_also_a_class_is_refused(root: Path, facts: dict[str, Any], name: str) -> None:
    grey(random_labels()).save(root / "masks" / "a.png")
    assert refusal(lambda: mask_of(root, classes=300, **facts), ConfigError) == (
        f"ignore_index 255 is also the number of class '{name}' in the masks; set ignore_index to a number beyond them"
    )
