"""Palettes that tell classes apart, and pictures made with them."""

import numpy as np
import pytest

from densevit.errors import DataError, ShapeError
from densevit.tasks.palettes import default_palette, palette_for
from densevit_runtime.colour import (
    Rgb,
    colourise_depth,
    colourise_labels,
    draw_edges,
    overlay,
)

STREETS = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
ROOMS = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip
PALETTE = ((10, 20, 30), (200, 100, 0), (0, 255, 0))


def _cielab(colour: Rgb) -> np.ndarray:
    """CIE 1976 L*a*b* of an sRGB colour, D65: another space than the one the palettes are made in."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = [sum(m * c for m, c in zip(row, linear, strict=True)) for row in to_xyz]
    x, y, z = (
        t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29
        for t in (v / w for v, w in zip(xyz, (0.9505, 1.0, 1.089), strict=True))
    )
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _closest_pair(palette: tuple[Rgb, ...]) -> float:
    labs = [_cielab(colour) for colour in palette]
    return min(float(np.linalg.norm(a - b)) for i, a in enumerate(labs) for b in labs[:i])


@pytest.mark.parametrize(("num_classes", "least"), [(8, 25.0), (19, 15.0), (40, 12.0), (150, 5.0), (256, 3.5)])
def test_default_palette__tells_all_classes_apart(num_classes: int, least: float):
    assert _closest_pair(default_palette(num_classes)) > least  # a difference of 2.3 is just noticeable


def test_default_palette__begins_with_the_shorter_one():
    assert default_palette(256)[:13] == default_palette(13)


def test_default_palette__holds_plain_bytes():
    flat = [part for colour in default_palette(256) for part in colour]
    assert {type(part) for part in flat} == {int}
    assert 0 <= min(flat) <= max(flat) <= 255


def test_default_palette__keeps_away_from_the_black_of_ignored_pixels():
    assert min(_cielab(colour)[0] for colour in default_palette(256)) > 35


def test_default_palette__is_empty_for_no_classes():
    assert default_palette(0) == ()


def test_default_palette__has_different_colours_for_a_thousand_classes_and_then_repeats():
    assert len(set(default_palette(1203))) == 1203
    palette = default_palette(6000)
    assert palette[:1203] == default_palette(1203)
    assert len(palette) == 6000
    assert len(set(palette)) > 4000


@pytest.mark.parametrize("names", [STREETS, ROOMS])
def test_palette_for__tells_known_classes_apart(names: tuple[str, ...]):
    assert _closest_pair(palette_for(names)) > 15


def test_palette_for__gives_natural_hues():
    sky, tree, pedestrian = palette_for(("sky", "tree", "pedestrian"))
    assert (np.argmax(sky), np.argmax(tree), np.argmax(pedestrian)) == (2, 1, 0)


def test_palette_for__gives_a_class_its_colour_in_every_list():
    assert palette_for(("road", "Sky "))[1] == palette_for(STREETS)[0]


def test_palette_for__keeps_unknown_classes_away_from_known_ones():
    palette = palette_for((*ROOMS, *(f"unknown {i}" for i in range(20))))
    assert palette[:13] == palette_for(ROOMS)
    assert _closest_pair(palette) > 12


def test_palette_for__gives_a_name_that_stands_twice_two_colours():
    assert len(set(palette_for(("sky", "sky")))) == 2


def test_palette_for__unknown_names_get_the_default_palette():
    assert palette_for(("a", "b", "c")) == default_palette(3)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_colourise_labels__looks_every_label_up(kind: type):
    labels = np.array([[0, 1, 2], [2, 255, 0]], kind)
    picture = colourise_labels(labels, PALETTE)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [
        [[10, 20, 30], [200, 100, 0], [0, 255, 0]],
        [[0, 255, 0], [0, 0, 0], [10, 20, 30]],
    ]


def test_colourise_labels__shows_ignored_pixels_black_with_a_full_palette():
    picture = colourise_labels(np.array([[254, 255]], np.uint8), default_palette(256))
    assert picture.tolist() == [[list(default_palette(256)[254]), [0, 0, 0]]]


def test_colourise_labels__takes_a_negative_ignore_index():
    assert colourise_labels(np.array([[-1, 0]]), PALETTE, ignore_index=-1).tolist() == [[[0, 0, 0], [10, 20, 30]]]


@pytest.mark.parametrize("label", [3, -1])
def test_colourise_labels__refuses_an_id_out_of_range(label: int):
    with pytest.raises(DataError) as caught:
        colourise_labels(np.array([[0, label]]), PALETTE)
    assert str(caught.value) == (
        f"labels hold class id {label} but the palette has the ids 0..2 and ignore_index is 255; "
        "pass the palette of the model that made the labels"
    )


def test_colourise_labels__refuses_scores():
    with pytest.raises(DataError, match="labels are float64 but integer class ids are accepted"):
        colourise_labels(np.zeros((2, 2)), PALETTE)


def test_colourise_labels__refuses_a_batch():
    with pytest.raises(ShapeError, match=r"labels have the shape \(1, 2, 2\) but \(H, W\) is accepted"):
        colourise_labels(np.zeros((1, 2, 2), int), PALETTE)


def test_colourise_depth__gets_evenly_lighter_towards_the_near():
    ramp = np.linspace(9, 1, 9)[None]
    lightness = [_cielab(tuple(colour))[0] for colour in colourise_depth(ramp, percentiles=(0, 100))[0].tolist()]
    steps = np.diff(lightness)
    assert steps.min() > 0.6 * steps.mean()


def test_colourise_depth__shows_disparity_the_other_way_round():
    ramp = np.linspace(1, 9, 33)[None]
    assert (colourise_depth(ramp, near="large") == colourise_depth(ramp)[:, ::-1]).all()


def test_colourise_depth__is_black_where_there_is_no_value():
    depth = np.array([[1.0, 2.0, 3.0, 0.0, np.nan, np.inf]])
    invalid = np.array([[False, True, False, False, False, False]])
    black = (colourise_depth(depth, invalid=invalid) == 0).all(axis=2)
    assert black.tolist() == [[False, True, False, True, True, True]]


def test_colourise_depth__takes_zero_disparity_as_far():
    assert colourise_depth(np.array([[0.0, 1.0]]), near="large").any(axis=2).all()


def test_colourise_depth__does_not_let_an_outlier_take_the_scale():
    depth = np.linspace(1, 2, 200)[None]
    spoilt = depth.copy()
    spoilt[0, 100] = 1e6
    change = np.abs(colourise_depth(spoilt).astype(int) - colourise_depth(depth).astype(int))
    assert np.delete(change, 100, axis=1).max() < 8


def test_colourise_depth__limits_give_two_pictures_one_scale():
    near, both = np.array([[1.0, 2.0]]), np.array([[1.0, 2.0, 8.0]])
    assert (colourise_depth(near, limits=(1, 8)) == colourise_depth(both, limits=(1, 8))[:, :2]).all()


@pytest.mark.parametrize("value", [3.0, 0.0, np.nan])
def test_colourise_depth__takes_a_flat_map(value: float):
    picture = colourise_depth(np.full((2, 3), value))
    assert (picture == picture[0, 0]).all()


def test_colourise_depth__refuses_a_mask_of_another_size():
    with pytest.raises(ShapeError, match=r"invalid and depth have the shapes \(1, 2\) and \(1, 3\)"):
        colourise_depth(np.ones((1, 3)), invalid=np.zeros((1, 2), bool))


def test_overlay__mixes_by_alpha():
    rng = np.random.default_rng(0)
    image, colours = (rng.integers(1, 256, (5, 6, 3), np.uint8) for _ in range(2))
    expected = 0.45 * image.astype(float) + 0.55 * colours.astype(float)
    assert np.abs(overlay(image, colours) - expected).max() <= 1.0


@pytest.mark.parametrize(("alpha", "value"), [(0.0, 200), (1.0, 40)])
def test_overlay__ends_are_exact(alpha: float, value: int):
    image, colours = np.full((2, 2, 3), 200, np.uint8), np.full((2, 2, 3), 40, np.uint8)
    assert (overlay(image, colours, alpha=alpha) == value).all()


def test_overlay__shows_the_photo_where_the_colours_are_black():
    image, colours = np.full((1, 2, 3), 200, np.uint8), np.array([[[0, 0, 0], [0, 90, 0]]], np.uint8)
    assert overlay(image, colours)[0, 0].tolist() == [200, 200, 200]


def test_overlay__leaves_its_inputs_alone():
    image, colours = np.full((2, 2, 3), 200, np.uint8), np.zeros((2, 2, 3), np.uint8)
    overlay(image, colours, labels=np.array([[0, 1], [1, 0]]))
    assert (image == 200).all()


def test_overlay__draws_edges_when_given_labels():
    image, colours = np.full((2, 2, 3), 200, np.uint8), np.full((2, 2, 3), 100, np.uint8)
    labels = np.array([[0, 1], [0, 1]])
    assert (overlay(image, colours, labels=labels) == draw_edges(overlay(image, colours), labels)).all()


def test_overlay__refuses_different_sizes():
    with pytest.raises(ShapeError) as caught:
        overlay(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3, 3), np.uint8))
    assert str(caught.value) == (
        "colours and image have the shapes (2, 3, 3) and (2, 2, 3) but must have one size; resize the colours first"
    )


def test_draw_edges__darkens_the_pixels_beside_a_boundary():
    labels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]])
    lined = draw_edges(np.full((3, 4, 3), 100, np.uint8), labels)
    assert lined[..., 0].tolist() == [[100, 35, 100, 100], [35, 35, 35, 35], [100, 100, 100, 100]]


@pytest.mark.parametrize(("size", "width"), [(719, 1), (720, 2), (1080, 3)])
def test_draw_edges__lines_grow_with_the_picture(size: int, width: int):
    labels = np.zeros((size, size), np.uint8)
    labels[:, size // 2 :] = 1
    assert (draw_edges(np.full((size, size, 3), 100, np.uint8), labels)[0, :, 0] == 35).sum() == width


def test_draw_edges__leaves_its_input_alone():
    picture = np.full((1, 2, 3), 100, np.uint8)
    draw_edges(picture, np.array([[0, 1]]))
    assert (picture == 100).all()


def test_draw_edges__takes_a_single_pixel():
    assert draw_edges(np.full((1, 1, 3), 7, np.uint8), np.zeros((1, 1), int)).tolist() == [[[7, 7, 7]]]
