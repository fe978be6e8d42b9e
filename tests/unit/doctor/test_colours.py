"""Masks with colours: how they are drawn and counted."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from densevit.data import FolderConfig
from densevit.doctor.examine import Diagnosis, examine
from densevit.doctor.page import page
from densevit.doctor.palettes import class_colours, colour_shares
from densevit.doctor.pictures import legend, pictures
from densevit.doctor.report import as_record, tables
from densevit.tasks.palettes import palette_for
from densevit_runtime.colour import overlay
from tests.e2e.scenes import CLASSES
from tests.unit.doctor.data import classes, each, look, mask, photo
from tests.unit.doctor.faults import in_colours

PALETTE = [[10, 20, 30], [200, 50, 50], [0, 200, 0], [0, 0, 200]]


def drawn(diagnosis: Diagnosis, stem: str = "003") -> NDArray[np.uint8]:
    """The picture of a mask."""
    sample = next(sample for sample in diagnosis.context.samples if sample.stem == stem)
    uri = pictures(sample, diagnosis.context)[1][1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def with_palette(root: Path, colours: list[list[int]]) -> None:
    """Turn masks into palette images of these colours, and the last for ignored pixels."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    for path in sorted(root.glob("masks/*/*.png")):
        picture = Image.fromarray(np.asarray(Image.open(path)), "P")
        picture.putpalette(table.tobytes())
        picture.save(path)


def folders(root: Path, **facts: Any) -> Diagnosis:
    """Without a class list."""
    places = {"images": root / "images" / "train", "masks": root / "masks" / "train"}
    return examine(FolderConfig.parse(places | facts))


@pytest.mark.parametrize("known", [False, True])
def test_masks_in_colours__are_drawn_in_them(known: bool, root: Path) -> None:
    each(root, "masks", lambda m: in_colours(np.where(m == 255, 0, m)))
    if known:
        classes(root, palette=PALETTE)
    wanted = overlay(photo(3), in_colours(np.where(mask(3) == 255, 0, mask(3))))

    np.testing.assert_array_equal(drawn(look(root)), wanted)


def test_legend__has_the_colours_of_the_class_list(root: Path) -> None:
    classes(root, palette=PALETTE)

    assert legend(look(root).context) == [
        ("wall", "#0a141e"), ("red", "#c83232"), ("green", "#00c800"), ("blue", "#0000c8"),
    ]  # fmt: skip


def test_legend__has_the_colours_of_palette_masks(root: Path) -> None:
    with_palette(root, PALETTE)
    context = look(root).context

    assert class_colours(context) == tuple(map(tuple, PALETTE))
    wanted = overlay(photo(3), in_colours(mask(3)))
    np.testing.assert_array_equal(drawn(look(root))[mask(3) < 255], wanted[mask(3) < 255])


def test_palette__of_near_blacks_is_not_shown(root: Path) -> None:
    with_palette(root, [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]])

    assert class_colours(look(root).context) == palette_for(CLASSES)


def test_colours__without_names_are_counted(root: Path) -> None:
    each(root, "masks", in_colours)
    diagnosis = folders(root)
    row = colour_shares(diagnosis.context)[0]
    masks = [mask(seed) for seed in range(12)]

    assert (row.number, row.colour, row.masks) == (None, 0x0A141E, 12)
    assert row.share == pytest.approx(np.mean([m == 0 for m in masks]))
    assert as_record(diagnosis, "mine")["mask_colours"][0]["colour"] == "#0a141e"
    assert tables(diagnosis, "mine")[-1][2][0] == ("#0a141e", f"{row.share:.2%}", "12")
    assert "background:#0a141e" in page(diagnosis, "mine")


def test_palettes__without_names_are_counted_and_drawn(root: Path) -> None:
    with_palette(root, PALETTE)
    diagnosis = folders(root)

    assert next((row.number, row.colour) for row in colour_shares(diagnosis.context)) == (0, 0x0A141E)
    wanted = overlay(photo(3), in_colours(mask(3)))
    np.testing.assert_array_equal(drawn(diagnosis)[mask(3) < 255], wanted[mask(3) < 255])


def test_colours__that_are_known_are_no_table(root: Path) -> None:
    classes(root, palette=PALETTE)
    each(root, "masks", lambda m: in_colours(np.where(m == 255, 0, m)))

    assert colour_shares(look(root).context) == []


def test_numbers__are_no_colours(sound: Path) -> None:
    assert colour_shares(look(sound).context) == []
    assert [title for title, _, _ in tables(look(sound), "mine")] == ["mine", "classes"]
