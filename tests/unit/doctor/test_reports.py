"""The report in the terminal, as JSON and as a page."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densevit.doctor.page import page
from densevit.doctor.report import as_record
from tests.unit.doctor.data import look
from tests.unit.doctor.faults import (
    a_mask_of_half_the_size,
    a_transposed_mask,
    an_empty_photo,
    depth_as_a_picture,
    masks_in_colours,
    values_that_are_nan,
)


def test_plain__has_figures_and_findings(root: Path) -> None:
    a_mask_of_half_the_size(root)

    record = json.loads(json.dumps(as_record(look(root), "mine")))

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
    assert text.count('<img src="data:image/') > 10
    assert not re.findall(r"(?:src|href)=(?!['\"]?data:)", text)
    assert all(code in text for code in ("mask-size", "mask-colours"))


def test_page__escapes_names_of_files(root: Path) -> None:
    photo = root / "images" / "train" / "000.png"
    photo.rename(photo.with_name('"<script>.png'))
    (root / "masks" / "train" / "000.png").rename(root / "masks" / "train" / '"<script>.png')

    text = page(look(root), "mine")

    assert "<script>" not in text
    assert 'alt="&quot;&lt;script&gt;.png"' in text


def test_page__survives_files_that_cannot_be_shown(root: Path) -> None:
    for plant in (an_empty_photo, depth_as_a_picture, values_that_are_nan, a_transposed_mask):
        plant(root)
    (root / "images" / "train" / "<script>.png").write_bytes(b"")

    text = page(look(root), "mine")

    assert "<script>" not in text


@pytest.mark.parametrize(
    "array", [np.ones((48, 64, 1)), np.ones((48, 64, 2)), np.full((48, 64), "a")], ids=["one", "two", "text"]
)
def test_page__survives_depth_of_odd_arrays(root: Path, array: Any) -> None:
    for path in sorted((root / "depth" / "train").iterdir())[:2]:
        np.save(path.with_suffix(".npy"), array)
        path.unlink()

    assert "mine" in page(look(root), "mine")
