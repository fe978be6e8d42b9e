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


def test_gallery__escapes_names(tmp_path: Path) -> None:
    overlay = {"task": "segmentation", "overlay": '"<script>.png', "shares": {'"<script>': 1.0}}
    record = RECORD | {"source": 'photos/"<script>.jpg', "heads": {"rooms": overlay}}
    write_gallery(tmp_path / "index.html", [record], title='"<script>')
    page = (tmp_path / "index.html").read_text()
    assert "<h2>&quot;&lt;script&gt;.jpg" in page
    assert 'src="%22%3Cscript%3E.png" alt="rooms: &quot;&lt;script&gt; 100%"' in page
    assert "<script>" not in page
