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
from densevit.errors import ConfigError, DataError
from tests.one_mask import CLASSES, SIZE, mask_of, refusal, write_root

PALETTE = ((128, 64, 128), (0, 0, 142), (0, 60, 100), (70, 130, 180))


def random_labels(seed: int = 0, high: int = 4) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, high, SIZE, dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_root(tmp_path)


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


@pytest.mark.parametrize("odd", [0.5, np.nan, np.inf])
def test_array__of_other_than_whole_numbers_is_refused(root: Path, odd: float) -> None:
    labels = random_labels().astype(np.float32)
    labels[3, 4] = odd
    np.save(root / "masks" / "a.npy", labels)
    assert refusal(lambda: mask_of(root)) == (
        f"{root / 'masks' / 'a.npy'} holds float32 with fractions or NaN; class numbers are accepted; round them"
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
        "from a resized or lossy mask: export it again, or set nearest)"
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
        ((*PALETTE[:3], PALETTE[0]), "palette has the colour (128, 64, 128) twice; each class needs a different one"),
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
        ({}, list(CLASSES), "drop names every class; at least one must stay"),
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


@pytest.mark.parametrize(("facts", "name"), [({}, "class 280"), ({"reduce_zero_label": True}, "class 279")])
def test_ignore_value__that_is_also_a_class_is_refused(root: Path, facts: dict[str, Any], name: str) -> None:
    grey(random_labels()).save(root / "masks" / "a.png")
    assert refusal(lambda: mask_of(root, classes=300, ignore_index=280, **facts), ConfigError) == (
        f"ignore_index 280 is also the number of class '{name}' in the masks; set ignore_index to a number beyond them"
    )


@pytest.mark.parametrize(
    ("facts", "ignored"),
    [({"classes": 255}, 255), ({"classes": 255, "reduce_zero_label": True}, 65535), ({"classes": 256}, 65535)],
)
def test_ignore_value__is_65535_where_255_is_a_class(root: Path, facts: dict[str, Any], ignored: int) -> None:
    labels = np.full(SIZE, ignored, np.uint16)
    labels[0, 0] = 3
    Image.fromarray(labels).save(root / "masks" / "a.png")
    sample = FolderDataset(FolderConfig.parse({"root": root, **facts}))[0]
    assert sample.ignore_index == ignored
    assert sample.labels is not None
    assert (sample.labels == ignored).sum() == labels.size - 1


@pytest.mark.parametrize("value", [2_000_000_000, -(10**9), 10**400])
def test_ignore_index__beyond_the_budget_is_refused(root: Path, value: int) -> None:
    assert "set DENSEVIT_LIMITS=class_id=NUMBER" in refusal(lambda: LabelRule(None, ignore_index=value), ConfigError)


def test_ignore_values__may_be_far_beyond_the_classes(root: Path) -> None:
    labels = random_labels().astype(np.int32)
    labels[0, :2], labels[1, 0] = 2_000_000_000, -(2**31)
    np.save(root / "masks" / "a.npy", labels)
    found = mask_of(root, ignore_values=[2_000_000_000, -(2**31), 10**30])
    np.testing.assert_array_equal(found, np.where((labels < 0) | (labels > 9), 255, labels))
    assert "holds 2000000000; class numbers" in refusal(lambda: mask_of(root, ignore_values=[-(2**31)]))
