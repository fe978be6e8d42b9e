"""Masks that are drawn from shapes: polygons, run lengths, COCO, labelme."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig, FolderDataset, classes_of
from densevit.data.polygons import NoShape, fill_polygon, fill_runs, run_lengths
from tests.one_mask import CLASSES, SIZE, mask_of, refusal, write_root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path)


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


def decoded(counts: Any, size: tuple[int, ...]) -> NDArray[np.bool_]:
    canvas = np.zeros(size, np.int32)
    fill_runs(canvas, run_lengths(counts, (size[0], size[1])), 1)
    return canvas == 1


@pytest.mark.parametrize("seed", range(6))
def test_run_lengths__of_both_kinds_are_decoded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.random((6, 5)) < 0.5, np.ones((1 + 40 * (seed % 2), 3))).astype(bool)
    counts = runs(mask)
    for form in (counts, compress(counts), compress(counts).encode()):
        np.testing.assert_array_equal(decoded(form, mask.shape), mask)


def test_run_lengths__of_a_known_text() -> None:
    """6 x 1: two zeros, three ones, one zero is "231" in five-bit characters."""
    np.testing.assert_array_equal(decoded("231", (6, 1)).ravel(), [0, 0, 1, 1, 1, 0])


@pytest.mark.parametrize(
    "counts",
    [
        *([3, 4], [-1, 193], "zz", [], [[1]], ["a"], "2\x7f", "o" * 40, [1e300], [2**63 - 1, 2**63 - 1, 194]),
        *([0.5, 191.5], [10**400], None, {}, "", float("nan"), "~" * 9),
    ],
)
def test_run_lengths__that_do_not_fit_are_refused(counts: Any) -> None:
    with pytest.raises(NoShape, match="run lengths"):
        run_lengths(counts, SIZE)


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
    return draw_coco_file(root, coco(annotations), **facts)


def draw_coco_file(root: Path, data: dict[str, Any], **facts: Any) -> NDArray[np.int32]:
    labels = FolderDataset(FolderConfig.parse({**write_coco(root, data), **facts}))[0].labels
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


def coco_of_two_folders(*names: str) -> dict[str, Any]:
    """Annotations of photos of one name: the first all car, the second all bus."""
    images = [{"id": i, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for i, name in enumerate(names)]
    whole = [[0, 0, SIZE[1], 0, SIZE[1], SIZE[0], 0, SIZE[0]]]
    annotations = [{"image_id": i, "category_id": (2, 9)[i], "segmentation": whole} for i in range(len(names))]
    return coco(annotations, images=images)


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("train/a.png", "images/a.png"), 1),
        (("images/a.png", "train/a.png"), 0),
        (("a.png", "images/a.png"), 1),
        (("./images/a.png", "a.png"), 0),
        (("train\\a.png", "images\\a.png"), 1),
        (("train\\a.png",), 0),
    ],
)
def test_coco__of_several_folders_gives_the_photo_of_this_one(root: Path, names: tuple[str, ...], label: int) -> None:
    assert (draw_coco_file(root, coco_of_two_folders(*names)) == label).all()


def test_coco__that_lists_a_photo_twice_is_refused_where_the_folder_does_not_tell(root: Path) -> None:
    message = refusal(lambda: draw_coco_file(root, coco_of_two_folders("train/a.png", "val/a.png")))
    assert message.startswith(f"{root / 'annotations.json'} lists a.png 2 times (train/a.png, val/a.png), and")


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[]", "is not COCO's annotations (it holds a list)"),
        ("null", "is not COCO's annotations (it holds a NoneType)"),
        ({"images": []}, "is not COCO's annotations (it has no list categories)"),
        ({**coco([]), "annotations": {}}, "is not COCO's annotations (it has no list annotations)"),
        (coco([], images=[None]), "has the image None; an id and a file_name are accepted"),
        (coco([], images=[{"id": 5}]), "has the image {'id': 5}; an id and a file_name are accepted"),
        (coco([], images=[{"id": [], "file_name": "a.png"}]), "an id and a file_name are accepted"),
        (coco([], images=[{"id": 5, "file_name": "a.png", "height": 10**6, "width": 10**6}]), "gives the size"),
        (coco([], images=[{"id": 5, "file_name": "a.png", "height": 0, "width": 16}]), "gives the size 0 x 16"),
        (coco([], images=[{"id": 5, "file_name": "a.png", "height": "x", "width": 16}]), "invalid literal"),
        (coco([], images=[{"id": 5, "file_name": n} for n in ("a.png", "b.png")]), "has the image id 5 twice"),
        (coco([], categories=[{"id": 1, "name": "tram"}]), "has categories that the classes lack: tram"),
        (coco([], categories=[{"id": 1, "name": n} for n in ("car", "bus")]), "has the category 1 twice"),
        (coco([], categories=[{"id": 1}]), "has the category {'id': 1}; an id and a name are accepted"),
        (coco([], categories=[]), "has no categories; "),
        (coco([], images=[]), "lists none of the photos in"),
    ],
)
def test_coco__that_is_damaged_is_refused(root: Path, data: Any, problem: str) -> None:
    places = write_coco(root, data)
    message = refusal(lambda: FolderDataset(FolderConfig.parse({**places, "classes": CLASSES})))
    assert message.startswith(f"{places['masks']}")
    assert problem in message
    assert "Error" not in message


GOOD = {"category_id": 2, "segmentation": [square(8, 8, 2)]}
WHOLE = {"size": list(SIZE), "counts": [0, 192]}

NOT_DRAWN: list[tuple[Any, str]] = [
    (None, "not an annotation"),
    ({"image_id": 77, "category_id": 2, "segmentation": [square(0, 0, 2)]}, "of an image that is not listed"),
    ({"image_id": [5], "category_id": 2, "segmentation": [square(0, 0, 2)]}, "of an image that is not listed"),
    ({"category_id": 4, "segmentation": [square(0, 0, 2)]}, "of a category that is not listed"),
    ({"category_id": {}, "segmentation": [square(0, 0, 2)]}, "of a category that is not listed"),
    ({"segmentation": [square(0, 0, 2)]}, "of a category that is not listed"),
    ({"category_id": 2}, "without an outline"),
    ({"category_id": 2, "segmentation": None}, "without an outline"),
    ({"category_id": 2, "segmentation": 7}, "without an outline"),
    ({"category_id": 2, "segmentation": [], "bbox": [0, 0, 3, 3]}, "without an outline, only a box"),
    ({"category_id": 2, "segmentation": [[]]}, "empty, or only points or a line, without an area"),
    ({"category_id": 2, "segmentation": [[4, 4]]}, "empty, or only points or a line, without an area"),
    ({"category_id": 2, "segmentation": [[4, 4, 8, 8]]}, "empty, or only points or a line, without an area"),
    ({"category_id": 2, "segmentation": [[4, 4, 8, 8, 6, 6]]}, "empty, or only points or a line, without an area"),
    ({"category_id": 2, "segmentation": {"size": list(SIZE), "counts": [192]}}, "empty, or only points or a line"),
    ({"category_id": 2, "segmentation": [["a", "b", "c", "d"]]}, "with points that are not pairs of numbers"),
    ({"category_id": 2, "segmentation": [None]}, "with points that are not finite pairs"),
    ({"category_id": 2, "segmentation": [[1, 2, 3]]}, "with points that are not finite pairs"),
    ({"category_id": 2, "segmentation": [[0, 0, 1e300, 0, 1, 1]]}, "with points that are not finite pairs"),
    ({"category_id": 2, "segmentation": [[0, 0, None, 0, 1, 1]]}, "with points that are not finite pairs"),
    ({"category_id": 2, "segmentation": {"size": [3, 3], "counts": [0, 9]}}, "with run lengths of another size than"),
    (
        {"category_id": 2, "segmentation": {"size": [10**6] * 2, "counts": [10**12]}},
        "with run lengths of another size than",
    ),
    ({"category_id": 2, "segmentation": {"counts": [0, 192]}}, "with run lengths without a size"),
    ({"category_id": 2, "segmentation": {"size": list(SIZE), "counts": [0, 9]}}, "with run lengths that do not fill"),
    ({"category_id": 2, "segmentation": {"size": list(SIZE)}}, "with run lengths that do not fill"),
]


@pytest.mark.parametrize(("annotation", "reason"), NOT_DRAWN)
def test_coco__passes_over_what_has_no_area_and_says_so(
    root: Path, annotation: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = coco([GOOD])
    data["annotations"].append({"id": "x7", "image_id": 5, **annotation} if annotation else annotation)
    labels = draw_coco_file(root, data)
    assert (labels == 0).sum() == 4
    assert (labels == 255).sum() == 192 - 4
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{root / 'annotations.json'}: 1 of 2 annotations are passed over: 1 {reason}")
    assert warning.endswith("(such as annotation x7)" if annotation else "(such as annotation number 1)")


@pytest.mark.parametrize("annotation", [annotation for annotation, _ in NOT_DRAWN])
def test_coco__of_which_nothing_can_be_drawn_is_refused(root: Path, annotation: Any) -> None:
    data = {**coco([]), "annotations": [{"id": 1, "image_id": 5, **annotation} if annotation else annotation]}
    message = refusal(lambda: draw_coco_file(root, data))
    assert message.startswith(f"{root / 'annotations.json'} has 1 annotations, of which none can be drawn: 1 ")


def test_coco__ignores_the_box_of_an_annotation_without_outline(root: Path) -> None:
    box = {"category_id": 9, "segmentation": [], "bbox": [6, 6, 4, 4]}
    labels = draw_coco(root, [GOOD, box], background="other")
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {0: 192 - 16, 1: 4, 255: 12}


@pytest.mark.parametrize(
    "outline",
    [
        square(2, 3, 4),
        [[2, 3], [6, 3], [6, 7], [2, 7]],
        [[[2, 3], [6, 3], [6, 7], [2, 7]]],
        [square(2, 3, 4), [1, 1]],
        [[-50, 3, 6, 3, 6, 7, -50, 7], square(2, 3, 4)],
    ],
)
def test_coco__takes_polygons_in_every_nesting(root: Path, outline: Any) -> None:
    labels = draw_coco(root, [{"category_id": 2, "segmentation": outline}])
    assert (labels[3:7, 2:6] == 0).all()
    assert (labels[:, 6:] == 255).all()


def test_coco__matches_ids_of_text_and_numbers(root: Path) -> None:
    data = coco([{**GOOD, "image_id": "5", "category_id": "2"}, {**GOOD, "image_id": 5.0, "category_id": 9.0}])
    assert draw_coco_file(root, data)[8, 8] == 1
    data["categories"] = [{"id": "b", "name": "bus"}, {"id": "a", "name": "car"}]
    data["annotations"] = [{**GOOD, "image_id": 5, "category_id": "b"}]
    assert draw_coco_file(root, data)[8, 8] == 1


def test_coco__of_lvis_names_photos_by_their_address(root: Path) -> None:
    images = [{"id": 5, "coco_url": "http://images.example/train2017/a.png", "height": SIZE[0], "width": SIZE[1]}]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 1204)]
    annotation = {"category_id": 1203, "segmentation": [square(8, 8, 2)]}
    (root / "classes.json").unlink()
    labels = draw_coco_file(root, coco([annotation], images=images, categories=categories))
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {1202: 4, 65535: 188}


@pytest.mark.parametrize("mark", [0, None, [], {}, "no", [1]])
def test_coco__takes_any_other_mark_than_1_for_an_object(root: Path, mark: Any) -> None:
    assert (draw_coco(root, [{**GOOD, "iscrowd": mark}]) == 0).sum() == 4


@pytest.mark.parametrize("sides", [{}, {"height": None, "width": None}])
def test_coco__without_sizes_takes_that_of_the_photo(root: Path, sides: dict[str, Any]) -> None:
    images = [{"id": 5, "file_name": "a.png", **sides}]
    assert draw_coco_file(root, coco([GOOD], images=images)).shape == SIZE


def test_coco__of_crowds_alone_takes_them_as_objects(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    crowd = {"category_id": 9, "iscrowd": 1, "segmentation": WHOLE}
    assert (draw_coco(root, [crowd]) == 1).all()
    assert "all 1 annotations are crowds (iscrowd), so they are taken as objects" in caplog.text
    labels = draw_coco(root, [crowd, GOOD])
    assert {int(v): int((labels == v).sum()) for v in np.unique(labels)} == {0: 4, 255: 188}
    assert "bus only has crowds (iscrowd), which are ignored" in caplog.text


def test_coco__that_claims_a_huge_image_is_compared_with_the_photo_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The photo is small, so the mask must not be made."""
    images = [{"id": 5, "file_name": "a.png", "height": 30_000, "width": 30_000}]
    places = write_coco(root, coco([], images=images))
    dataset = FolderDataset(FolderConfig.parse(places))
    monkeypatch.setattr(np, "full", None)
    assert "both must have the same height and width" in refusal(lambda: dataset.labels(0))


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


def in_base64(mask: NDArray[np.uint8], mode: str = "L") -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask).convert(mode).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(("left", "top"), [(3, 2), (0, 0), (-2, -1), (13, 9), (40, 2), (3, -20)])
@pytest.mark.parametrize("scale", [1, 255])
def test_labelme__pastes_a_mask_where_its_box_begins(root: Path, left: int, top: int, scale: int) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (5, 6)).astype(np.uint8)
    shape = {
        "label": "car",
        "points": [[left, top], [left + 5, top + 4]],
        "shape_type": "mask",
        "mask": in_base64(mask * scale),
    }
    write_labelme(root, labelme(shape))
    expected = np.zeros(SIZE, np.int32)
    for y, x in np.argwhere(mask):
        if 0 <= y + top < SIZE[0] and 0 <= x + left < SIZE[1]:
            expected[y + top, x + left] = 1
    np.testing.assert_array_equal(mask_of(root, background="road"), expected)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (None, "has a mask that is not base64"),
        (7, "has a mask that is not base64"),
        ("%%%", "has a mask that is not base64"),
        ("AAAA", "is damaged or cut short"),
        (in_base64(np.zeros((3, 3), np.uint8))[:48], "is damaged or cut short"),
        (in_base64(np.zeros((3, 3), np.uint8), "RGB"), "is a mask of mode RGB"),
    ],
)
def test_labelme__with_a_mask_that_is_no_picture_is_refused(root: Path, mask: Any, problem: str) -> None:
    write_labelme(root, labelme({"label": "car", "points": [[0, 0], [2, 2]], "shape_type": "mask", "mask": mask}))
    message = refusal(lambda: mask_of(root))
    assert str(root / "masks" / "a.json") in message
    assert problem in message


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("nonsense", "is not valid JSON"),
        ("[]", "is not a file of labelme (it holds a list)"),
        ({"imageHeight": 12}, "is not a file of labelme (it has no list shapes)"),
        (labelme(imageHeight=float("inf")), "is not valid JSON (a number is Infinity"),
        (labelme(imageHeight=12.5), "imageHeight or imageWidth is 12.5 instead of a whole number"),
        (labelme(imageHeight=10**6, imageWidth=10**6), "gives the size 1000000 x 1000000, and up to"),
        (labelme(imageHeight=0), "gives the size 0 x 16"),
        (labelme({"label": "tram", "points": [[0, 0], [1, 0], [1, 1]]}), "has a shape 'tram' but the classes are road"),
    ],
)
def test_labelme__that_is_malformed_is_refused(root: Path, data: Any, problem: str) -> None:
    write_labelme(root, data)
    message = refusal(lambda: mask_of(root))
    assert message.startswith(str(root / "masks" / "a.json"))
    assert problem in message


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"label": "car", "points": [[0, 0]], "shape_type": "point"}, "of kind 'point', which has no area"),
        ({"label": "car", "points": [[0, 0], [1, 1]], "shape_type": "line"}, "of kind 'line', which has no"),
        ({"label": "car", "points": [[0, 0], [1, 1]], "shape_type": 7}, "without a kind"),
        ({"label": "car", "points": [[0, 0], [1, 1]], "shape_type": [7]}, "without a kind"),
        ({"label": "car", "points": [[0, 0], [1, 1]]}, "with too few points for an area"),
        ({"label": "car", "points": [[0, 0], [1, 1], [2, 2]]}, "with too few points for an area"),
        ({"label": "car", "points": [[0, 0]], "shape_type": "circle"}, "with too few points for an area"),
        ({"label": "car", "points": []}, "with points that are not finite pairs|with too few points"),
        ({"label": "car", "points": None}, "with points that are not finite pairs"),
        ({"label": "car", "points": [[0, 0], [1, None], [2, 2]]}, "with points that are not finite pairs"),
        ({"label": "car", "points": "abc"}, "with points that are not pairs of numbers"),
        ({"points": [[0, 0], [8, 0], [8, 8]]}, "without a label"),
        (None, "without a label"),
    ],
)
def test_labelme__passes_over_what_has_no_area_and_says_so(
    root: Path, shape: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"label": "car", "points": [[0, 0], [8, 0], [8, 8], [0, 8]]}
    write_labelme(root, labelme(good, shape))
    assert (mask_of(root) == 1).sum() == 64
    (warning,) = [record.getMessage() for record in caplog.records]
    assert any(f"1 of 2 shapes are passed over: 1 {part}" in warning for part in reason.split("|"))
    assert "shape 1 of a.json" in warning


def test_labelme__takes_a_rectangle_of_four_corners(root: Path) -> None:
    corners = [[2, 3], [6, 3], [6, 7], [2, 7]]
    write_labelme(root, labelme({"label": "car", "points": corners, "shape_type": "rectangle"}))
    assert (mask_of(root) == 1).sum() == 16


def test_labelme__without_a_size_takes_that_of_the_photo(root: Path) -> None:
    write_labelme(root, labelme(imageHeight=None))
    assert mask_of(root).shape == SIZE


@pytest.mark.parametrize("note", ["meta.json", "_annotations.coco.json", "b.json"])
def test_note__among_masks_does_not_make_them_labelmes(root: Path, note: str) -> None:
    Image.fromarray(np.ones(SIZE, np.uint8)).save(root / "masks" / "a.png")
    (root / "masks" / note).write_text("{}")
    assert (mask_of(root) == 1).all()


def test_labelme__may_lie_beside_its_photos(root: Path) -> None:
    (root / "images" / "a.json").write_text(json.dumps(labelme()))
    assert (mask_of(root, masks=root / "images", images=root / "images") == 255).all()


def test_labelme__needs_the_names_of_the_classes(root: Path) -> None:
    (root / "classes.json").unlink()
    write_labelme(root, labelme())
    assert refusal(lambda: mask_of(root)).startswith(f"{root / 'masks'} has files of labelme, but the classes are not")


def test_background__that_is_no_class_is_refused(root: Path) -> None:
    write_labelme(root, labelme())
    assert refusal(lambda: mask_of(root, background="wall")).startswith(
        "background is 'wall' but the classes are road, car, bus, sky; one of them is accepted"
    )
