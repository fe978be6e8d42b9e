"""The page of pictures."""

from pathlib import Path

from densevit.cli.gallery import write_gallery

RECORD = {
    "source": "photos/a<b>.jpg",
    "width": 4,
    "height": 3,
    "primary": "rooms",
    "heads": {
        "streets": {"task": "segmentation", "overlay": "streets.png", "shares": {"sky": 1.0}},
        "rooms": {"task": "segmentation", "overlay": "rooms.png", "shares": {"wall": 0.75, "bed": 0.25}},
        "depth": {"task": "depth", "colours": "depth.png", "min": 0.5, "max": 3.0, "unit": "m"},
    },
}


def test_gallery__shows_the_surest_segmentation_and_depth(tmp_path: Path) -> None:
    write_gallery(tmp_path / "index.html", [RECORD], title="t")
    page = (tmp_path / "index.html").read_text()
    assert [name in page for name in ("rooms.png", "depth.png", "streets.png")] == [True, True, False]
    assert "rooms: wall 75%, bed 25%" in page
    assert "depth: 0.5 to 3.0 m" in page


def test_gallery__names_are_escaped(tmp_path: Path) -> None:
    write_gallery(tmp_path / "index.html", [RECORD], title="<script>")
    page = (tmp_path / "index.html").read_text()
    assert "a&lt;b&gt;.jpg" in page
    assert "<script>" not in page
